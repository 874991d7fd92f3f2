"""Templates at rest and blobs in flight: AES-256-GCM under keys that can be destroyed.

Each template has a data key of its own, stored apart from it and only wrapped by the master key of an epoch. Who
destroys the wrapped key has erased the template wherever its ciphertext was copied; who destroys the epoch has erased
whatever was not wrapped again since, copies of the wrapped keys included. Every ciphertext is bound to what it is
about (member, template, net; visit and kind; a file), so none can be passed off as another.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from models.domain.errors import NeedsOperator, Refused
from models.domain.ids import ChainId, MemberId
from models.domain.messages import KeyRow, SealedTemplate, TemplateKind, TemplateRow
from models.domain.recognition import Embedding

KEY_BYTES = 32
_NONCE_BYTES, _TAG_BYTES = 12, 16
_EPOCH = struct.Struct(">I")
_LENGTH = struct.Struct(">I")
_FORM = _LENGTH.pack(10) + b"storeops/1"


def new_key() -> bytes:
    """256 fresh random bits: a visit's key, a member's, a file's, or a master key."""
    return os.urandom(KEY_BYTES)


@dataclass(frozen=True, slots=True)
class Keyring:
    """Master keys by epoch, rising; the newest wraps. `rotation` is the root of the chains' rotations.

    Raises NeedsOperator `master_key` when a key is none or there is no epoch.
    """

    epochs: Mapping[int, bytes] = field(repr=False)
    rotation: bytes = field(repr=False)

    def __post_init__(self) -> None:
        keys = (*self.epochs.values(), self.rotation)
        if not self.epochs or any(len(key) != KEY_BYTES for key in keys) or min(self.epochs) < 1:
            raise NeedsOperator(
                "master_key",
                f"a keyring has epochs from 1 and a rotation, {KEY_BYTES} bytes each",
                "restore the key file",
            )

    @classmethod
    def of_one(cls, master_key: bytes) -> Keyring:
        """A single master key as epoch 1; the rotations' root follows from it, one way."""
        if len(master_key) != KEY_BYTES:
            raise NeedsOperator("master_key", f"the master key has {KEY_BYTES} bytes", "restore the right key file")
        return cls({1: master_key}, _derived(master_key, "rotation root"))

    @property
    def newest(self) -> int:
        """The epoch that wraps new keys."""
        return max(self.epochs)


class TemplateVault:
    """Seals and opens with the master keys of a keyring. Holds no other key. For several threads.

    `renewed` says whether the keyring changed since it was last asked, and is asked before a key is wrapped and when
    an epoch is unknown: so an epoch that is added while this process runs reaches it.
    """

    def __init__(self, keyring: Keyring, renewed: Callable[[], Keyring | None] = lambda: None) -> None:
        self._wrapping = _wrapping_keys(keyring)
        self._rotation = keyring.rotation
        self._renewed = renewed

    def __repr__(self) -> str:
        return f"TemplateVault(epoch {self.epoch}, …)"

    @property
    def epoch(self) -> int:
        """The epoch that wraps new keys now."""
        return max(self._wrapping)

    def rotation_secret(self, chain: ChainId) -> bytes:
        """The secret of a chain's rotation: HKDF of the keyring's rotation root, whatever the epoch; never stored.

        A root that is renewed counts from the next start of a process: rows of two rotations never meet.
        """
        return _derived(self._rotation, "rotation", chain)

    # ------------------------------------------------------------ templates

    def make_template(
        self,
        member: MemberId,
        template_id: str,
        net_sha256: str,
        policy: str,
        embedding: Embedding,
        kind: TemplateKind = TemplateKind.ENROLMENT,
    ) -> SealedTemplate:
        """A row under a fresh data key, and that key wrapped by the newest master key; its id is the template's."""
        self._renew()
        data_key = new_key()
        row = TemplateRow(
            id=template_id,
            member=member,
            net_sha256=net_sha256,
            ciphertext=_seal(AESGCM(data_key), _context("template", member, template_id, net_sha256), embedding),
            key_id=template_id,
            policy=policy,
            kind=kind,
        )
        return SealedTemplate(row, self._wrap(template_id, member, data_key))

    def open_template(self, row: TemplateRow, key: KeyRow) -> Embedding:
        """The embedding in a row. Raises NeedsOperator `template_sealed`: key destroyed, epoch gone, altered."""
        for opened in self.open_many([(row, key)]):
            if opened is not None:
                return Embedding(bytes(opened))
        raise NeedsOperator(
            "template_sealed",
            f"template {row.id} does not open with key {key.id} of epoch {key.epoch}",
            "its key or that epoch was destroyed, or this is not the key file that wrapped it",
        )

    def open_many(self, rows: Iterable[tuple[TemplateRow, KeyRow]]) -> Iterator[memoryview | None]:
        """The embeddings of rows in their order, None for one that does not open.

        Each is a view of one buffer that the next overwrites and the end zeroes: copy it, or multiply it, at once.
        """
        data_key, plain = bytearray(KEY_BYTES), bytearray()
        try:
            for row, key in rows:
                length = len(row.ciphertext) - _NONCE_BYTES - _TAG_BYTES
                if length != len(plain):
                    _zero(plain)
                    plain = bytearray(max(0, length))
                yield memoryview(plain) if self._open_into(row, key, data_key, plain) else None
        finally:
            _zero(data_key)
            _zero(plain)

    def _open_into(self, row: TemplateRow, key: KeyRow, data_key: bytearray, plain: bytearray) -> bool:
        wrapping = self._wrapping_of(key.epoch)
        if wrapping is None or row.key_id != key.id or not plain:
            return False
        try:
            wrapped = memoryview(key.wrapped)
            about = _context("key", key.member, key.id)
            wrapping.decrypt_into(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], about, data_key)
            sealed = memoryview(row.ciphertext)
            about = _context("template", row.member, row.id, row.net_sha256)
            AESGCM(data_key).decrypt_into(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], about, plain)
        except (InvalidTag, ValueError):
            return False
        return True

    # ------------------------------------------------------------ keys

    def rewrap(self, key: KeyRow) -> KeyRow | None:
        """The same key under the newest epoch; None when it does not open."""
        wrapping = self._wrapping_of(key.epoch)
        try:
            if wrapping is not None:
                return self._wrap(key.id, key.member, _open(wrapping, _context("key", key.member, key.id), key.wrapped))
        except (InvalidTag, ValueError):
            pass
        return None

    def seal_file_key(self, about: str, key: bytes) -> bytes:
        """A file's key, wrapped by the newest epoch, which stands before it in 4 bytes."""
        self._renew()
        wrappings = self._wrapping
        epoch = max(wrappings)
        return _EPOCH.pack(epoch) + _seal(wrappings[epoch], _context("file", about), key)

    def open_file_key(self, about: str, blob: bytes) -> bytes:
        """What `seal_file_key` closed. Raises NeedsOperator `file_sealed`: epoch destroyed, other file, altered."""
        try:
            wrapping = self._wrapping_of(_EPOCH.unpack_from(blob)[0])
            if wrapping is not None:
                return _open(wrapping, _context("file", about), blob[_EPOCH.size :])
        except (struct.error, InvalidTag, ValueError):
            pass
        raise NeedsOperator(
            "file_sealed", f"the key of {about} does not open", "remove the file: it is made again from the database"
        )

    def _wrap(self, key_id: str, member: MemberId, data_key: bytes) -> KeyRow:
        wrappings = self._wrapping
        epoch = max(wrappings)
        return KeyRow(key_id, member, epoch, _seal(wrappings[epoch], _context("key", member, key_id), data_key))

    def _wrapping_of(self, epoch: int) -> AESGCM | None:
        """An epoch's wrapping key; one that is not known is looked for in the renewed keyring."""
        wrapping = self._wrapping.get(epoch)
        if wrapping is None:
            self._renew()
            wrapping = self._wrapping.get(epoch)
        return wrapping

    def _renew(self) -> None:
        keyring = self._renewed()
        if keyring is not None:
            self._wrapping = _wrapping_keys(keyring)

    # ------------------------------------------------------------ blobs of a visit

    def seal(self, visit_key: bytes, session: str, kind: str, payload: bytes) -> bytes:
        """A blob that only this visit's key opens, as this kind (probe or shot)."""
        return _seal(AESGCM(visit_key), _context("visit", session, kind), payload)

    def open(self, visit_key: bytes, session: str, kind: str, blob: bytes) -> bytes:
        """What `seal` closed. Raises Refused `visit_key_lost` for another key, visit or kind, or an altered blob."""
        try:
            return _open(AESGCM(visit_key), _context("visit", session, kind), blob)
        except (InvalidTag, ValueError) as error:
            raise Refused("visit_key_lost", "the sealed image does not open", "look at the camera again") from error


def _wrapping_keys(keyring: Keyring) -> dict[int, AESGCM]:
    """Made once: a million templates are opened with them."""
    return {epoch: AESGCM(_derived(key, "wrap")) for epoch, key in keyring.epochs.items()}


def _derived(key: bytes, *info: str) -> bytes:
    return HKDFExpand(hashes.SHA256(), KEY_BYTES, _context(*info)).derive(key)


def _context(*parts: str) -> bytes:
    """Length-prefixed, so that no two lists of parts read the same. Twice for each template of a gallery's load."""
    made = _FORM
    for part in parts:
        encoded = part.encode()
        made += _LENGTH.pack(len(encoded)) + encoded
    return made


def _zero(buffer: bytearray) -> None:
    buffer[:] = bytes(len(buffer))


def _seal(cipher: AESGCM, about: bytes, payload: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, payload, about)


def _open(cipher: AESGCM, about: bytes, blob: bytes) -> bytes:
    if len(blob) < _NONCE_BYTES + _TAG_BYTES:
        raise ValueError("too short to be sealed")
    return cipher.decrypt(blob[:_NONCE_BYTES], blob[_NONCE_BYTES:], about)
