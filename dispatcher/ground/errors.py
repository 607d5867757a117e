"""What can go wrong, said to the person who must act. No I/O, no other room."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: where it stands, what is wrong with it, what to write instead."""

    where: str
    fault: str
    mend: str

    def __str__(self) -> str:
        return f"{self.where}: {self.fault}; {self.mend}"


class Unfit(ValueError):
    """A value that a reader refuses; the caller knows where it stood and makes it a Fault."""

    def __init__(self, fault: str, mend: str) -> None:
        super().__init__(f"{fault}; {mend}")
        self.fault = fault
        self.mend = mend

    def at(self, where: str) -> Fault:
        return Fault(where, self.fault, self.mend)


class DispatcherError(Exception):
    """Base of everything the dispatcher raises on purpose; its text is meant for a person."""

    exit_status = 1


class _Faulty(DispatcherError):
    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = tuple(faults)


class ConfigError(_Faulty):
    """The configuration is faulty; carries every fault, not the first."""

    exit_status = 2


class EventError(_Faulty):
    """An event was refused; carries every fault of it, not the first."""


class Refused(DispatcherError):
    """A command was understood and not carried out; the text says why and what would help."""


class Outdated(Refused):
    """The store's schema is of an earlier version; its text ends in the command to run for that."""

    command = "dispatcher db upgrade"

    def __init__(self, told: str, mend: str) -> None:
        super().__init__(f"{told}; {mend}: {self.command}")
        self.told = told
        self.mend = mend


class StoreUnavailable(DispatcherError):
    """The database can't be used now (locked, full, read-only, gone). Nothing was written; try again later."""


class NotMade(StoreUnavailable):
    """There is no wallet-flow log at this place yet."""


class Contended(StoreUnavailable):
    """Another process was at the same rows; nothing was written, and trying again at once helps."""


def listed(words: Sequence[str]) -> str:
    """`a, b or c`, for sentences that offer a choice."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def choices(words: Iterable[str]) -> str:
    """`"a", "b" or "c"`: values as they are to be written."""
    return listed([f'"{word}"' for word in words])
