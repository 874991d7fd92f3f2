"""The signature of a device's liveness score: what is signed, by whom, and how it is checked.

A depth camera (or the secure element beside it) has an Ed25519 key (RFC 8032); its public half is registered with the
terminal. What it signs binds the score to one picture of one visit at one terminal (docs: terminal protocol, Signed
liveness), so that nothing of it serves anywhere else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from devices.durable import write_whole
from models.domain.device_score import Signature
from models.domain.errors import NeedsOperator, Refused

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

DOMAIN = "storeops-liveness-1"
PROPERTY = "liveness_sig"
BOUND = ("id", "boot", "seq", "session", "kind", "liveness")
"""User properties that are signed as they are sent, in this order."""
KEY_BYTES, SIGNATURE_BYTES = 32, 64
SIGNATURE_CHARACTERS = 86
KEY_FILE = "liveness-key.pem"

_SMALL_ORDER = frozenset(
    bytes.fromhex(point)
    for point in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
"""The curve's small subgroup: for such a key anybody makes signatures. Zeros are also what a vendor's list has where
a key is missing."""


def signed_text(topic: str, properties: Mapping[str, str], jpeg: bytes) -> bytes | None:
    """What is signed: nine lines of UTF-8, each ended by a line feed. None: no visit is named, so nothing is bound."""
    values = [properties.get(name, "") for name in BOUND]
    if not all(values) or any("\n" in value for value in values):
        return None
    return "".join(f"{line}\n" for line in (DOMAIN, topic, *values, hashlib.sha256(jpeg).hexdigest())).encode(
        "utf-8", "surrogatepass"
    )


def check_signature(
    keys: Sequence[bytes], topic: str, properties: Mapping[str, str], jpeg: bytes, *, sent: str | None
) -> Signature:
    """Of the terminal's registered keys any may have signed. Never raises, whatever was sent."""
    if not keys:
        return Signature.NO_KEY
    if not sent:
        return Signature.MISSING
    text, signature = signed_text(topic, properties, jpeg), _decoded(sent)
    if text is None or signature is None:
        return Signature.INVALID
    from cryptography.exceptions import InvalidSignature

    for key in keys:
        try:
            _public(key).verify(signature, text)
        except InvalidSignature:
            continue
        return Signature.VALID
    return Signature.INVALID


def _decoded(sent: str) -> bytes | None:
    """Strict base64url without padding: one text for one signature."""
    if len(sent) != SIGNATURE_CHARACTERS:
        return None
    try:
        signature = base64.b64decode(sent + "==", altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        return None
    return signature if _text_of(signature) == sent else None


@lru_cache(maxsize=4_096)
def _public(key: bytes) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return Ed25519PublicKey.from_public_bytes(key)


def _text_of(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


# ---------------------------------------------------------------- public keys, as people hand them over


def read_public_key(text: str) -> bytes:
    """32 bytes from base64url or base64, 64 hex digits, or a PEM document. Raises Refused `bad_key`."""
    given = text.strip()
    octets = _from_pem(given) if given.startswith("-----BEGIN") else _from_words(given)
    if octets is None or len(octets) != KEY_BYTES:
        raise Refused(
            "bad_key",
            "that is no Ed25519 public key",
            "give its 32 bytes as base64 or as 64 hex digits, or the PEM file that the vendor delivered",
        )
    if bytes((*octets[:-1], octets[-1] & 0x7F)) in _SMALL_ORDER:
        raise Refused("bad_key", "for that key anybody can sign", "ask the vendor for the camera's own key")
    return octets


def _from_words(given: str) -> bytes | None:
    try:
        if len(given) == 2 * KEY_BYTES:
            return bytes.fromhex(given)
        plain = given.rstrip("=").replace("+", "-").replace("/", "_")
        return base64.b64decode(plain + "=" * (-len(plain) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        return None


def _from_pem(given: str) -> bytes | None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(given.encode())
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key.public_bytes_raw() if isinstance(key, Ed25519PublicKey) else None


def show_public_key(key: bytes) -> str:
    """As it is printed and registered: base64url, 43 characters."""
    return _text_of(key)


def fingerprint(key: bytes) -> str:
    """How a key is named: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(key).hexdigest()[:16]


# ---------------------------------------------------------------- the device side


class LivenessKey:
    """A device's own key. A real one never leaves its camera; a simulated terminal keeps it in a file of its own."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private

    @property
    def public(self) -> bytes:
        """What is registered with the terminal."""
        return self._private.public_key().public_bytes_raw()

    @classmethod
    def make(cls) -> LivenessKey:
        """A fresh one, in memory."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.generate())

    def save(self, folder: Path) -> Path:
        """In the terminal's folder, mode 0600."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        pem = self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_whole(folder / KEY_FILE, pem)
        return folder / KEY_FILE

    @classmethod
    def load(cls, folder: Path | None) -> LivenessKey | None:
        """The folder's key; None when it has none. Raises NeedsOperator `liveness_key` for a file that is no key."""
        if folder is None or not (path := folder / KEY_FILE).exists():
            return None
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            private = load_pem_private_key(path.read_bytes(), None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise NeedsOperator("liveness_key", f"{path}: {error}", "make another one, and register it") from error
        if not isinstance(private, Ed25519PrivateKey):
            raise NeedsOperator("liveness_key", f"{path} is no Ed25519 key", "make another one, and register it")
        return cls(private)

    def sign(self, topic: str, properties: Mapping[str, str], jpeg: bytes) -> str | None:
        """The value of `liveness_sig`; None without a score or a visit: there is nothing to bind."""
        text = signed_text(topic, properties, jpeg)
        return None if text is None else _text_of(self._private.sign(text))


def face_properties(
    topic: str, jpeg: bytes, head: Mapping[str, str | None], score: float | None, key: LivenessKey | None
) -> dict[str, str]:
    """The user properties of `up/face` on this topic: `head` without what is None, the score, and its signature."""
    properties = {name: value for name, value in head.items() if value is not None}
    if score is not None:
        properties["liveness"] = f"{score:.6f}"
    signature = None if key is None else key.sign(topic, properties, jpeg)
    if signature is not None:
        properties[PROPERTY] = signature
    return properties
