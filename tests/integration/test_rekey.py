"""A new master key epoch: every key under it, the old one destroyed, killed anywhere and run again; workers follow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from models.domain.errors import NeedsOperator, RetryLater
from models.domain.ids import ChainId, MemberId
from models.domain.messages import KeyRow, SealedTemplate
from models.domain.recognition import Embedding
from models.faces.templates import TemplateVault
from models.tables.keys import store_wrapped
from runtime import rekey as rekeying
from runtime.keyring import MASTER_KEY_VARIABLE, KeyringSource, open_vault, parse_keyring
from runtime.rekey import Rekeyed, rekey

EMBEDDING = Embedding(bytes(range(256)) * 2)
AT = datetime(2026, 11, 22, tzinfo=UTC)
KEYS = 3


class Killed(BaseException):
    """As SIGKILL: nothing of ours runs after it."""


class House:
    """A key file, a database with members' keys, and a worker that was started before everything."""

    def __init__(self, secrets: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rekeying, "BATCH_KEYS", 2)
        self.secrets, self.url = secrets, url
        KeyringSource(secrets, {}).load_or_make()
        self.worker = open_vault(secrets)
        self.sealed = [self.seal(f"t-{n}") for n in range(KEYS)]
        for sealed in self.sealed:
            self.store(sealed.key)

    def seal(self, name: str) -> SealedTemplate:
        return self.worker.make_template(MemberId(f"m-{name}"), name, "net", "production", EMBEDDING)

    def store(self, key: KeyRow) -> None:
        with psycopg.connect(self.url) as conn:
            row = (key.id, key.member, key.epoch, key.wrapped, AT)
            conn.execute("INSERT INTO face_key (id, member, epoch, wrapped, made_at) VALUES (%s, %s, %s, %s, %s)", row)

    def stored(self) -> dict[str, KeyRow]:
        with psycopg.connect(self.url) as conn:
            rows = conn.execute("SELECT id, member, epoch, wrapped FROM face_key").fetchall()
        return {row[0]: KeyRow(row[0], MemberId(row[1]), row[2], bytes(row[3])) for row in rows}

    def all_open_with(self, vault: TemplateVault) -> bool:
        keys = self.stored()
        return all(vault.open_template(one.template, keys[one.key.id]) == EMBEDDING for one in self.sealed)

    def rekey(self, *, rotate: bool = False, pause: Callable[[float], None] = lambda _: None) -> Rekeyed:
        return rekey(KeyringSource(self.secrets, {}), [self.url], rotate=rotate, pause=pause)

    def everything(self) -> bytes:
        """What lies in the folder of secrets, under whatever name."""
        return b"".join(path.read_bytes() for path in sorted(self.secrets.iterdir()))


@pytest.fixture
def house(tmp_path: Path, migrated_database_url: str, monkeypatch: pytest.MonkeyPatch) -> House:
    return House(tmp_path, migrated_database_url, monkeypatch)


def test_after_it_no_copy_from_before_opens_and_a_running_worker_goes_on(house: House) -> None:
    before = KeyringSource(house.secrets, {}).load()
    backup = house.stored()
    rotation = house.worker.rotation_secret(ChainId("c"))
    late: list[SealedTemplate] = []

    def sealed_meanwhile(_: float) -> None:
        """A template that was sealed just before the new epoch is committed only now."""
        late.append(TemplateVault(before).make_template(MemberId("m"), "late", "net", "production", EMBEDDING))
        house.store(late[0].key)

    done = house.rekey(pause=sealed_meanwhile)
    assert done == Rekeyed(2, resumed=False, rewrapped=KEYS + 1, unopened=0, destroyed=(1,))
    assert house.all_open_with(house.worker), "it read the new epoch by itself"
    house.worker.open_template(late[0].template, house.stored()["late"])
    assert house.seal("new").key.epoch == 2
    assert house.worker.rotation_secret(ChainId("c")) == rotation
    assert before.epochs[1].hex().encode() not in house.everything()
    after = open_vault(house.secrets)
    for one in house.sealed:
        with pytest.raises(NeedsOperator):
            after.open_template(one.template, backup[one.key.id])


def test_rotations_are_renewed_when_asked(house: House) -> None:
    rotation = house.worker.rotation_secret(ChainId("c"))
    assert house.rekey(rotate=True).rotated
    assert open_vault(house.secrets).rotation_secret(ChainId("c")) != rotation
    assert house.all_open_with(open_vault(house.secrets))


def kill_before(monkeypatch: pytest.MonkeyPatch, nth: int) -> Callable[[], int]:
    """Killed before the n-th step that lasts, wherever it is; the returned function counts the steps so far."""
    steps = 0

    def step(call: Callable[..., object]) -> Callable[..., object]:
        def counted(*args: object, **more: object) -> object:
            nonlocal steps
            steps += 1
            if steps == nth:
                if args and isinstance(args[0], psycopg.Connection):
                    args[0].close()
                raise Killed
            return call(*args, **more)

        return counted

    module: Any = rekeying
    owners: list[tuple[Any, tuple[str, ...]]] = [
        (os, ("link", "fsync")),
        (Path, ("replace", "unlink")),
        (psycopg.Connection, ("commit",)),
        (module, ("store_wrapped",)),
    ]
    for owner, names in owners:
        for name in names:
            monkeypatch.setattr(owner, name, step(getattr(owner, name)))
    return lambda: steps


def test_killed_before_any_step_it_is_run_again_to_the_same_end(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the same beginning each time, killed one step later; run again, it ends as if it had not been."""
    file = house.secrets / "faces-master.key"
    first, keys = file.read_text(), house.stored()
    old = KeyringSource(house.secrets, {}).load().epochs[1].hex().encode()
    for nth in range(1, 100):
        file.write_text(first)
        with psycopg.connect(house.url) as conn:
            store_wrapped(conn, list(keys.values()))
        with monkeypatch.context() as patched:
            steps = kill_before(patched, nth)
            with suppress(Killed):
                house.rekey()
        if steps() < nth:
            break
        assert house.all_open_with(open_vault(house.secrets)), f"killed before step {nth}"
        house.rekey()
        assert house.all_open_with(open_vault(house.secrets)), f"run again after step {nth}"
        assert old not in house.everything(), f"the old epoch, killed before step {nth}"
        assert sorted(path.name for path in house.secrets.iterdir()) == ["faces-master.key", "faces-master.lock"]
    assert nth > 20, "every step was met"


def test_killed_by_the_kernel_it_goes_on_where_it_was(house: House) -> None:
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom runtime import rekey\nfrom runtime.keyring import *\n"
        "rekey.BATCH_KEYS = 2\n"
        "rekey.rekey(KeyringSource(Path(sys.argv[1]), {}), [sys.argv[2]], grace_s=0,\n"
        "  progress=lambda done, total: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    child = subprocess.run([sys.executable, "-c", script, str(house.secrets), house.url], check=False)
    assert child.returncode == -signal.SIGKILL
    assert sorted(key.epoch for key in house.stored().values()) == [1, 2, 2]
    assert house.all_open_with(house.worker), "half and half"
    assert house.rekey() == Rekeyed(2, resumed=True, rewrapped=KEYS - 2, unopened=0, destroyed=(1,))
    assert house.all_open_with(house.worker)


def test_only_one_at_a_time(house: House) -> None:
    with KeyringSource(house.secrets, {}).locked(), pytest.raises(RetryLater) as running:
        house.rekey()
    assert running.value.code == "rekey_running"


def test_an_older_key_file_than_the_database_is_refused(house: House) -> None:
    older = (house.secrets / "faces-master.key").read_text()
    house.rekey()
    (house.secrets / "faces-master.key").write_text(older)
    with pytest.raises(NeedsOperator) as missing:
        house.rekey()
    assert missing.value.code == "epoch_missing"
    assert "restore the key file" in missing.value.do
    assert (house.secrets / "faces-master.key").read_text() == older


def test_a_key_that_nothing_opens_is_counted_and_stops_nothing(house: House) -> None:
    house.store(KeyRow("torn", MemberId("m"), 1, bytes(60)))
    done = house.rekey()
    assert (done.rewrapped, done.unopened, done.destroyed) == (KEYS, 1, (1,))


def test_keys_of_the_environment_are_the_operators(house: House) -> None:
    value = (house.secrets / "faces-master.key").read_text()

    def run(text: str) -> Rekeyed:
        return rekey(KeyringSource(house.secrets, {MASTER_KEY_VARIABLE: text}), [house.url])

    asked = run(value)
    assert (asked.rewrapped, asked.destroyed) == (0, ())
    both = asked.operator.splitlines()[0].removeprefix(f"{MASTER_KEY_VARIABLE}=")
    assert sorted(parse_keyring(both, "").epochs) == [1, 2]
    wrapped = run(both)
    assert (wrapped.epoch, wrapped.rewrapped, wrapped.destroyed) == (2, KEYS, ())
    alone = parse_keyring(wrapped.operator.splitlines()[0].removeprefix(f"{MASTER_KEY_VARIABLE}="), "")
    assert sorted(alone.epochs) == [2]
    assert house.all_open_with(TemplateVault(alone))
    assert (house.secrets / "faces-master.key").read_text() == value, "nothing is written or destroyed by itself"
