"""Secrets that can't be printed by accident."""

import hmac
from typing import Any, NoReturn, Self, TypeVar

T = TypeVar("T", covariant=True)


class _Kept:
    """What neither a pickle nor a copy that goes through one takes with it."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled: it would lie open in what comes of that")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        return self


class Secret(_Kept):
    """Text that no log, error, page or `repr` shows. Only `reveal` gives it, so that every use can be found.

    No dataclass: `asdict` would go inside. Two of them are compared in a time that tells nothing of where they differ.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        one, two = (secret._text.encode("utf-8", "surrogatepass") for secret in (self, other))
        return hmac.compare_digest(one, two)

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "Secret(…)"


class SecretBytes(_Kept, bytes):
    """Bytes of a key or of a token, used like any others and shown to nobody: neither by `repr` nor in a traceback."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "SecretBytes(…)"

    __str__ = __repr__


class Unshown(tuple[T, ...]):
    """What is handed on with a secret in it, in the clear since each attempt needs it so; printed as how much it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Unshown({len(self)})"
