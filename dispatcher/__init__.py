"""Provider-side retry dispatcher: game spins in, operator callbacks out.

`enqueue` is for Python programs that hand events in within their own transaction.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dispatcher.outbox import enqueue

__all__ = ["__version__", "enqueue"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Loaded when it is asked for: the command line needs next to nothing of it."""
    if name == "enqueue":
        from dispatcher.outbox import enqueue

        return enqueue
    raise AttributeError(name)
