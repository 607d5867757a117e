"""`summary`: what people are told, by webhook: how much died, of whom, why; never a player, an amount or a token.

Its event is made by the dispatcher itself (`summaries`) and says facts; how they are worded is each attempt's matter.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from dispatcher.ground.clock import iso
from dispatcher.ground.errors import Fault, Unfit
from dispatcher.ground.events import Event, content_digest
from dispatcher.ground.fields import Field, identifier, integer, shown
from dispatcher.ground.lang import Words, words
from dispatcher.ground.operator import SUMMARY, Chat, Notification, Operator
from dispatcher.ground.policy import Claim
from dispatcher.protocols import chat
from dispatcher.protocols.base import Protocol

# Of so many operators a summary tells one by one, the worst first; of the others only how many there are.
MOST_TOLD = 20
# So many reasons of each.
_REASONS = 3
_TIME = integer(0, 2**63 - 1, "µs since 1970")
_COUNT = ("died", "dead", "failures")
_MOMENT = ("oldest", "failing_since", "held_since")


def _about(value: Any) -> list[dict[str, Any]]:
    """What is told of each operator: `operator`; `died`, `dead`, `failures` counted; `reasons` with how many of each;

    `oldest`, `failing_since`, `held_since` in µs since 1970 or null.
    """
    if not isinstance(value, list) or not all(isinstance(one, dict) and _is_told(one) for one in value):
        raise Unfit(f"{shown(value)} is not what a summary tells of operators", "leave it as the dispatcher made it")
    return value


def _is_told(one: Mapping[str, Any]) -> bool:
    return (
        one.keys() == {"operator", "reasons", *_COUNT, *_MOMENT}
        and isinstance(one["operator"], str)
        and isinstance(one["reasons"], dict)
        and all(type(count) is int for count in (*one["reasons"].values(), *(one[name] for name in _COUNT)))
        and all(one[name] is None or type(one[name]) is int for name in _MOMENT)
    )


def _console(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise Unfit(f"{shown(value)} is no URL", "leave it as the dispatcher made it")
    return value


FIELDS = (
    Field("window", identifier(64)),
    Field("since", _TIME),
    Field("until", _TIME),
    Field("operators", _about),
    Field("others", integer(0, 2**63 - 1, "a number")),
    Field("console", _console),
)


def check(_operator: Operator, _values: Mapping[str, Any]) -> Sequence[Fault]:
    return ()


def freeze(operator: Operator, values: Mapping[str, Any]) -> Event:
    """`window` is the key: whoever makes the same summary once more makes the same delivery."""
    body = orjson.dumps({field.name: values[field.name] for field in FIELDS}, option=orjson.OPT_SORT_KEYS).decode()
    return Event(operator.name, SUMMARY, values["window"], "", body, content_digest((body,)))


def is_test(window: str) -> bool:
    """True for a summary that a person asked for, to see whether it arrives: it tells of nothing."""
    return not window.isdigit()


def body(operator: Operator, claim: Claim, _seal: Callable[[bytes], str], now: int) -> bytes:
    """In the form of the operator's webhook, in its language, stamped and signed at `now` (µs since 1970)."""
    notification = operator.notification
    assert notification is not None
    facts = orjson.loads(claim.body)
    title, *lines = written(facts, words(notification.language), operator.name)
    if notification.preset is Chat.JSON:
        return _document(facts, [title, *lines])
    return chat.message(notification, title, lines, now)


def written(facts: Mapping[str, Any], said: Words, whose: str) -> list[str]:
    """A title, then a line for each thing to know."""
    if is_test(facts["window"]):
        return [said["sum_test"].format(whose)]
    told = facts["operators"]
    died, failing = sum(one["died"] for one in told), sum(_fails(one) for one in told)
    heads = [said["sum_died"].format(died)] if died else []
    heads += [said["sum_failing"].format(failing)] if failing else []
    lines = [line for one in told for line in _lines(one, facts, said)]
    if facts["others"]:
        lines.append(said["sum_others"].format(facts["others"]))
    names = [one["operator"] for one in told if one["died"]]
    lines += [f"{said['sum_look']}: dispatcher dead list --operator {name}" for name in names[:1]]
    lines += [f"{said['sum_look']}: {facts['console']}"] if facts["console"] else []
    return [f"dispatcher: {', '.join(heads)}", *lines]


def _fails(one: Mapping[str, Any]) -> bool:
    return one["failing_since"] is not None or one["held_since"] is not None


def _lines(one: Mapping[str, Any], facts: Mapping[str, Any], said: Words) -> list[str]:
    name, lines = one["operator"], []
    if one["died"]:
        lines.append(said["sum_operator"].format(name, one["died"], _moment(facts["since"]), one["dead"]))
        worst = sorted(one["reasons"].items(), key=lambda pair: (-pair[1], pair[0]))
        lines += [f"  {count} × {said.get(f'why_{reason}', reason)}" for reason, count in worst[:_REASONS]]
    if one["held_since"] is not None:
        lines.append(said["sum_held"].format(name, _moment(one["held_since"])))
    elif one["failing_since"] is not None:
        lines.append(said["sum_fails"].format(name, _moment(one["failing_since"]), one["failures"]))
    if one["oldest"] is not None:
        lines.append(said["sum_oldest"].format(name, _moment(one["oldest"])))
    return lines


def _moment(at: int) -> str:
    """To the second."""
    return (iso(at) or "")[:19] + "Z"


def _document(facts: Mapping[str, Any], lines: Sequence[str]) -> bytes:
    """For programs: the facts, times in ISO 8601 UTC, and the same in words."""
    told = [{**one, **{name: iso(one[name]) for name in _MOMENT}} for one in facts["operators"]]
    return orjson.dumps(
        {
            "type": SUMMARY,
            "id": facts["window"],
            "test": is_test(facts["window"]),
            "since": iso(facts["since"]),
            "until": iso(facts["until"]),
            "operators": told,
            "others": facts["others"],
            "console": facts["console"],
            "text": "\n".join(lines),
        }
    )


def _target(operator: Operator, now: int) -> Any:
    assert isinstance(operator.notification, Notification)
    return chat.target(operator.notification, now)


PROTOCOL = Protocol(
    name=SUMMARY,
    fields=FIELDS,
    check=check,
    freeze=freeze,
    body=body,
    url="url",
    path="",
    encrypts=False,
    defaults={
        "auth": "none",
        # A chat that is away for a night hears of it in the morning; by then more has been told in one summary.
        "retry": {"delays": ["10s", "30s", "1m", "5m", "15m", "30m", "1h", "2h", "4h"]},
        "success": {"statuses": [200]},
    },
    key="window",
    amounts=(),
    columns={},
    target=_target,
)
