"""Which deliveries a page is asked for: what stands in its address, read, so that an address can be passed on."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request

from dispatcher.ground.clock import DAY, HOUR, parse_moment, to_datetime
from dispatcher.ground.errors import Unfit
from dispatcher.ground.fields import opaque
from dispatcher.ground.policy import Reason, Status
from dispatcher.rows import figures
from dispatcher.store.ledger import Filter
from dispatcher.web.reading import cursor, cursor_text

# As they stand in an address and in the form.
TEXTS = ("operator", "type", "game", "business", "uid", "key")
NAMES = (*TEXTS, "status", "reason", "span", "since", "until", "zone")
SPANS = ("1h", "today", "7d")
# Beyond it the way back leads to the newest at once.
LONGEST_TRAIL = 30
_ZONE = re.compile(r"([+-])([01][0-9]):([0-5][0-9])", re.ASCII)
ZONES = (
    *(f"-{hour:02}:00" for hour in range(11, 0, -1)),
    *("+00:00", "+01:00", "+02:00", "+03:00", "+03:30", "+04:00", "+04:30", "+05:00", "+05:30", "+05:45", "+06:00"),
    *("+06:30", "+07:00", "+08:00", "+09:00", "+09:30", "+10:00", "+11:00", "+12:00", "+13:00"),
)
_short = opaque(255)


@dataclass(frozen=True)
class Sieve:
    """`given` is what was written, for the form and for links; `faults` names what of it can't be read, by a word.

    `own_zone`: nobody has named a zone, so the reader's own may stand in the form.
    """

    given: Mapping[str, str]
    where: Filter
    faults: Mapping[str, str] = field(default_factory=dict)
    own_zone: bool = False

    @property
    def zone(self) -> str:
        return self.given["zone"]

    @property
    def sifts(self) -> bool:
        """Whether rows must be looked into: what is asked for stands in no index."""
        return "game" in self.given or "business" in self.given

    def fits(self, kind: str, body: str) -> bool:
        """Whether an event is of this game and business."""
        return not self.sifts or self.fits_told(figures(kind, body))

    def fits_told(self, told: Mapping[str, str]) -> bool:
        """As `fits`, of what `figures` made of it."""
        return all(name not in self.given or told.get(name) == self.given[name] for name in ("game", "business"))

    def query(self, **more: object) -> str:
        """What stands behind the `?`, with `more` in place of what stands there; left out for None."""
        whole = {**self.given, **more}
        return urlencode({name: str(value) for name, value in whole.items() if value is not None})


def read_sieve(request: Request, now: int, language: str, *, status: Status | None = None) -> Sieve:
    """By a request's address. `now` in µs; `status`: the page is for these alone."""
    return sieve_of(request.scope["query_string"].decode("ascii", "replace"), now, language, status=status)


def sieve_of(query: str, now: int, language: str, *, status: Status | None = None) -> Sieve:
    pairs = parse_qsl(query[:8_192])
    given = {name: value.strip() for name, value in pairs if name in NAMES and value.strip()}
    own_zone = "zone" not in given
    given.setdefault("zone", "+08:00" if language == "zh" else "+00:00")
    if given.get("span"):
        given.pop("since", None)
        given.pop("until", None)
    if status is not None:
        given.pop("status", None)
    faults = {name: "unfit_text" for name in TEXTS if name in given and not _is_fit(given[name])}
    faults |= {name: "unfit_choice" for name, known in _CHOICES if name in given and given[name] not in known}
    if not _ZONE.fullmatch(given["zone"]):
        faults["zone"], given["zone"] = "unfit_choice", "+00:00"
    times: dict[str, int | None] = {"since": _span(given, now)}
    for name in ("since", "until"):
        if name in given:
            try:
                times[name] = _moment(given[name], given["zone"], now)
            except Unfit:
                faults[name] = "unfit_time"
    for name in faults:
        # It is shown in the form as text, and goes no further.
        given[name] = given[name][:255]
    texts = {name: given.get(name) for name in ("operator", "type", "uid", "key", "reason") if name not in faults}
    chosen = Status(given["status"]) if "status" in given and "status" not in faults else status
    return Sieve(given, Filter(status=chosen, **texts, **times), faults, own_zone)  # type: ignore[arg-type]


_CHOICES: Sequence[tuple[str, Sequence[str]]] = (("status", list(Status)), ("reason", list(Reason)), ("span", SPANS))


def _is_fit(text: str) -> bool:
    try:
        _short(text)
    except Unfit:
        return False
    return True


def tz(zone: str) -> timezone:
    match = _ZONE.fullmatch(zone)
    assert match is not None
    ahead = timedelta(hours=int(match[2]), minutes=int(match[3]))
    return timezone(ahead if match[1] == "+" else -ahead)


def _span(given: Mapping[str, str], now: int) -> int | None:
    match given.get("span"):
        case "1h":
            return now - HOUR
        case "7d":
            return now - 7 * DAY
        case "today":
            return _µs(
                to_datetime(now).astimezone(tz(given["zone"])).replace(hour=0, minute=0, second=0, microsecond=0)
            )
    return None


def _moment(text: str, zone: str, now: int) -> int:
    """As every command reads times, but that a time without a zone is in this one. Raises Unfit."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return parse_moment(text[:64], now)
    return parse_moment((moment if moment.tzinfo else moment.replace(tzinfo=tz(zone))).isoformat(), now)


def _µs(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@dataclass(frozen=True)
class Pager:
    """Where in the log a page begins, and the places of the pages before it, so that there is a way back."""

    place: tuple[int, int] | None
    trail: tuple[tuple[int, int], ...]

    def older(self, place: tuple[int, int]) -> dict[str, str]:
        before = (*self.trail, self.place)[-LONGEST_TRAIL:] if self.place is not None else ()
        return _address(place, [one for one in before if one is not None])

    def newer(self) -> dict[str, str] | None:
        """None on the first page."""
        if self.place is None:
            return None
        return _address(self.trail[-1], self.trail[:-1]) if self.trail else {}


def _address(place: tuple[int, int], trail: Sequence[tuple[int, int]]) -> dict[str, str]:
    told = {"place": cursor_text(place)}
    return {**told, "trail": ",".join(map(cursor_text, trail))} if trail else told


def read_pager(request: Request) -> Pager:
    """A place that can't be read is no place: the page begins with the newest."""
    try:
        given = request.query_params.get("place", "")
        trail = request.query_params.get("trail", "")[:4_096]
        return Pager(cursor(given) if given else None, tuple(cursor(one) for one in trail.split(",") if one))
    except Unfit:
        return Pager(None, ())
