"""Several recognisers at once: which decision stands, and which template a recognised member gets.

When a chain changes its net, members who are enrolled with an older one are recognised by it once more, and get a
template of the new net from the same image. Cosines of different nets are never compared: each is decided by its own
thresholds, with the templates of all nets as N.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from models.domain.messages import TemplateKind
from models.domain.recognition import (
    Accepted,
    Decision,
    DigitsReason,
    Embedding,
    NeedsDigits,
    NotRecognised,
    SearchResult,
    UnknownReason,
)

UPKEEP_SCORE_MIN_PPM = 600_000
"""Below, an accepted probe changes no template (docs: faces, Several nets)."""
ADAPTIVE_MAX = 5
"""Adaptive templates of a member and net; the oldest goes first. Those of the enrolment never change."""
NETS_MAX = 4
"""Recognisers that one worker embeds a probe with."""

_HEADER = struct.Struct("<64sI")


@dataclass(frozen=True, slots=True)
class NetDecision:
    """What one net says."""

    net_sha256: str
    decision: Decision


def with_all(searches: Sequence[SearchResult]) -> tuple[SearchResult, ...]:
    """The same results, each with the templates of all of them as N: a false accept may come from any."""
    searched = sum(one.searched for one in searches)
    return tuple(replace(one, searched=searched) for one in searches)


def settle(said: Sequence[NetDecision]) -> NetDecision:
    """The decision that stands, of nets in the chain's order, the current first.

    The first that accepts; when another accepts somebody else, digits. Else the first that asks for digits: a member
    enrolled with one net is a stranger to the other. Else the first.
    """
    accepting = [one for one in said if isinstance(one.decision.match, Accepted)]
    if accepting:
        first = accepting[0]
        same = len({one.decision.match for one in accepting}) == 1
        return first if same else NetDecision(first.net_sha256, _two_members(first.decision))
    asking = [one for one in said if isinstance(one.decision.match, NeedsDigits)]
    return (asking or list(said))[0]


def _two_members(decision: Decision) -> Decision:
    """Two nets accept two people: no margin at all, and recorded as one."""
    record = replace(decision.record, second_ppm=decision.record.best_ppm)
    match: NeedsDigits | NotRecognised = NeedsDigits(DigitsReason.THIN_MARGIN)
    if record.digits_given:
        match = NotRecognised(UnknownReason.DIGITS_THIN_MARGIN)
    return Decision(match, replace(record, reason=match.reason.value))


def upkeep(
    accepted: NetDecision, current: str, *, has_current: bool, second_factor: bool, adaptive: bool
) -> TemplateKind | None:
    """The kind of template of the current net that this accepted probe makes, or None.

    `has_current`: the member has one of the current net. `second_factor`: digits were given. `adaptive`: the chain
    lets templates follow a face.
    """
    if not isinstance(accepted.decision.match, Accepted) or accepted.decision.record.best_ppm < UPKEEP_SCORE_MIN_PPM:
        return None
    if not has_current:
        return TemplateKind.MIGRATED if accepted.net_sha256 != current else None
    if adaptive and second_factor and accepted.net_sha256 == current:
        return TemplateKind.ADAPTIVE
    return None


# ---------------------------------------------------------------- a probe, as each net sees it


def pack(probes: Mapping[str, Embedding]) -> bytes:
    """Embeddings by net as bytes, in their order: what is sealed between a probe and its digits."""
    return b"".join(_HEADER.pack(net.encode(), len(probe)) + probe for net, probe in probes.items())


def unpack(packed: bytes) -> dict[str, Embedding]:
    """Back from bytes. Raises ValueError when they are none."""
    probes: dict[str, Embedding] = {}
    at = 0
    while at < len(packed):
        if len(packed) - at < _HEADER.size:
            raise ValueError("a packed probe is cut short")
        net, length = _HEADER.unpack_from(packed, at)
        at += _HEADER.size
        if len(packed) - at < length:
            raise ValueError("a packed probe is cut short")
        probes[net.rstrip(b"\0").decode()] = Embedding(packed[at : at + length])
        at += length
    return probes
