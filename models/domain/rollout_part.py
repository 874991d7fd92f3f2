"""The part of a terminal's document that a rollout owns: how it is read there, laid in, and taken out again.

A configuration's part are the paths of its patch in the terminal's own overrides, whatever stands at them; software's
is the release. What the store's host reads, its settings and its book, is one part for the whole store: the paths in
the store's live layer, or the version that is pinned. A part is text: canonical JSON, "" where nothing stands.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from models.domain.chain_refusals import faults
from models.domain.chain_settings import BY_PATH, Level, Path, Reader
from models.domain.errors import Refused
from models.domain.ids import MessageId
from models.domain.rollout import BOOK_KEY, Artefact, ArtefactKey, ArtefactKind, digest_of
from models.domain.twin import (
    INTEGER_MAX,
    PROTECTED_CONFIG,
    DesiredAsked,
    SoftwareVersion,
    canonical,
    keepable,
    overlaid,
    require_config,
)

PATCHED = (ArtefactKind.CONFIG, ArtefactKind.FLAG)
BOOKS = (ArtefactKind.PLAN, ArtefactKind.PRICES)
CONFIG_KEY = ArtefactKey("config")


def taken(overrides: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in the overrides at the paths of a patch; a null that hides a key of the base counts."""
    found: dict[str, Any] = {}
    for key, value in patch.items():
        if key not in overrides:
            continue
        inside = overrides[key]
        if isinstance(value, Mapping) and isinstance(inside, Mapping):
            if below := taken(inside, value):
                found[key] = below
        else:
            found[key] = inside
    return found


def without(overrides: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides without the paths of a patch; a group that is empty then goes too."""
    left: dict[str, Any] = {}
    for key, value in overrides.items():
        if key not in patch:
            left[key] = value
        elif isinstance(patch[key], Mapping) and isinstance(value, Mapping) and (below := without(value, patch[key])):
            left[key] = below
    return left


def at_store(artefact: Artefact) -> bool:
    """True for what the store's host reads: it changes for the whole store at once."""
    if artefact.kind in BOOKS:
        return True
    return artefact.kind in PATCHED and Reader.HOST in _readers(json.loads(artefact.payload))


def _readers(patch: Mapping[str, Any]) -> set[Reader]:
    """Who acts by what a patch says; keys of a terminal's vendor are the terminal's."""
    found: set[Reader] = set()
    for path in leaf_paths(patch):
        below = {one.read_by for keys, one in BY_PATH.items() if keys[: len(path)] == path}
        found |= below or {Reader.TERMINAL}
    return found


def leaf_paths(patch: Mapping[str, Any], under: Path = ()) -> Iterator[Path]:
    """Where a patch says something."""
    for key, value in patch.items():
        if isinstance(value, Mapping) and value:
            yield from leaf_paths(value, (*under, key))
        else:
            yield (*under, key)


def collide(one: Artefact, other: Artefact) -> bool:
    """True when they change the same: by their key, or a setting of which one says something and the other too."""
    if one.key == other.key:
        return True
    if one.kind not in PATCHED or other.kind not in PATCHED:
        return False
    theirs = list(leaf_paths(json.loads(other.payload)))
    return any(
        mine[: len(path)] == path[: len(mine)] for mine in leaf_paths(json.loads(one.payload)) for path in theirs
    )


def store_part(artefact: Artefact, version: int, layer: Mapping[str, Any]) -> str:
    """The artefact's part of a store that uses this version of the book, under this live layer."""
    if artefact.kind in BOOKS:
        return str(version)
    found = taken(layer, json.loads(artefact.payload))
    return canonical(found) if found else ""


def layer_change(artefact: Artefact, part: str) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """The patch that gives a store's live layer this part, and the paths of which it is to say nothing any more."""
    patch: dict[str, Any] = json.loads(part) if part else {}
    said = set(leaf_paths(patch))
    return patch, tuple(path for path in leaf_paths(json.loads(artefact.payload)) if path not in said)


def part_of(artefact: Artefact, overrides: str, software: Mapping[str, Any] | None) -> str:
    """The artefact's part as it stands in one terminal's document."""
    if artefact.kind is ArtefactKind.SOFTWARE:
        return "" if software is None else canonical(software)
    if artefact.kind in BOOKS:
        return ""
    found = taken(json.loads(overrides), json.loads(artefact.payload))
    return canonical(found) if found else ""


def laid_in(order: MessageId, artefact: Artefact, part: str, expected_gen: int) -> DesiredAsked:
    """Ask for the artefact against the generation that was seen."""
    if artefact.kind is ArtefactKind.SOFTWARE:
        return DesiredAsked(order, "", software=_release(part), expected_gen=expected_gen)
    return DesiredAsked(order, "", part, expected_gen=expected_gen)


def put_back(order: MessageId, artefact: Artefact, part: str, overrides: str, expected_gen: int) -> DesiredAsked:
    """Ask for what stood there before, always as a new generation. `overrides`: as seen under `expected_gen`."""
    if artefact.kind is ArtefactKind.SOFTWARE:
        return DesiredAsked(order, "", software=_release(part), expected_gen=expected_gen, anew=True)
    bare = without(json.loads(overrides), json.loads(artefact.payload))
    whole = overlaid(bare, json.loads(part)) if part else bare
    return DesiredAsked(order, "", canonical(whole), reset=True, expected_gen=expected_gen, anew=True)


def _release(part: str) -> SoftwareVersion:
    return SoftwareVersion(**json.loads(part))


# ---------------------------------------------------------------- made


def patch_artefact(patch: Mapping[str, Any], flag: str = "") -> Artefact:
    """A change of configuration, or of the one setting that `flag` names. Raises Refused `bad_artefact`."""
    require_config(patch)
    if not patch or _hollow(patch):
        raise Refused(
            "bad_artefact", "a patch without a value changes nothing", 'say {"sound": {"volume_percent": 40}}'
        )
    if protected := PROTECTED_CONFIG & patch.keys():
        raise Refused("bad_artefact", f"{', '.join(sorted(protected))} is no setting", "it comes from the chain's book")
    readers = _readers(patch)
    if Reader.HOST in readers:
        for fault in faults(patch, Level.STORE):
            raise Refused("bad_artefact", f"{fault.key}: {fault.message}", fault.do)
        if Reader.TERMINAL in readers:
            raise Refused(
                "bad_artefact",
                "some of it is read by the store's host and some by terminals",
                "one rollout for each: docs/configuration.md says who reads what",
            )
    else:
        for fault in faults(patch, Level.TERMINAL):
            if not fault.unknown:  # a vendor's own keys are its own business
                raise Refused("bad_artefact", f"{fault.key}: {fault.message}", fault.do)
    payload = canonical(patch)
    kind, key = (ArtefactKind.FLAG, ArtefactKey(flag)) if flag else (ArtefactKind.CONFIG, CONFIG_KEY)
    sha256 = digest_of(payload)
    return Artefact(kind, key, sha256[:12], payload, sha256)


def book_artefact(kind: ArtefactKind, version: int, base: int) -> Artefact:
    """A version of the chain's book over the one in force."""
    payload = str(version)
    return Artefact(kind, BOOK_KEY, payload, payload, digest_of(payload), str(base))


def software_artefact(release: Mapping[str, Any], fallback: Mapping[str, Any], family: str = "terminals") -> Artefact:
    """A release of the software of one family, and the one to go back to where none was asked for.

    Raises Refused `bad_artefact`.
    """
    parts = []
    for name, document in (("the release", release), ("the release to go back to", fallback)):
        if set(document) != {"version", "url", "sha256", "size_bytes"} or not _is_release(document):
            raise Refused("bad_artefact", f"{name} is no release", "an object of version, url, sha256, size_bytes")
        parts.append(canonical(document))
    payload, back = parts
    return Artefact(
        ArtefactKind.SOFTWARE,
        ArtefactKey(f"software/{family}"),
        str(release["version"]),
        payload,
        digest_of(payload),
        back,
    )


def _is_release(document: Mapping[str, Any]) -> bool:
    texts = (document["version"], document["url"], document["sha256"])
    whole = all(isinstance(one, str) and one and keepable(one) for one in texts)
    return whole and type(document["size_bytes"]) is int and 0 < document["size_bytes"] <= INTEGER_MAX


def strange_settings(artefact: Artefact) -> tuple[str, ...]:
    """Paths of a patch that no setting has, each with what may have been meant: a vendor's own, or misspelt."""
    if artefact.kind not in PATCHED:
        return ()
    return tuple(f"{one.key}: {one.do}" for one in faults(json.loads(artefact.payload), Level.TERMINAL) if one.unknown)


def _hollow(patch: Mapping[str, Any]) -> bool:
    """Some group of it says nothing."""
    return any(isinstance(value, Mapping) and (not value or _hollow(value)) for value in patch.values())
