"""The deployment's own small certificate authority: the broker's certificate, the terminals', and who is revoked.

Made at first need, its key in a 0600 file of the secrets folder. Nobody else trusts it: the terminals get its
certificate with their enrolment, and the brokers ask it alone who a terminal is.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from models.domain.errors import NeedsOperator, Refused
from runtime.datadir import DataDir, write_private

CA_FILE, CA_KEY_FILE = "terminal-ca.pem", "terminal-ca-key.pem"
CA_LASTS = timedelta(days=3650)
SERVER_LASTS = timedelta(days=365)
SERVER_RENEWED_BEFORE = timedelta(days=60)
TERMINAL_LASTS = timedelta(days=90)
"""A terminal's certificate is renewed by rotation long before."""
REVOCATIONS_LAST = timedelta(days=3650)
"""A list that has run out makes the broker refuse everybody, so it is written anew at each start and each change."""
SKEW = timedelta(hours=1)
"""Certificates count from an hour ago: terminals' clocks are wrong."""
RSA_BITS_MIN, RSA_BITS_MAX = 2048, 4096


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate as text, and what the registry keeps of it."""

    pem: str
    serial: str
    """Hex, lower case."""
    key_sha256: str
    """Of the public key: who asks again with the same key gets the same certificate."""
    expires_at: datetime


class Authority:
    """Signs. Reads its key at each use: whoever may read that file may do the same."""

    def __init__(self, data: DataDir) -> None:
        self._data = data
        self._folder = data.secrets

    @property
    def certificate_pem(self) -> str:
        """What clients and brokers trust. Made now when there is none."""
        return self._pair()[0]

    def sign_terminal(self, terminal: str, csr_pem: str, now: datetime, lasts: timedelta = TERMINAL_LASTS) -> Issued:
        """A client certificate with CN = terminal id, for the key of a request; its other wishes are ignored.

        Raises Refused `bad_csr`: not a request, not signed by its own key, or a key that is too weak.
        """
        key = request_key(csr_pem)
        return self._sign(terminal, key, now, lasts, ExtendedKeyUsageOID.CLIENT_AUTH, ())

    def server(self, names: Iterable[str], now: datetime) -> tuple[str, str]:
        """A broker's certificate and key as PEM; the same ones until 60 days before their end, or other names."""
        wanted = tuple(dict.fromkeys(names))
        path, key_path = self._folder / "broker-certificate.pem", self._folder / "broker-key.pem"
        self._pair()  # before the lock: making it takes the same one
        with self._locked():
            if path.exists() and key_path.exists():
                present = x509.load_pem_x509_certificate(path.read_bytes())
                if _names(present) == set(wanted) and present.not_valid_after_utc - now > SERVER_RENEWED_BEFORE:
                    return path.read_text(), key_path.read_text()
            certificate_pem, key_pem = self.issue_server(wanted, now)
            write_private(key_path, key_pem)
            write_private(path, certificate_pem)
            return certificate_pem, key_pem

    def issue_server(self, names: Iterable[str], now: datetime) -> tuple[str, str]:
        """A new certificate and key, PEM, for a broker of these names and addresses."""
        wanted = tuple(names)
        key = ec.generate_private_key(ec.SECP256R1())
        issued = self._sign(wanted[0], key.public_key(), now, SERVER_LASTS, ExtendedKeyUsageOID.SERVER_AUTH, wanted)
        return issued.pem, _key_pem(key)

    def revocations(self, revoked: Mapping[str, datetime], now: datetime) -> str:
        """The signed list of serials (hex -> when) that count no more, as PEM."""
        certificate, key = self._loaded()
        builder = x509.CertificateRevocationListBuilder().issuer_name(certificate.subject)
        builder = builder.last_update(now - SKEW).next_update(now + REVOCATIONS_LAST)
        for serial, at in sorted(revoked.items()):
            one = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(at)
            builder = builder.add_revoked_certificate(one.build())
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    def _sign(
        self,
        name: str,
        key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        now: datetime,
        lasts: timedelta,
        purpose: x509.ObjectIdentifier,
        names: tuple[str, ...],
    ) -> Issued:
        authority, authority_key = self._loaded()
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])]))
            .issuer_name(authority.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(now + lasts)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
            )
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_general, names))), critical=False)
        certificate = builder.sign(authority_key, hashes.SHA256())
        return Issued(
            certificate.public_bytes(serialization.Encoding.PEM).decode(),
            f"{certificate.serial_number:x}",
            key_digest(key),
            now + lasts,
        )

    def _loaded(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        certificate_pem, key_pem = self._pair()
        key = serialization.load_pem_private_key(key_pem.encode(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise NeedsOperator("authority_key", f"{self._folder / CA_KEY_FILE} is no EC key", "restore it")
        return x509.load_pem_x509_certificate(certificate_pem.encode()), key

    def _pair(self) -> tuple[str, str]:
        path, key_path = self._folder / CA_FILE, self._folder / CA_KEY_FILE
        if not path.exists():
            with self._locked():
                if not path.exists():
                    certificate, key = _new_authority(datetime.now(UTC))
                    write_private(key_path, key)  # the key first: a certificate says that both are there
                    write_private(path, certificate)
        return path.read_text(), key_path.read_text()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The gateway, the command line and a start may all come first."""
        with os.fdopen(os.open(self._folder / "authority.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def request_key(csr_pem: str) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    """The public key of a request that proves to have the private one. Raises Refused `bad_csr`."""
    do = "send a PEM request with a P-256, P-384 or RSA-2048 to 4096 key"
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        signed, key = request.is_signature_valid, request.public_key()
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise Refused("bad_csr", f"not a certificate request: {error}"[:200], do) from error
    if not signed:
        raise Refused("bad_csr", "the request is not signed by its own key", do)
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
        return key
    if isinstance(key, rsa.RSAPublicKey) and RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
        return key
    raise Refused("bad_csr", "that kind of key is not taken", do)


def key_digest(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> str:
    """SHA-256 of a public key, in hex."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize().hex()


def _new_authority(now: datetime) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    # A name of its own: two deployments' authorities must not be taken for each other.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"storeops terminals {os.urandom(4).hex()}")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + CA_LASTS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), _key_pem(key)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names(certificate: x509.Certificate) -> set[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value) for name in found}
