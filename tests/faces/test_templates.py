from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from models.domain.errors import NeedsOperator, Refused
from models.domain.ids import ChainId, MemberId
from models.domain.messages import KeyRow, SealedTemplate, TemplateRow
from models.domain.recognition import Embedding
from models.faces.templates import Keyring, TemplateVault, new_key

VAULT = TemplateVault(Keyring.of_one(b"k" * 32))
EMBEDDING = Embedding(bytes(range(256)) * 2)
SEALED = VAULT.make_template(MemberId("li"), "t1", "net", "production", EMBEDDING)
ROW, KEY = SEALED.template, SEALED.key


def opened(sealed: SealedTemplate, vault: TemplateVault = VAULT) -> Embedding:
    return vault.open_template(sealed.template, sealed.key)


def test_a_template_comes_back_and_rests_in_no_clear_byte() -> None:
    assert opened(SEALED) == EMBEDDING
    assert EMBEDDING[:16] not in ROW.ciphertext
    assert (ROW.member, ROW.id, ROW.net_sha256, ROW.policy) == ("li", "t1", "net", "production")
    again = VAULT.make_template(MemberId("li"), "t1", "net", "production", EMBEDDING)
    assert again.template.ciphertext != ROW.ciphertext
    assert again.key.wrapped != KEY.wrapped
    assert (KEY.id, KEY.member, KEY.epoch) == (ROW.key_id, "li", 1)


def changed(**change: Any) -> tuple[TemplateRow, KeyRow]:
    """The row and the key with a change to whichever has that field."""

    def of(row: Any) -> dict[str, Any]:
        return {name: value for name, value in change.items() if hasattr(row, name)}

    return dataclasses.replace(ROW, **of(ROW)), dataclasses.replace(KEY, **of(KEY))


@pytest.mark.parametrize(
    "change",
    [
        {"wrapped": b""},
        {"wrapped": bytes(60)},
        {"epoch": 2},
        {"key_id": "t2"},
        {"ciphertext": ROW.ciphertext[:-1] + bytes([ROW.ciphertext[-1] ^ 1])},
        {"ciphertext": b""},
        {"member": MemberId("wang")},
        {"id": "t2"},
        {"net_sha256": "other net"},
    ],
)
def test_without_its_key_or_passed_off_as_another_it_stays_shut(change: dict[str, object]) -> None:
    with pytest.raises(NeedsOperator) as shut:
        VAULT.open_template(*changed(**change))
    assert shut.value.code == "template_sealed"


def test_another_master_key_opens_nothing() -> None:
    with pytest.raises(NeedsOperator):
        TemplateVault(Keyring.of_one(b"x" * 32)).open_template(ROW, KEY)
    with pytest.raises(NeedsOperator):
        Keyring.of_one(b"short")
    assert "kkkk" not in repr(VAULT)


def test_rotation_secrets_differ_by_chain_and_master_key() -> None:
    a, b = VAULT.rotation_secret(ChainId("a")), VAULT.rotation_secret(ChainId("b"))
    assert len({a, b, TemplateVault(Keyring.of_one(b"x" * 32)).rotation_secret(ChainId("a"))}) == 3
    assert a == TemplateVault(Keyring.of_one(b"k" * 32)).rotation_secret(ChainId("a"))


def test_a_sealed_blob_opens_for_its_visit_and_kind_only() -> None:
    key = new_key()
    blob = VAULT.seal(key, "visit", "shot", b"payload")
    assert VAULT.open(key, "visit", "shot", blob) == b"payload"
    for wrong in (
        (new_key(), "visit", "shot", blob),
        (key, "other visit", "shot", blob),
        (key, "visit", "probe", blob),
        (key, "visit", "shot", blob[:-1]),
        (key, "visit", "shot", b""),
        (b"no key", "visit", "shot", blob),
    ):
        with pytest.raises(Refused) as lost:
            VAULT.open(*wrong)
        assert lost.value.code == "visit_key_lost"
