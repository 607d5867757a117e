"""Durations and moments as people write them: read exactly, written back, refused with what to write instead."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.ground.clock import (
    DAY,
    HOUR,
    MILLISECOND,
    MINUTE,
    SECOND,
    CarriedClock,
    WallClock,
    duration_text,
    iso,
    parse_duration,
    parse_moment,
)
from dispatcher.ground.errors import Unfit
from tests.ground import NOW

UNITS = {"ms": MILLISECOND, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [("500ms", 500_000), ("1m", 60_000_000), ("3h", 10_800_000_000), ("10s", 10_000_000), ("1d", 86_400_000_000)],
)
def test_a_duration_is_read_in_microseconds(text: str, microseconds: int) -> None:
    assert parse_duration(text) == microseconds


@given(st.integers(1, 999_999_999), st.sampled_from(sorted(UNITS)))
def test_a_duration_survives_being_written_and_read_and_never_gets_longer(count: int, unit: str) -> None:
    text = f"{count}{unit}"
    try:
        length = parse_duration(text)
    except Unfit:
        assert count * UNITS[unit] > 365 * DAY
        return
    assert length == count * UNITS[unit]
    assert parse_duration(duration_text(length)) == length
    assert len(duration_text(length)) <= len(text)


def test_no_time_at_all_is_a_duration_too() -> None:
    assert parse_duration("0s") == 0
    assert parse_duration(duration_text(0)) == 0


@pytest.mark.parametrize(
    "text",
    [
        *("", "1", "m", "1 m", " 1m", "1m ", "1m\n", "-1m", "+1m", "1.5h", "1,5h", "1M", "1min", "1m30s", "1e3s"),
        *("1w", "1us", "0x1s", "1_000s", "１m", "١m", "½h", "PT1M", "1000000000s", "inf", "1m\0"),
    ],
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Unfit) as refused:
        parse_duration(text)
    assert "is not a duration" in refused.value.fault
    assert '"1m"' in refused.value.mend


@given(st.text(max_size=12))
def test_any_text_is_a_duration_or_unfit(text: str) -> None:
    try:
        length = parse_duration(text)
    except Unfit:
        return
    assert text.isascii()
    assert length >= 0


@pytest.mark.parametrize("unit", UNITS)
def test_every_duration_that_is_read_can_be_added_to_now_stored_and_shown(unit: str) -> None:
    try:
        due_at = NOW + parse_duration(f"999999999{unit}")
    except Unfit:
        return
    assert due_at < 2**63
    assert iso(due_at) is not None


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("2026-01-31", "2026-01-31T00:00:00.000Z"),
        ("2026-01-31T08:00:00Z", "2026-01-31T08:00:00.000Z"),
        ("2026-01-31T08:00:00", "2026-01-31T08:00:00.000Z"),
        ("2026-01-31 08:00", "2026-01-31T08:00:00.000Z"),
        ("2026-01-31T08:00:00+08:00", "2026-01-31T00:00:00.000Z"),
        ("2026-01-31T08:00:00.123456Z", "2026-01-31T08:00:00.123Z"),
        ("2h", "2025-12-31T22:00:00.000Z"),
        ("500ms", "2025-12-31T23:59:59.500Z"),
    ],
)
def test_a_moment_is_a_date_a_time_or_how_long_ago(text: str, written: str) -> None:
    assert iso(parse_moment(text, NOW)) == written


@pytest.mark.parametrize("text", ["", "yesterday", "2026-02-30", "31.01.2026", "2026-01-31T25:00:00Z", "-2h", "now"])
def test_what_is_no_moment_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Unfit, match="is not a time") as refused:
        parse_moment(text, NOW)
    assert '"2026-01-31"' in refused.value.mend


@given(st.text(max_size=30))
def test_any_text_is_a_moment_or_unfit(text: str) -> None:
    try:
        at = parse_moment(text, NOW)
    except Unfit:
        return
    assert iso(at) is not None


@pytest.mark.parametrize("text", ["999999999h", "999999999d"])
def test_a_moment_before_all_calendars_is_refused_or_can_be_shown(text: str) -> None:
    try:
        at = parse_moment(text, NOW)
    except Unfit:
        return
    assert iso(at) is not None


@given(st.datetimes(datetime(1970, 1, 1), datetime(9998, 12, 31), timezones=st.just(UTC)))  # noqa: DTZ001  # UTC is added
def test_a_moment_that_was_shown_is_read_back_to_the_millisecond(moment: datetime) -> None:
    microseconds = parse_moment(moment.isoformat(), NOW)
    shown = iso(microseconds)
    assert shown is not None
    assert parse_moment(shown, NOW) == microseconds - microseconds % MILLISECOND


def test_no_moment_is_shown_as_none() -> None:
    assert iso(None) is None


def test_the_wall_clock_tells_microseconds_since_1970() -> None:
    before = datetime.now(UTC).timestamp()
    told = WallClock().now()
    after = datetime.now(UTC).timestamp()
    assert before - 1 < told / SECOND < after + 1


class Ticking(CarriedClock):
    """A carried clock whose ticks are moved."""

    at = 1_000

    def ticks(self) -> int:  # type: ignore[override]  # the real one needs no self
        return self.at


def test_a_carried_clock_goes_on_from_the_last_reading() -> None:
    clock = Ticking()
    assert not clock.is_set
    with pytest.raises(ValueError, match="never set"):
        clock.now()
    clock.heard(NOW, clock.at)
    clock.at += SECOND
    assert (clock.is_set, clock.now()) == (True, NOW + SECOND)


@given(st.lists(st.tuples(st.integers(0, SECOND), st.integers(0, SECOND), st.integers(0, SECOND)), min_size=1))
def test_a_carried_clock_is_never_ahead_of_the_other_and_never_goes_back(trips: list[tuple[int, int, int]]) -> None:
    clock = Ticking()
    for before, there, back in trips:
        clock.at += before
        asked = clock.at
        clock.at += there
        reading = NOW + clock.at
        clock.at += back
        told = clock.now() if clock.is_set else 0
        clock.heard(reading, asked)
        assert max(told, reading) <= clock.now() <= NOW + clock.at


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_carried_clock_follows_one_that_jumps(jump: int) -> None:
    clock = Ticking()
    clock.heard(NOW, clock.at)
    clock.heard(NOW + jump, clock.at)
    assert clock.now() == NOW + jump
