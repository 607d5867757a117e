"""What encrypted connections trust and show: those to one operator (wire-contract.md, Per operator), and those to us.

PEM comes as text and never stands in an error; a key never lies on a disk longer than reading it takes.
"""

import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from dispatcher.ground.errors import Unfit
from dispatcher.ground.operator import Tls
from dispatcher.ground.secret import Secret

_MISMATCH = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"})
_WEAK = ("TOO_SMALL", "TOO_WEAK")


def tls_context(tls: Tls | None) -> ssl.SSLContext:
    """A context for connections of ours: TLS 1.2 or later, host names checked, the system's authorities trusted.

    A private CA takes their place: an operator that has one is trusted by nothing else, so a certificate for its
    name from a public authority is refused. An intermediate CA or the operator's own certificate may stand there too.
    Raises Unfit, which names the part that is at fault (CA, certificate, key) and never shows it.
    """
    ca = tls.ca if tls else None
    context = ssl.create_default_context() if ca is None else _trusting(ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls is not None and (tls.certificate is not None or tls.key is not None):
        _show(context, tls.certificate, tls.key)
    return context


def server_context(certificate: Secret, key: Secret) -> ssl.SSLContext:
    """A context for connections to us: TLS 1.2 or later, this certificate shown, none asked for. Raises Unfit."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _show(context, certificate, key)
    return context


def _trusting(ca: Secret) -> ssl.SSLContext:
    # Not create_default_context(cadata=…), which takes an empty text for none and trusts the system instead.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=_ascii(ca))
    except (ssl.SSLError, ValueError):
        raise Unfit(
            "the CA is not a certificate in PEM",
            "give the whole text, from -----BEGIN CERTIFICATE----- to the last -----END CERTIFICATE-----",
        ) from None
    # What is named is trusted as it is; without this OpenSSL wants an intermediate's own authority as well.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _show(context: ssl.SSLContext, certificate: Secret | None, key: Secret | None) -> None:
    if certificate is None or key is None:
        missing = "certificate" if certificate is None else "key"
        raise Unfit(f"the client certificate's {missing} is missing", "give both certificate and key, or neither")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=_ascii(certificate))
    except (ssl.SSLError, ValueError):
        raise Unfit(
            "the certificate is not in PEM",
            "give the certificate first and then those between it and its CA, each from -----BEGIN CERTIFICATE-----",
        ) from None
    try:
        with _file(_ascii(certificate)) as certificate_file, _file(_ascii(key)) as key_file:
            # Without a function for the password OpenSSL would ask for it on the terminal.
            context.load_cert_chain(certificate_file, key_file, password=_encrypted)
    except ssl.SSLError as error:
        raise _unfit(error.reason or "") from None


def _unfit(reason: str) -> Unfit:
    """What OpenSSL's reason means; it has no name for a key that can't be read."""
    if reason in _MISMATCH:
        return Unfit("the key does not belong to the certificate", "give the key that was made for it")
    if reason.endswith(_WEAK):
        told = reason.lower().replace("_", " ")
        return Unfit(f"the certificate is too weak for OpenSSL ({told})", "ask for one of today's strength")
    return Unfit(
        "the key is not a private key in PEM",
        "give the whole text, from -----BEGIN PRIVATE KEY----- to -----END PRIVATE KEY-----",
    )


def _encrypted() -> str:
    raise Unfit("the key is encrypted with a password", "decrypt it: openssl pkey -in encrypted.pem -out key.pem")


def _ascii(pem: Secret) -> str:
    """Bundles have comments in any language; what counts in PEM is ASCII."""
    return pem.reveal().encode("ascii", "ignore").decode("ascii")


@contextmanager
def _file(text: str) -> Iterator[str]:
    """A path at which this text can be read meanwhile: OpenSSL takes nothing else.

    In memory where the system has such files; elsewhere on the disk, for the owner alone, and gone afterwards.
    """
    named: str | None = None
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("pem")
        path = f"/proc/self/fd/{handle}"
    else:
        handle, path = tempfile.mkstemp()
        named = path
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            yield path
    finally:
        if named is not None:
            os.unlink(named)
