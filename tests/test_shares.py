"""How free places are shared out: evenly, and never all of them to those that hold what they get."""

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.dispatch.shares import Wish, shares, slow_share

FAST, SLOW, NEW = (False, False), (True, False), (True, True)
wishes = st.lists(
    st.builds(
        lambda busy, places, kind: Wish(busy, places, *kind),
        st.integers(0, 40),
        st.integers(0, 40),
        st.sampled_from([FAST, SLOW, NEW]),
    ),
    max_size=12,
)


def test_each_place_goes_to_whoever_has_the_fewest_under_way() -> None:
    assert shares([Wish(0, 9, *FAST), Wish(2, 9, *FAST), Wish(5, 9, *FAST)], 6, 0) == [4, 2, 0]
    assert shares([Wish(0, 1, *FAST), Wish(0, 9, *FAST)], 6, 0) == [1, 5]
    assert shares([], 6, 6) == []


def test_slow_operators_get_no_more_than_what_is_left_of_their_share_together() -> None:
    assert shares([Wish(9, 9, *SLOW), Wish(3, 9, *SLOW)], 10, 4) == [0, 4]
    assert shares([Wish(9, 9, *SLOW), Wish(30, 9, *FAST)], 10, 0) == [0, 9]


def test_whoever_is_new_may_try_one_although_the_slow_ones_have_all_of_their_share() -> None:
    assert shares([Wish(37, 9, *SLOW), Wish(0, 9, *NEW), Wish(1, 9, *NEW)], 13, -3) == [0, 1, 0]


def test_a_quarter_is_kept_for_those_that_answer() -> None:
    assert [slow_share(all_places) for all_places in (1, 2, 4, 50, 256)] == [1, 1, 3, 37, 192]


@given(wishes, st.integers(0, 100), st.integers(-10, 80))
def test_nobody_gets_more_than_it_may_and_no_place_is_left_that_somebody_may_have(
    wishes: list[Wish], free: int, slow_free: int
) -> None:
    given = shares(wishes, free, slow_free)
    assert all(0 <= some <= wish.places for some, wish in zip(given, wishes, strict=True))
    assert sum(given) <= free
    slow = sum(some for some, wish in zip(given, wishes, strict=True) if wish.slow)
    tried = sum(wish.new and wish.in_flight == 0 and some > 0 for some, wish in zip(given, wishes, strict=True))
    assert slow - tried <= max(0, slow_free)
    if sum(given) < free:
        assert all(some == wish.places for some, wish in zip(given, wishes, strict=True) if not wish.slow)
