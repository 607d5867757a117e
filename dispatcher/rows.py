"""Deliveries as JSON: what `log --json`, `show --json`, exports and the HTTP API all give."""

from collections.abc import Sequence
from typing import Any

import orjson

from dispatcher.ground.clock import iso
from dispatcher.protocols import PROTOCOLS
from dispatcher.store.ledger import Row
from dispatcher.store.replays import Replay

_AMOUNTS = tuple(dict.fromkeys(name for protocol in PROTOCOLS.values() for name in protocol.amounts))

# Of every row that is exported, whatever its type: a type without an amount leaves its place empty.
FIELDS = (*(name for name in Row._fields if name not in ("body", "parked")), *_AMOUNTS)


def amounts(row: Row) -> dict[str, str]:
    """The frozen event's amounts, as decimal text."""
    protocol = PROTOCOLS.get(row.type)
    event = orjson.loads(row.body)
    return {name: event[name] for name in protocol.amounts if name in event} if protocol else {}


def figures(kind: str, body: str) -> dict[str, str]:
    """What every type of a frozen event has in its own words: bet, win, net, game and business, as text."""
    protocol = PROTOCOLS.get(kind)
    event = orjson.loads(body)
    return {name: str(event[own]) for name, own in protocol.columns.items() if own in event} if protocol else {}


def as_json(row: Row) -> dict[str, object]:
    """A row as interface.md names its fields, with the event's amounts."""
    shown: dict[str, object] = {name: value for name, value in row._asdict().items() if name not in ("body", "parked")}
    shown |= {"ambiguous": bool(row.ambiguous), **amounts(row), "parked": bool(row.parked)}
    return shown | {name: iso(getattr(row, name)) for name in ("due_at", "accepted_at", "finished_at")}


def json_line(row: Row) -> str:
    """As NDJSON has it."""
    return orjson.dumps(as_json(row), option=orjson.OPT_APPEND_NEWLINE).decode()


def event_of(row: Row) -> dict[str, object]:
    """The event as it was frozen, with whose it is."""
    return {"operator": row.operator, "type": row.type, **orjson.loads(row.body)}


def whole(row: Row, attempts: Sequence[dict[str, Any]], actions: Sequence[dict[str, Any]]) -> dict[str, object]:
    """One delivery with its event and everything that was done with it, as `ledger.history` gives that."""
    return {**as_json(row), "event": event_of(row), "attempts": attempts, "actions": actions}


def replay_as_json(job: Replay, now: int) -> dict[str, object]:
    """A bulk replay with its progress at this moment: what `replays --json` and the HTTP API give."""
    chosen = job.which.values()
    chosen |= {name: iso(chosen[name]) for name in ("since", "until") if name in chosen}
    # How many: they may be thousands.
    chosen |= {"keys": len(job.which.keys)} if job.which.keys else {}
    told: dict[str, object] = {"id": job.id, "state": job.state.value, "driven": job.driven(now), "actor": job.actor}
    told |= {"note": job.note, "operator": job.which.operator, "filter": chosen, "pace": job.pace, "total": job.total}
    told |= {"taken": job.taken, "refused": job.refused, "left": job.left}
    told |= {"rate": None if job.rate is None else round(job.rate, 1), "ends_at": iso(job.ends_at(now))}
    told |= {name: iso(getattr(job, name)) for name in ("created_at", "updated_at", "finished_at")}
    return told | {"refusals": [one._asdict() for one in job.refusals]}
