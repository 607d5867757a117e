"""The points at which a process dies: each is told by its words, `before claim`."""

INSERT, CLAIM, SETTLE, RECORD, ADOPT = "insert", "claim", "settle", "record", "adopt"
CONNECT, SENDING, READING = "connect", "sending", "reading"
# The request's head has left, its body has not.
AMID_SENDING = f"amid {SENDING}"
# Killed from outside, worker and `enqueue` together, wherever they happen to be.
ANY_MOMENT = "any moment"


def _sides(*steps: str) -> list[str]:
    return [f"{side} {step}" for step in steps for side in ("before", "after")]


def commit_of(step: str) -> str:
    """The commit of a transaction in which this was done."""
    return f"commit of {step}"


# In `enqueue`: an event is taken.
TAKING = _sides(INSERT, commit_of(INSERT))
# In a worker that takes over what another left behind.
ADOPTING = _sides(ADOPT, commit_of(ADOPT))
# In a worker: a delivery is made.
DELIVERING = [
    *_sides(CLAIM, commit_of(CLAIM), CONNECT),
    *(f"before {SENDING}", AMID_SENDING, f"after {SENDING}"),
    *_sides(READING, SETTLE, RECORD, commit_of(SETTLE)),
]


def commits(point: str) -> bool:
    """Whether what the step wrote is there for good when the process dies at this point."""
    return point.startswith("after commit")


POINTS = [*TAKING, *DELIVERING, *ADOPTING, ANY_MOMENT]
