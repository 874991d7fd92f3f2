"""A new master key epoch: every member's key is wrapped again, then the old epoch is destroyed.

From then on no copy of the database from before (a backup, a write-ahead log archive, a snapshot) opens any key, but
for those that are still there to be wrapped again: that is how an erasure reaches copies. It can be killed anywhere
and is then run again: the file of keys says which epochs there are, each row by which it is wrapped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import psycopg

from models.domain.errors import NeedsOperator
from models.faces.templates import Keyring, TemplateVault, new_key
from models.tables.keys import any_epoch_beyond, count_other_epochs, lock_keys_of_other_epochs, store_wrapped
from runtime.keyring import MASTER_KEY_VARIABLE, RESTORE, KeyringSource, render_keyring

BATCH_KEYS = 1_000
GRACE_S = 10.0
"""Between the first key of a new epoch and the end of the old one: a template that was sealed before is committed by
then or never (a face's answer comes within 3 s, a host's transaction lasts 2 s at most)."""


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """What a run did. `operator`: what a person has to set now, where the environment holds the keys."""

    epoch: int
    resumed: bool
    rewrapped: int
    unopened: int
    """Keys that no epoch opens (altered, or written after their epoch's end): what they seal is lost already."""
    destroyed: tuple[int, ...] = ()
    rotated: bool = False
    operator: str = ""


Progress = Callable[[int, int], None]
"""Called with (keys done, keys to do) after each batch."""


def rekey(
    source: KeyringSource,
    database_urls: Sequence[str],
    *,
    rotate: bool = False,
    progress: Progress = lambda *_: None,
    grace_s: float = GRACE_S,
    pause: Callable[[float], None] = time.sleep,
) -> Rekeyed:
    """Begin a new epoch, or go on with one that was begun; then destroy what came before.

    `rotate`: renew the root of the chains' rotations too (galleries are then built anew).

    Raises NeedsOperator `epoch_missing` when keys are wrapped by an epoch that is not here (nothing was changed), as
    `KeyringSource.load` does, and RetryLater `rekey_running`.
    """
    if source.from_environment:
        return _with_environment(source.load(), database_urls, rotate, progress)
    with source.locked():
        source.finish()
        keyring = source.load()
        _require_known(keyring, database_urls)
        resumed = len(keyring.epochs) > 1
        if not resumed:
            keyring = _with_new_epoch(keyring)
            source.replace(keyring)
        began = time.monotonic()
        rewrapped = _rewrap_all(keyring, database_urls, progress)
        if (rest := grace_s - (time.monotonic() - began)) > 0:
            pause(rest)
        rewrapped += _rewrap_all(keyring, database_urls, progress)
        left = {keyring.newest: keyring.epochs[keyring.newest]}
        source.replace(Keyring(left, new_key() if rotate else keyring.rotation))
        gone = tuple(epoch for epoch in keyring.epochs if epoch not in left)
        return Rekeyed(keyring.newest, resumed, rewrapped, _unopened(keyring, database_urls), gone, rotate)


def _with_environment(keyring: Keyring, urls: Sequence[str], rotate: bool, progress: Progress) -> Rekeyed:
    """The operator keeps the keys: wrap again when a new epoch is there, and say what to set."""
    _require_known(keyring, urls)
    if len(keyring.epochs) == 1:
        coming = _with_new_epoch(keyring)
        return Rekeyed(keyring.newest, False, 0, 0, operator=_to_set(coming, "start again with it, then rekey again"))
    rewrapped = _rewrap_all(keyring, urls, progress)
    alone = Keyring({keyring.newest: keyring.epochs[keyring.newest]}, new_key() if rotate else keyring.rotation)
    said = _to_set(alone, "start again with it, then destroy every copy of the value before")
    return Rekeyed(keyring.newest, True, rewrapped, _unopened(keyring, urls), rotated=rotate, operator=said)


def _to_set(keyring: Keyring, then: str) -> str:
    return f"{MASTER_KEY_VARIABLE}={render_keyring(keyring, ',')}\n{then}"


def _with_new_epoch(keyring: Keyring) -> Keyring:
    return replace(keyring, epochs={**keyring.epochs, keyring.newest + 1: new_key()})


def _require_known(keyring: Keyring, urls: Sequence[str]) -> None:
    """An epoch's number is never used for two keys: a database that knows a later one has a later file."""
    for url in urls:
        with psycopg.connect(url, autocommit=True, connect_timeout=5) as conn:
            if (epoch := any_epoch_beyond(conn, keyring.epochs)) is not None and epoch > keyring.newest:
                raise NeedsOperator("epoch_missing", f"keys are wrapped by epoch {epoch}, which is not here", RESTORE)


def _rewrap_all(keyring: Keyring, urls: Sequence[str], progress: Progress) -> int:
    """Every key of every database under the newest epoch, in batches that each commit; how many."""
    vault = TemplateVault(keyring)
    counted: Mapping[str, int] = {}
    for url in urls:
        with psycopg.connect(url, connect_timeout=5) as conn:
            counted = {**counted, url: sum(count_other_epochs(conn, keyring.newest).values())}
    total, done, rewrapped = sum(counted.values()), 0, 0
    for url in urls:
        with psycopg.connect(url, connect_timeout=5) as conn:
            after = ""
            while batch := lock_keys_of_other_epochs(conn, keyring.newest, after, BATCH_KEYS):
                opened = [key for key in map(vault.rewrap, batch) if key is not None]
                store_wrapped(conn, opened)
                conn.commit()
                after, done, rewrapped = batch[-1].id, done + len(batch), rewrapped + len(opened)
                progress(done, max(total, done))
    return rewrapped


def _unopened(keyring: Keyring, urls: Sequence[str]) -> int:
    left = 0
    for url in urls:
        with psycopg.connect(url, autocommit=True, connect_timeout=5) as conn:
            left += sum(count_other_epochs(conn, keyring.newest).values())
    return left
