"""The books as `dispatcher audit` proves them, once a world is over."""

from dispatcher.accept import refrozen
from dispatcher.ground.operator import Operator
from dispatcher.store.engine import Database
from dispatcher.store.proof.audit import audit
from dispatcher.store.proof.findings import Finding, Scope, Seen
from tests.simulation.settings import RETENTION


def found(database: Database, operator: Operator, now: int) -> list[Finding]:
    """What is wrong in them; but for remarks, which a clock that was set back leaves behind.

    `now`: the latest that any clock may have said (µs): by that one retention may have deleted.
    """
    assert database.notary is not None

    def freeze(kind: str, body: str) -> tuple[str, str, bytes] | None:
        event = refrozen(operator, kind, body)
        return event and (event.key, event.uid, event.digest)

    scope = Scope(keep=RETENTION)
    with database.reading() as connection:
        keys = database.notary.every_key(connection)
        every = audit(connection, keys, scope, freeze, now, lambda *_: None, Seen())
        return [one for one in every if one.fault]
