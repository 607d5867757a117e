"""What the commands about operators work with."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from dispatcher.cli.common import actor, read_configuration
from dispatcher.cli.opening import no_operator, opened
from dispatcher.config import Config
from dispatcher.ground.errors import Refused
from dispatcher.roster import Roster, load, open_vault, provision
from dispatcher.store import operators as store
from dispatcher.store.engine import Database
from dispatcher.store.operators import Standing


class InForce(NamedTuple):
    """The operators in force, and what they stand in. `standings` has those that can't be used, too."""

    config: Config
    database: Database
    roster: Roster
    standings: Mapping[str, Standing]

    def known(self, name: str) -> str:
        """The name. Raises Refused where no such operator is in force."""
        if name not in self.standings:
            raise Refused(no_operator(name, self.standings))
        return name

    def ring(self) -> None:
        self.database.ring()


def open_operators(config_path: Path) -> InForce:
    """The operators in force; those that the file declares and the database has never seen are written first."""
    config = read_configuration(config_path)
    database = opened(config, create=True)
    vault = open_vault(config, database)
    provision(database, vault, config, database.clock().now(), actor=actor(), only_new=True)
    roster = load(database, vault, config)
    standings = {row.name: row for row in store.standings(database) if row.name in {*roster.members, *roster.faults}}
    return InForce(config, database, roster, standings)
