"""A signed liveness score counts for one picture of one visit at one terminal, and for nothing else."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from devices import codec
from devices.liveness import (
    BOUND,
    KEY_FILE,
    PROPERTY,
    LivenessKey,
    check_signature,
    face_properties,
    fingerprint,
    read_public_key,
    show_public_key,
    signed_text,
)
from devices.topics import Up, topic_of
from models.domain.device_score import Signature
from models.domain.errors import NeedsOperator, Refused
from models.domain.events import FaceShown
from models.domain.ids import StoreId, TerminalId
from models.domain.registry import RegisteredTerminal
from tests.devices.support import JPEG, registered
from tests.gateway.world import NOW

KEY, OTHER = LivenessKey.make(), LivenessKey.make()
TERMINAL = replace(registered(), liveness_keys=(KEY.public,))
HEAD: dict[str, str | None] = {
    "id": "0194d2a1-7c3e-7b1a-9f40-2d6e8c1b7a55",
    "boot": "5f0c6a1e-2b47-4c1e-8f7d-3a9b6c5d4e21",
    "seq": "18",
    "kind": "frame",
    "session": "visit-1",
}


def made(key: LivenessKey | None = KEY, at: RegisteredTerminal = TERMINAL, **changes: str | None) -> dict[str, str]:
    return face_properties(str(topic_of(at, Up.FACE)), JPEG, HEAD | changes, 0.93, key)


def found(properties: dict[str, str], at: RegisteredTerminal = TERMINAL, jpeg: bytes = JPEG) -> Signature:
    body = codec.decode_face(jpeg, properties, at, NOW).body
    assert isinstance(body, FaceShown)
    assert body.liveness is not None
    return body.signature


def test_what_the_agent_signs_the_host_takes() -> None:
    assert found(made()) is Signature.VALID
    assert found(made(), replace(TERMINAL, liveness_keys=())) is Signature.NO_KEY
    assert found(made(key=None)) is Signature.MISSING
    assert found(made(key=OTHER)) is Signature.INVALID
    exchanged = replace(TERMINAL, liveness_keys=(OTHER.public, KEY.public))
    assert {found(made(), exchanged), found(made(key=OTHER), exchanged)} == {Signature.VALID}


def test_the_text_that_is_signed_is_the_published_one() -> None:
    """Nine lines, written out: a vendor signs what the protocol's document says, not what this code does."""
    text = (
        "storeops-liveness-1\nso/1/south/6a/s-1/t-1/up/face\n0194d2a1-7c3e-7b1a-9f40-2d6e8c1b7a55\n"
        "5f0c6a1e-2b47-4c1e-8f7d-3a9b6c5d4e21\n18\nvisit-1\nframe\n0.930000\n" + hashlib.sha256(JPEG).hexdigest() + "\n"
    ).encode()
    properties = made()
    assert signed_text(str(topic_of(TERMINAL, Up.FACE)), properties, JPEG) == text
    signature = base64.urlsafe_b64decode(properties[PROPERTY] + "==")
    Ed25519PublicKey.from_public_bytes(KEY.public).verify(signature, text)


OTHER_VALUES = {
    "id": "0194d2a1-7c3e-7b1a-9f40-2d6e8c1b7a56",
    "boot": "5f0c6a1e-2b47-4c1e-8f7d-3a9b6c5d4e22",
    "seq": "19",
    "session": "visit-2",
    "kind": "crop",
    "liveness": "0.930001",
}


@pytest.mark.parametrize("name", sorted(OTHER_VALUES))
def test_no_bound_field_may_change(name: str) -> None:
    assert found(made() | {name: OTHER_VALUES[name]}) is Signature.INVALID


def test_another_picture_terminal_or_store_has_no_use_for_it() -> None:
    assert found(made(), jpeg=JPEG + b"\0") is Signature.INVALID
    assert found(made(), replace(TERMINAL, terminal=TerminalId("t-2"))) is Signature.INVALID
    assert found(made(), replace(TERMINAL, store=StoreId("s-2"))) is Signature.INVALID


def test_a_face_that_names_no_visit_binds_nothing() -> None:
    bare = made(session=None)
    assert PROPERTY not in bare
    assert found(bare) is Signature.MISSING
    assert found(bare | {PROPERTY: made()[PROPERTY]}) is Signature.INVALID


def test_the_score_counts_as_it_is_written() -> None:
    """0.93 and 0.930000 are one number and two texts."""
    assert found(made() | {"liveness": "0.93"}) is Signature.INVALID


@pytest.mark.parametrize(
    "mangle",
    [
        lambda s: "",
        lambda s: s[:-1],
        lambda s: s + "=",
        lambda s: s + "==",
        lambda s: " " + s[1:],
        lambda s: s[:-1] + chr(ord(s[-1]) + 1),  # the bits that base64 does not use: another text of the same bytes
        lambda s: s.swapcase(),
        lambda s: "é" * 86,
        lambda s: "A" * 86,
        lambda s: "A" * 100_000,
    ],
)
def test_a_mangled_signature_leaves_the_face_as_it_is(mangle: object) -> None:
    properties = made()
    properties[PROPERTY] = mangle(properties[PROPERTY])  # type: ignore[operator]
    assert found(properties) in (Signature.INVALID, Signature.MISSING)


FIELDS = st.fixed_dictionaries({name: st.text(max_size=12) for name in BOUND})


@settings(max_examples=25)
@given(FIELDS, FIELDS, st.binary(max_size=40), st.binary(max_size=40), st.text(max_size=8), st.text(max_size=8))
def test_a_signature_fits_what_was_signed_and_nothing_else(
    one: dict[str, str], two: dict[str, str], picture: bytes, another: bytes, here: str, there: str
) -> None:
    signature = KEY.sign(here, one, picture)
    if signature is None:
        return
    said = check_signature((KEY.public,), there, two, another, sent=signature)
    same = (here, one, picture) == (there, two, another)
    assert said is (Signature.VALID if same else Signature.INVALID)
    assert check_signature((KEY.public,), here, one, picture, sent=signature) is Signature.VALID


@settings(max_examples=50)
@given(st.sampled_from(BOUND), st.text(min_size=1, max_size=12), st.data())
def test_one_field_moved_is_enough(name: str, value: str, data: st.DataObject) -> None:
    properties = made()
    signature = properties.pop(PROPERTY)
    moved = properties | {name: data.draw(st.sampled_from([value, properties[name] + value, value + properties[name]]))}
    said = check_signature((KEY.public,), str(topic_of(TERMINAL, Up.FACE)), moved, JPEG, sent=signature)
    assert said is (Signature.VALID if moved == properties else Signature.INVALID)


@settings(max_examples=50)
@given(st.text(max_size=120))
def test_whatever_stands_in_the_property_the_face_is_taken(sent: str) -> None:
    assert found(made() | {PROPERTY: sent}) is (Signature.INVALID if sent else Signature.MISSING)


# ---------------------------------------------------------------- keys


def test_a_public_key_is_read_in_every_form_that_vendors_deliver() -> None:
    octets = KEY.public
    pem = Ed25519PublicKey.from_public_bytes(octets).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for form in (
        show_public_key(octets),
        base64.b64encode(octets).decode(),
        octets.hex(),
        octets.hex().upper(),
        pem.decode(),
        f"  {octets.hex()}\n",
    ):
        assert read_public_key(form) == octets
    assert len(fingerprint(octets)) == 16


X25519 = X25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    "form",
    ["", "key", "ab" * 31, "zz" * 32, "A" * 42, "A" * 44, "-----BEGIN PUBLIC KEY-----", X25519.decode(), "é" * 43],
)
def test_what_is_no_key_is_refused(form: str) -> None:
    with pytest.raises(Refused, match="Ed25519"):
        read_public_key(form)


SMALL = ("00" * 32, "01" + "00" * 31, "00" * 31 + "80", "01" + "00" * 30 + "80", "ec" + "ff" * 30 + "7f")


@pytest.mark.parametrize("form", SMALL)
def test_a_key_for_which_anybody_signs_is_refused(form: str) -> None:
    """For such a point the signature (identity, 0) fits one text in eight at the rarest: no secret is needed."""
    point = Ed25519PublicKey.from_public_bytes(bytes.fromhex(form))
    forged = bytes.fromhex("01" + "00" * 63)
    assert any(_fits(point, forged, str(n).encode()) for n in range(200))
    with pytest.raises(Refused, match="anybody"):
        read_public_key(form)


def _fits(key: Ed25519PublicKey, signature: bytes, text: bytes) -> bool:
    try:
        key.verify(signature, text)
    except Exception:  # noqa: BLE001 - of the library's own type
        return False
    return True


def test_a_terminal_s_key_is_its_own_file(tmp_path: Path) -> None:
    folder = tmp_path / "t-1"
    assert LivenessKey.load(None) is None
    assert LivenessKey.load(folder) is None
    path = KEY.save(folder)
    assert (path.name, path.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (KEY_FILE, 0o600, 0o700)
    again = LivenessKey.load(folder)
    assert again is not None
    assert again.public == KEY.public
    path.write_text("no key")
    with pytest.raises(NeedsOperator, match=r"liveness-key\.pem"):
        LivenessKey.load(folder)


def test_without_a_score_or_a_key_nothing_is_signed() -> None:
    topic = str(topic_of(TERMINAL, Up.FACE))
    assert PROPERTY not in face_properties(topic, JPEG, HEAD, None, KEY)
    assert set(face_properties(topic, JPEG, HEAD, 0.5, None)) == {*HEAD, "liveness"}
