"""The file of master keys: what it holds, who may read it, and what is said when it is not as it should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.domain.errors import NeedsOperator
from models.domain.ids import ChainId
from models.faces.templates import Keyring, TemplateVault
from runtime.keyring import (
    MASTER_KEY_FILE,
    MASTER_KEY_VARIABLE,
    KeyringSource,
    open_vault,
    parse_keyring,
    render_keyring,
)

ONE, TWO, ROOT = "ab" * 32, "cd" * 32, "ef" * 32


def test_it_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    made = KeyringSource(secrets, {}).load_or_make()
    file = secrets / MASTER_KEY_FILE
    assert file.stat().st_mode & 0o777 == 0o600
    assert KeyringSource(secrets, {}).load_or_make() == made
    file.chmod(0o640)
    with pytest.raises(NeedsOperator) as open_to_others:
        KeyringSource(secrets, {}).load()
    assert (open_to_others.value.code, open_to_others.value.do) == ("master_key_open", f"chmod 600 {file}")


def test_a_missing_file_is_never_made_where_keys_were_wrapped_already(tmp_path: Path) -> None:
    for ask in (KeyringSource(tmp_path, {}).load, lambda: KeyringSource(tmp_path, {}).load_or_make(lambda: True)):
        with pytest.raises(NeedsOperator) as missing:
            ask()
        assert missing.value.code == "master_key_missing"
        assert missing.value.do
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NeedsOperator):
        open_vault(tmp_path)


def test_epochs_and_rotation_come_back_and_the_newest_wraps() -> None:
    text = f"1:{ONE}\n10:{TWO}\nrotation:{ROOT}\n"
    keyring = parse_keyring(text, "")
    assert (sorted(keyring.epochs), keyring.newest, keyring.rotation.hex()) == ([1, 10], 10, ROOT)
    assert parse_keyring(render_keyring(keyring), "") == keyring
    assert parse_keyring(render_keyring(keyring, ","), "") == keyring
    assert KeyringSource(Path("/nowhere"), {MASTER_KEY_VARIABLE: render_keyring(keyring, " ")}).load() == keyring
    assert not any(secret in repr(keyring) for secret in (ONE, TWO, ROOT, repr(keyring.rotation)))


def test_a_single_key_of_an_older_version_is_epoch_one() -> None:
    old = parse_keyring(f"{ONE}\n", "")
    assert (dict(old.epochs), old) == ({1: bytes.fromhex(ONE)}, Keyring.of_one(bytes.fromhex(ONE)))
    longer = parse_keyring(render_keyring(Keyring({**old.epochs, 2: bytes.fromhex(TWO)}, old.rotation)), "")
    chain = ChainId("c")
    assert TemplateVault(longer).rotation_secret(chain) == TemplateVault(old).rotation_secret(chain)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "half",
        ONE[:-1],
        "zz" * 32,
        f"1:{ONE}",
        f"1:{ONE}\n2:{TWO}",
        f"1:{ONE}\n2:{TWO[:30]}",
        f"1:{ONE}\nrotation:{ROOT[:-2]}",
        f"rotation:{ROOT}",
        f"1:{ONE}\n1:{TWO}\nrotation:{ROOT}",
        f"0:{ONE}\nrotation:{ROOT}",
        f"-1:{ONE}\nrotation:{ROOT}",
        f"one:{ONE}\nrotation:{ROOT}",
        f"{ONE}\n{TWO}\nrotation:{ROOT}",
        f"1:{ONE}\nrotation:{ROOT}\nrotation:{ROOT}",
        f"９:{ONE}\nrotation:{ROOT}",
    ],
)
def test_what_is_no_keyring_is_refused_with_what_to_do_and_without_its_content(text: str, tmp_path: Path) -> None:
    file = tmp_path / MASTER_KEY_FILE
    file.touch(0o600)
    file.write_text(text)
    for source in (KeyringSource(tmp_path, {}), KeyringSource(tmp_path, {MASTER_KEY_VARIABLE: text})):
        with pytest.raises(NeedsOperator) as wrong:
            source.load()
        assert wrong.value.code == "master_key"
        assert "restore" in wrong.value.do
        assert not any(part and part[:8] in wrong.value.message for part in (ONE, TWO, ROOT))


def test_a_changed_file_is_noticed_once_and_a_half_one_is_not_taken(tmp_path: Path) -> None:
    source, other = KeyringSource(tmp_path, {}), KeyringSource(tmp_path, {})
    first = source.load_or_make()
    assert source.renewed() is None
    longer = Keyring({**first.epochs, 2: bytes.fromhex(TWO)}, first.rotation)
    other.load()
    other.replace(longer)
    assert source.renewed() == longer
    assert source.renewed() is None
    (tmp_path / MASTER_KEY_FILE).write_text("1:")
    assert source.renewed() is None
    assert KeyringSource(tmp_path, {MASTER_KEY_VARIABLE: ONE}).renewed() is None
