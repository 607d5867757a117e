"""A certificate authority for the tests, and what it signs: for servers and for clients."""

import datetime as dt
import ssl
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from dispatcher.ground.secret import Secret

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Authority:
    """A certificate authority in a folder, and what it signs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"The authority {folder.name}")])
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        signs = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        named = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        built = self._builder(self._name, self._key, 1).add_extension(constraints, critical=True)
        built = built.add_extension(signs, critical=True).add_extension(named, critical=False)
        self.trusted = folder / "authority.pem"
        self.trusted.write_bytes(self._signed(built))

    @property
    def pem(self) -> Secret:
        return Secret(self.trusted.read_text())

    def client(self, key: ec.EllipticCurvePrivateKey | None = None, password: bytes = b"") -> tuple[Secret, Secret]:
        """A certificate for a client and its key, in PEM."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "dispatcher")])
        encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        return Secret(self._signed(self._builder(subject, key, 1)).decode()), Secret(private.decode())

    def demanding(self, version: ssl.TLSVersion) -> ssl.SSLContext:
        """As `context`, for a server that wants a certificate of this authority's from whoever calls."""
        context = self.context()
        context.minimum_version = context.maximum_version = version
        context.load_verify_locations(self.trusted)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def context(
        self,
        days: int = 1,
        signed: bool = True,
        addresses: Sequence[str] = ("127.0.0.1", "::1"),
        key: Key | None = None,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    ) -> ssl.SSLContext:
        """For a server that is acme.example and has these addresses, in the thirty days up to in so many days."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        hosts = [x509.DNSName("acme.example"), *(x509.IPAddress(ip_address(one)) for one in addresses)]
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "acme")])
        built = self._builder(subject, key, days, None if signed else subject)
        built = built.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        built = built.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        file = self.folder / f"acme{days}{signed}.pem"
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        file.write_bytes(key.private_bytes(*form) + self._signed(built, None if signed else key))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # It shows what is too weak to be shown, too: to refuse it is the other side's matter.
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        context.load_cert_chain(file)
        return context

    def _builder(
        self, subject: x509.Name, key: Key, days: int, issuer: x509.Name | None = None
    ) -> x509.CertificateBuilder:
        end = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
        # From 3.13 on Python refuses, beneath the system's authorities, what does not name its issuer's key.
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key((key if issuer else self._key).public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(end - dt.timedelta(days=30))
            .not_valid_after(end)
            .add_extension(signer, critical=False)
        )

    def _signed(self, built: x509.CertificateBuilder, key: Key | None = None) -> bytes:
        return built.sign(key or self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
