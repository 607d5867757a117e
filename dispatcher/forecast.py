"""When an operator's backlog is through, and how many of it an outage would cost. Pure: rows and the time go in.

Each delivery is reckoned by its own schedule (`policy`). What is assumed is told with the result: `ASSUMED`.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from dispatcher.ground.clock import HOUR, MINUTE
from dispatcher.ground.operator import Operator
from dispatcher.ground.schedule import Schedule
from dispatcher.store.counts.waiting import Run
from dispatcher.store.operators import Doors, Standing

# How much longer an outage may last (µs), unless somebody asks for something else.
OUTAGES = (0, 10 * MINUTE, 30 * MINUTE, HOUR, 3 * HOUR)

# What is taken for granted, for whoever reads the figures.
ASSUMED = {
    "en": (
        "Dead after an outage: at most so many of what is pending or being sent now. Every attempt that begins during"
        " it fails as soon as it begins; one that waits for a free place fails later, and uses fewer attempts up.",
        "The settings stay as they are, Retry-After asks for nothing, and no code of the operator's is final.",
        "Who is paused or held now stays so: nothing is sent, nothing is used up, nothing dies. A breaker that is not"
        " tripped yet trips after as many failures as it is set to, and no more attempts than those and the ones under"
        " way by then are used up.",
        "What is parked behind another delivery is counted, and not reckoned: it is not sent before that one is done.",
        "Through: when everything pending has had its next attempt, in the order in which it is due, with all of"
        " the operator's places (its concurrency, or worker.concurrency where that is less) taken by attempts as"
        " long as the mean of the last hour, every one of them a yes, and nothing new coming in.",
    ),
    "zh": (
        "中断后失败数：现有等待或同步中的记录至多有这么多失败。中断期间开始的通知均立即失败；因等待空位而晚发者消耗的次数更少。",
        "设置不变，不计 Retry-After，商户不返回终局码。",
        "已暂停或已熔断的商户保持原状：不发送、不消耗、不失败。尚未触发的熔断在达到设定的失败次数时触发，"
        "至多消耗这些次数与届时在途的次数。",
        "排在其他记录之后者计入数量、不作推算：前者完成之前不会发送。",
        "清空时间：全部等待者按到期顺序各通知一次的时间；并发用满（商户并发与 worker.concurrency 取小），"
        "每次用时取最近一小时的平均值，均告成功，且没有新记录。",
    ),
}


class Circumstances(NamedTuple):
    """What an operator's backlog is reckoned with; times in µs.

    `closed`: for how long it was paused or held, in all. `places`: requests in flight at most. `answer`: how long an
    attempt took lately, None where none was made. `most_lost`: attempts until its breaker holds it, None without one.
    """

    doors: Doors
    schedules: Mapping[str, Schedule]
    closed: int
    places: int
    answer: int | None
    most_lost: int | None


class Outlook(NamedTuple):
    """What is to be expected; times in µs.

    `waiting` are pending, `due` of them now; `sending` are under way; `parked` stand behind another one. `drained_at`:
    when the last that waits has had its attempt; None where nothing waits, or nobody can say. `deaths`: at most so many
    are dead by the end of an outage of each length; None where nobody knows the schedule.
    """

    doors: Doors
    waiting: int
    due: int
    sending: int
    parked: int
    drained_at: int | None
    deaths: Sequence[int] | None


def circumstances(
    operator: Operator | None, standing: Standing | None, most_places: int, answer: int | None
) -> Circumstances:
    """`most_places`: of all operators together."""
    if operator is None or standing is None:
        return Circumstances(Doors.UNFIT, {}, 0, 0, None, None)
    places = min(operator.concurrency, most_places)
    schedules = {kind: terms.schedule for kind, terms in operator.terms.items()}
    # Those under way when the breaker holds it fail by the schedule, too.
    most_lost = None if operator.breaker is None else operator.breaker.failures + places - 1
    return Circumstances(standing.doors, schedules, standing.closed_total, places, answer, most_lost)


def forecast(
    waiting: Iterable[Run],
    sending: Sequence[Run],
    parked: int,
    given: Circumstances,
    outages: Sequence[int],
    now: int,
) -> Outlook:
    """One pass over what waits, which comes in the order in which it is due; the memory does not grow with it.

    `outages`: how much longer (µs) it may last, in rising order: whatever begins before the end of it fails, at once.
    """
    ends = [now + outage for outage in outages]
    # How many die before each end, and not before the one before it; those that outlive all of them last.
    deaths = [0] * (len(ends) + 1)
    for run in sending:
        deaths[bisect_right(ends, _given_up(run, now, given))] += 1
    # As if the places were one that is as many times as quick.
    step = None if given.answer is None or not given.places else given.answer / given.places
    count = due = 0
    free_at: float = now
    for run in waiting:
        at = now if run.due_at is None or run.due_at <= now else run.due_at
        count += 1
        due += at == now
        free_at = max(free_at + (step or 0), at)
        deaths[bisect_right(ends, _given_up(run, at, given))] += 1
    drains = count and step is not None and given.doors is Doors.OPEN
    return Outlook(
        given.doors,
        *(count, due, len(sending), parked),
        round(free_at) if drains else None,
        _told(list(accumulate(deaths[:-1])), given),
    )


def _told(deaths: list[int], given: Circumstances) -> list[int] | None:
    if given.doors is Doors.UNFIT:
        return None
    if given.doors is not Doors.OPEN:
        # Nothing is sent, or probes that count for no schedule; and windows stand still.
        return [0] * len(deaths)
    return deaths if given.most_lost is None else [min(one, given.most_lost) for one in deaths]


_NEVER = 1 << 62


def _given_up(run: Run, ended: int, given: Circumstances) -> int:
    schedule = given.schedules.get(run.type)
    if schedule is None:
        return _NEVER
    anchor = ended if run.anchor_at is None else run.anchor_at + given.closed
    return schedule.given_up(run.failures, anchor, ended)
