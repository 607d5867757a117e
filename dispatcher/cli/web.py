"""`dispatcher web`: the HTTP API without a worker."""

from pathlib import Path

import click

from dispatcher.cli.common import actor, config_option, guarded, log_of, read_configuration, settle_in
from dispatcher.ground.errors import Refused

PATIENCE_SECONDS = 1.0


@click.command(name="web")
@config_option
@guarded
def command(config_path: Path) -> None:
    """Serve the HTTP API at web.listen until SIGTERM; what comes in is delivered by `dispatcher run`.

    Operators that are changed in the database are in force within a second; the rest of the configuration is read at
    the start alone. As many of these as are wanted may work on one store, on a PostgreSQL server also on other hosts.
    It refuses a store that is not there, or of another version.
    """
    import uvloop

    from dispatcher.alone import Alone
    from dispatcher.store.engine import open_database

    config = read_configuration(config_path, warn=True)
    if config.listen is None:
        raise Refused('web.listen is "": there is nowhere to serve; write an address like "127.0.0.1:8080"')
    log = log_of(config)
    database = open_database(config.database, create=False, patience=PATIENCE_SECONDS)
    click.get_current_context().call_on_close(database.close)
    settle_in(0.0005)
    uvloop.run(Alone(config, database, log, actor()).serve())
