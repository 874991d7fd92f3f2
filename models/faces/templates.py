"""Templates at rest and blobs in flight: AES-256-GCM under keys that can be destroyed.

Each enrolment has a data key of its own, stored only wrapped by the master key. Who destroys the wrapped key
has erased the template wherever its ciphertext was copied. Every ciphertext is bound to what it is about
(member, template, net; or visit and kind), so none can be passed off as another.
"""

from __future__ import annotations

import os
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from models.domain.errors import NeedsOperator, Refused
from models.domain.ids import ChainId, MemberId
from models.domain.messages import TemplateRow
from models.domain.recognition import Embedding

KEY_BYTES = 32
_NONCE_BYTES = 12


def new_key() -> bytes:
    """256 fresh random bits: a visit's key, a member's, or a master key."""
    return os.urandom(KEY_BYTES)


class TemplateVault:
    """Seals and opens with one master key (32 bytes). Holds no other key."""

    def __init__(self, master_key: bytes) -> None:
        if len(master_key) != KEY_BYTES:
            raise NeedsOperator("master_key", f"the master key has {KEY_BYTES} bytes", "restore the right key file")
        self._master_key = master_key

    def __repr__(self) -> str:
        return "TemplateVault(…)"

    def rotation_secret(self, chain: ChainId) -> bytes:
        """The secret of a chain's rotation: HKDF of the master key; never stored."""
        info = _context("rotation", chain)
        return HKDFExpand(hashes.SHA256(), KEY_BYTES, info).derive(self._master_key)

    def make_template(
        self, member: MemberId, template_id: str, net_sha256: str, policy: str, embedding: Embedding
    ) -> TemplateRow:
        """A row under a fresh data key, wrapped by the master key."""
        key = new_key()
        return TemplateRow(
            id=template_id,
            member=member,
            net_sha256=net_sha256,
            ciphertext=_seal(key, _context("template", member, template_id, net_sha256), embedding),
            wrapped_key=_seal(self._wrapping_key(), _context("key", member, template_id), key),
            policy=policy,
        )

    def open_template(self, row: TemplateRow) -> Embedding:
        """The embedding in a row. Raises NeedsOperator `template_sealed`: key destroyed, other master key, altered."""
        try:
            key = _open(self._wrapping_key(), _context("key", row.member, row.id), row.wrapped_key)
            about = _context("template", row.member, row.id, row.net_sha256)
            return Embedding(_open(key, about, row.ciphertext))
        except (InvalidTag, ValueError) as error:
            raise NeedsOperator(
                "template_sealed",
                f"template {row.id} does not open",
                "its key was destroyed, or this is not the master key that wrapped it",
            ) from error

    def seal(self, visit_key: bytes, session: str, kind: str, payload: bytes) -> bytes:
        """A blob that only this visit's key opens, as this kind (probe or shot)."""
        return _seal(visit_key, _context("visit", session, kind), payload)

    def open(self, visit_key: bytes, session: str, kind: str, blob: bytes) -> bytes:
        """What `seal` closed. Raises Refused `visit_key_lost` for another key, visit or kind, or an altered blob."""
        try:
            return _open(visit_key, _context("visit", session, kind), blob)
        except (InvalidTag, ValueError) as error:
            raise Refused("visit_key_lost", "the sealed image does not open", "look at the camera again") from error

    def _wrapping_key(self) -> bytes:
        info = _context("wrap")
        return HKDFExpand(hashes.SHA256(), KEY_BYTES, info).derive(self._master_key)


def _context(*parts: str) -> bytes:
    """Length-prefixed, so that no two lists of parts read the same."""
    encoded = [part.encode() for part in ("storeops/1", *parts)]
    return b"".join(struct.pack(">I", len(part)) + part for part in encoded)


def _seal(key: bytes, about: bytes, payload: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, payload, about)


def _open(key: bytes, about: bytes, blob: bytes) -> bytes:
    if len(blob) < _NONCE_BYTES + 16:
        raise ValueError("too short to be sealed")
    return AESGCM(key).decrypt(blob[:_NONCE_BYTES], blob[_NONCE_BYTES:], about)
