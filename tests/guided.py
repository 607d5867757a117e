"""The readers of what strangers send, fuzzed by coverage: `python -m tests.guided event`, or `answer`, and its options.

Needs atheris (the extra `fuzz`), whose options are libFuzzer's. What it finds becomes a plain test in test_bad_input.
"""

import sys
from collections.abc import Callable
from typing import Any

import atheris

with atheris.instrument_imports(include=["dispatcher"]):
    from dispatcher.ground.errors import Unfit
    from dispatcher.ground.events import Event, _parse_thoroughly, parse_json
    from dispatcher.ground.policy import Outcome, judge, read_answer
    from tests.ground import NOW, claim
    from tests.nasty import contract
    from tests.test_bad_input import RULES, agreed, assert_helps, assert_sends, read, takers


def event(raw: bytes) -> None:
    """As test_an_event_is_taken_whole_…, and both readers of JSON say the same."""
    outcome = read(raw)
    if isinstance(outcome, Event):
        meant = contract(raw)
        assert meant is not None
        assert_sends(meant, outcome)
    else:
        assert_helps(outcome)
    assert _told(parse_json, raw) == _told(_parse_thoroughly, raw)


def _told(reader: Callable[[bytes], Any], raw: bytes) -> str:
    try:
        return repr(reader(raw))
    except Unfit as unfit:
        return str(unfit)


def answer(raw: bytes) -> None:
    """As test_whatever_an_operator_answers_…: the first byte chooses the rule, the second the status."""
    rule, status, body = RULES[raw[0] % len(RULES)] if raw else RULES[0], 200 + sum(raw[1:2]) % 4 * 100, raw[2:]
    outcome = Outcome(NOW, NOW, 0, status, body=body)
    yes = status == 200 and agreed(body, rule)
    assert (read_answer(outcome, rule).failure is None) == yes
    judge(claim(), outcome, takers()["acme"].terms["notice"].schedule, rule)


if __name__ == "__main__":
    target = {"event": event, "answer": answer}[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
