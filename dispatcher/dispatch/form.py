"""What all requests of one message type to one operator have in common: made once, until its settings change."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dispatcher.dispatch.hiding import aims_of, parts_of
from dispatcher.ground.errors import Unfit
from dispatcher.ground.operator import Auth, Operator, Terms
from dispatcher.ground.policy import Claim
from dispatcher.ground.secret import SecretBytes, Unshown
from dispatcher.protocols import SPOKEN
from dispatcher.protocols.credentials import message_headers
from dispatcher.seal import Seal
from dispatcher.wire import Headers


@dataclass(frozen=True, slots=True)
class Form:
    """What all attempts of one message type to one operator have in common, until its settings change.

    `headers` is None where each attempt proves itself anew; `hidden` are the words that no record of an answer shows.
    """

    terms: Terms
    body: Callable[[Operator, Claim, Callable[[bytes], str], int], bytes]
    seal: Callable[[bytes], str]
    key_version: int | None
    more: Unshown[tuple[str, str]]
    headers: Headers | None
    hidden: Sequence[SecretBytes]
    target: Callable[[Operator, int], SecretBytes] | None = None


def form_of(operator: Operator, seal: Seal | None, key_version: int | None, kind: str) -> Form:
    """As the operator's settings want it; `seal` is None where it has no key.

    Raises Unfit where the operator takes no such message.
    """
    terms = operator.terms.get(kind)
    if terms is None or terms.url is None:
        raise Unfit(
            f"{operator.name} takes no {kind}, or this version does not know it",
            "give the operator its URL, run the version that accepted it, or resolve it by hand",
        )
    protocol = SPOKEN[kind]
    more = Unshown((name, value.reveal()) for name, value in operator.headers.items())
    hidden = [part for value in operator.headers.values() for part in parts_of(value)]
    if operator.notification is not None:
        hidden += aims_of(operator.notification)
    headers = None
    if terms.auth in {Auth.BEARER, Auth.NONE} and operator.signing is None and not operator.traceparent:
        bearer = operator.token if terms.auth is Auth.BEARER else None
        headers, hidden = Headers(message_headers(bearer, more)), [*parts_of(bearer), *hidden]
    sealed = protocol.encrypts or terms.auth is Auth.MINTED
    version = key_version if sealed else None
    encrypt = _no_key if seal is None else seal.seal
    return Form(terms, protocol.body, encrypt, version, more, headers, hidden, protocol.target)


def _no_key(_plaintext: bytes) -> str:
    raise Unfit("the operator has no key to encrypt with", "give it its crypto settings")
