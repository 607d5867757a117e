"""`dispatcher run`: the daemon."""

import asyncio
import gc
import os
import resource
import signal
import sys
from pathlib import Path

import click

from dispatcher.cli.common import config_option, guarded, read_configuration
from dispatcher.config import LogFormat


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
    from dispatcher.telemetry import configure_logs

    config = read_configuration(config_path, warn=True)
    as_json = config.log_format is LogFormat.JSON if config.log_format else not sys.stderr.isatty()
    log = configure_logs(as_json=as_json, level=config.log_level)

    async def daemon() -> None:
        await Daemon(config, log, supervisor=Supervisor.of(os.environ)).run()

    # What lives as long as the daemon is not looked through again; the rest is collected less often than by default.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    # The store's thread asks for Python's lock a few times in each transaction: it gets it after 0.5 ms, not after 5.
    sys.setswitchinterval(0.0005)

    try:
        uvloop.run(daemon())
    except asyncio.CancelledError:
        sys.exit(1)
