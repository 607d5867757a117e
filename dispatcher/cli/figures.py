"""How things stand as people read it: the columns of `stats`, in a table and in the live view."""

from collections.abc import Sequence

from dispatcher.ground.clock import MILLISECOND, SECOND
from dispatcher.ground.lang import Words
from dispatcher.ground.policy import Reason
from dispatcher.stats import Flow, Line, Picture

COLUMNS = (
    *("operator", "state", "pending", "due_now", "oldest", "parked", "sending", "dead", "resolved", "delivered"),
    *("delivered_hour", "per_second", "success", "answer_ms", "lateness"),
)


def cells(line: Line, now: int, said: Words) -> Sequence[object]:
    load = line.load
    return (
        *(line.operator or said["all_of_them"], said[line.state] if line.state else "", load.pending, load.due),
        *(age_text(line.age(now)), load.parked, load.sending, load.dead, load.resolved),
        *("-" if load.delivered is None else load.delivered, line.delivered_hour, *flow_cells(line.flow)),
    )


def flow_cells(flow: Flow) -> tuple[str, str, str, str]:
    """Attempts a second, how many of them were a yes, how long one took, how late it began."""
    share = "" if flow.share is None else f"{100 * flow.share:.1f} %"
    answer = "" if flow.answer is None else str(flow.answer // MILLISECOND)
    return (f"{flow.rate:.2f}", share, answer, "" if flow.lateness is None else age_text(flow.lateness))


def reasons_text(shown: Picture) -> str:
    told = [(reason, count, Reason(reason).ambiguous) for reason, count in shown.reasons.most_common()]
    return ", ".join(f"{reason}{' *' if doubtful else ''} {count}" for reason, count, doubtful in told)


def age_text(length: int) -> str:
    """A length of time for people, to its two largest units."""
    seconds = length / SECOND
    if seconds < 60:
        return f"{seconds:.1f}s" if seconds else ""
    whole = int(seconds)
    for unit, size, below, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "m", 60)):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // part}{below}"
    return f"{whole // 60}m {whole % 60}s"
