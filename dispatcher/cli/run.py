"""`dispatcher run`: the daemon."""

import asyncio
import os
import resource
import signal
import sys
from pathlib import Path

import click

from dispatcher.cli.common import config_option, guarded, log_of, read_configuration, settle_in


@click.command(name="run")
@config_option
@guarded
def command(config_path: Path) -> None:
    """Deliver what is due until told to stop.

    SIGTERM ends it cleanly: what is in flight is finished and settled. SIGHUP reloads the configuration.
    """
    # A core file would hold every key and token in the clear.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    # Until the daemon listens to it, a reload has nothing to reload; by default it would end the process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    import uvloop

    from dispatcher.app import Daemon
    from dispatcher.supervisor import Supervisor

    config = read_configuration(config_path, warn=True)
    log = log_of(config)

    async def daemon() -> None:
        await Daemon(config, log, supervisor=Supervisor.of(os.environ)).run()

    settle_in(0.0005)
    try:
        uvloop.run(daemon())
    except asyncio.CancelledError:
        sys.exit(1)
