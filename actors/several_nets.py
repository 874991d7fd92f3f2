"""A face worker's nets: the chain's own, and older ones as long as members are enrolled with them.

A probe is embedded by all of them, searched in each one's gallery and decided by each one's thresholds;
models.domain.nets says which decision stands and which template the member then gets.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actors.face_ports import Vault
from actors.galleries import Found, Galleries
from models.domain.ids import ChainId, MemberId, StoreId, derived_id
from models.domain.messages import SealedTemplate
from models.domain.nets import NetDecision, settle, upkeep, with_all
from models.domain.recognition import Accepted, Embedding, RecognitionPolicy, decide

Look = Callable[[Galleries, Embedding], Found]
"""One place to look, in the galleries of any net."""


def _nothing() -> None: ...


@dataclass(frozen=True, slots=True)
class OneNet:
    """A recogniser's galleries and its thresholds; `galleries.net_sha256` is its identity."""

    galleries: Galleries
    recognition: RecognitionPolicy
    close: Callable[[], None] = _nothing
    """Ends what was opened for it."""

    @property
    def net_sha256(self) -> str:
        """Its identity in templates and decisions."""
        return self.galleries.net_sha256


@dataclass(frozen=True, slots=True)
class Searched:
    """What each net found in one place, in the nets' order."""

    found: Mapping[str, Found]

    @property
    def version(self) -> int:
        """The change up to which all of them were searchable."""
        return min(one.version for one in self.found.values())

    @property
    def partial(self) -> bool:
        """Was a part missing of any?"""
        return any(one.partial for one in self.found.values())


class SeveralNets:
    """The current net first. Not for several threads."""

    def __init__(self, current: OneNet, older: Sequence[OneNet] = (), *, adaptive: bool = False) -> None:
        """`adaptive`: templates follow a face (see `upkeep`)."""
        self.current = current
        self._older = list(older)
        self._adaptive = adaptive

    @property
    def every(self) -> tuple[OneNet, ...]:
        """All nets, the current first."""
        return (self.current, *self._older)

    def retire(self, in_use: Collection[str]) -> tuple[str, ...]:
        """Close older nets that no template is of any more; which."""
        gone = [one for one in self._older if one.net_sha256 not in in_use]
        self._older = [one for one in self._older if one not in gone]
        for one in gone:
            one.close()
        return tuple(one.net_sha256 for one in gone)

    def search(self, probes: Mapping[str, Embedding], look: Look) -> Searched:
        """In the galleries of every net that the probe was embedded by."""
        nets = [net for net in self.every if net.net_sha256 in probes]
        return Searched({net.net_sha256: look(net.galleries, probes[net.net_sha256]) for net in nets})

    def decide(self, searched: Searched, **how: Any) -> NetDecision:
        """The decision that stands. `how`: as `models.domain.recognition.decide`, the same for every net."""
        results = with_all([one.result for one in searched.found.values()])
        policies = {net.net_sha256: net.recognition for net in self.every}
        return settle(
            [
                NetDecision(net, decide(result, policies[net], net_sha256=net, **how))
                for net, result in zip(searched.found, results, strict=True)
            ]
        )

    def visited(self, chain: ChainId, store: StoreId, member: MemberId) -> None:
        """Remember a visitor in the galleries of every net."""
        for net in self.every:
            net.galleries.visited(chain, store, [member])

    def upkeep(
        self,
        vault: Vault,
        said: NetDecision,
        probes: Mapping[str, Embedding],
        chain: ChainId,
        question: str,
        policy: str,
        *,
        second_factor: bool,
    ) -> tuple[SealedTemplate, ...]:
        """The template that an accepted probe makes, if any: for the session to store while consent stands.

        The same question makes the same template id. The database refuses what another visit made meanwhile, and
        what has no enrolled template of the member beside it.
        """
        match, current = said.decision.match, self.current.net_sha256
        if not isinstance(match, Accepted) or current not in probes:
            return ()
        kind = upkeep(
            said,
            current,
            has_current=match.member in self.current.galleries.open(chain),
            second_factor=second_factor,
            adaptive=self._adaptive,
        )
        if kind is None:
            return ()
        template = derived_id(question, "template")
        return (vault.make_template(match.member, template, current, policy, probes[current], kind),)
