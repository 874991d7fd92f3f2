"""What the API is sent about rollouts: an artefact, whom it reaches, under which policy; and what people tell one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.errors import Problem
from gateway.rollouts import ChainDesk, PolicyWrong, Rollouts
from gateway.views import FieldProblemView
from models.domain.ids import RegionId, StoreId, TerminalId
from models.domain.rollout import Artefact, RolloutPolicy, Selector
from models.domain.rollout_part import patch_artefact, software_artefact

REASON_CHARACTERS_MAX = 400
POLICY_CHARACTERS_MAX = 128 * 1024
KEPT = r"^[^\x00]*$"
"""What a table may be asked for."""
SAID = r"^[^\x00]*[^\s\x00][^\x00]*$"
"""Something, and nothing that no table keeps."""

Word = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f]+$")]
Words = Annotated[list[Word], Field(max_length=5_000)]
Labels = dict[Word, Words]


class Body(BaseModel):
    """Closed: a field that nobody knows is refused."""

    model_config = ConfigDict(extra="forbid")


class ConfigBody(Body):
    """A merge patch of settings (RFC 7396), e.g. {"sound": {"volume_percent": 40}}."""

    kind: Literal["config"]
    patch: dict[str, Any]


class FlagBody(Body):
    """One setting: `name` as a.b."""

    kind: Literal["flag"]
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$", max_length=100)]
    value: Any


class ReleaseBody(Body):
    """A release of terminals' software."""

    version: Word
    url: Annotated[str, Field(min_length=1, max_length=500)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Field(ge=1, le=2**40)]


class SoftwareBody(Body):
    """A release, and the one to go back to where none was asked for: each a version of the image store, as
    "dragonfly 2.0.0", or a document. Two families do not conflict; empty: the software's name, or all."""

    kind: Literal["software"]
    release: ReleaseBody | Word
    fallback: ReleaseBody | Word
    family: Annotated[str, Field(pattern=r"^[a-z0-9-]{0,48}$")] = ""


class BookBody(Body):
    """A candidate of the chain's book, with other prices or plans: POST /candidates/prices or /candidates/plans."""

    kind: Literal["book"]
    version: Annotated[int, Field(ge=1, lt=2**31)]


ArtefactBody = Annotated[ConfigBody | FlagBody | SoftwareBody | BookBody, Field(discriminator="kind")]


class SelectorBody(Body):
    """Which stores, and which of their terminals. What is empty does not narrow; exclusions win."""

    all_stores: bool = False
    regions: Words = []
    stores: Words = []
    labels: Labels = {}
    profiles: Words = []
    roles: Words = []
    excluded_stores: Words = []
    excluded_regions: Words = []
    excluded_labels: Labels = {}
    excluded_terminals: Words = []


class PlanBody(Body):
    """`policy`: the name of a shipped one; or `policy_yaml`: its whole text. `chain`: where a house has several."""

    artefact: ArtefactBody
    selector: SelectorBody
    policy: Annotated[str, Field(max_length=64)] = ""
    policy_yaml: Annotated[str, Field(max_length=POLICY_CHARACTERS_MAX)] = ""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    chain: Annotated[str, Field(max_length=48)] = ""


class PlansBody(Body):
    """Plans as documents (docs/plans.md), each a new one or the next version of one."""

    plans: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=50)]
    chain: Annotated[str, Field(max_length=48)] = ""


class SupersedeBody(Body):
    """`successor`: a draft of the same artefact key, which begins and takes over."""

    successor: Annotated[str, Field(min_length=1, max_length=64)]


class StageBody(Body):
    """The stage that was looked at, 1 the first: another one is not approved unseen."""

    stage: Annotated[int, Field(ge=1, le=16)]


class ReasonBody(Body):
    """Why: it stands in the journal and in the audit."""

    reason: Annotated[str, Field(min_length=1, max_length=REASON_CHARACTERS_MAX, pattern=SAID)]


class AttachBody(Body):
    """`name` as the policy calls it, e.g. privacy_assessment; `reference` says where the document is kept."""

    name: Word
    reference: Annotated[str, Field(min_length=1, max_length=200, pattern=SAID)]


async def artefact_of(body: ArtefactBody, rollouts: Rollouts, desk: ChainDesk) -> Artefact:
    """Raises Refused `bad_artefact`, `unknown_version`, `unknown_book`."""
    match body:
        case ConfigBody():
            return patch_artefact(body.patch)
        case FlagBody():
            patch: Any = body.value
            for part in reversed(body.name.split(".")):
                patch = {part: patch}
            return patch_artefact(patch, body.name)
        case SoftwareBody():
            release, fallback = [await _release(one, rollouts) for one in (body.release, body.fallback)]
            named = "" if isinstance(body.release, ReleaseBody) else body.release.partition(" ")[0]
            return software_artefact(release, fallback, body.family or named or "all")
        case BookBody():
            return await desk.candidate_of_version(body.version)


async def _release(said: ReleaseBody | str, rollouts: Rollouts) -> dict[str, Any]:
    return said.model_dump() if isinstance(said, ReleaseBody) else asdict(await rollouts.release(said))


def selector_of(body: SelectorBody) -> Selector:
    """As the resolver takes it."""
    return Selector(
        all_stores=body.all_stores,
        regions=frozenset(RegionId(one) for one in body.regions),
        stores=frozenset(StoreId(one) for one in body.stores),
        labels={name: frozenset(values) for name, values in body.labels.items()},
        profiles=frozenset(body.profiles),
        roles=frozenset(body.roles),
        excluded_stores=frozenset(StoreId(one) for one in body.excluded_stores),
        excluded_regions=frozenset(RegionId(one) for one in body.excluded_regions),
        excluded_labels={name: frozenset(values) for name, values in body.excluded_labels.items()},
        excluded_terminals=frozenset(TerminalId(one) for one in body.excluded_terminals),
    )


def policy_of(rollouts: Rollouts, name: str, text: str) -> RolloutPolicy:
    """A shipped policy by its name, or one that was sent. Raises Problem 422, each wrong value with line and column."""
    if bool(name) == bool(text):
        raise Problem(422, "which_policy", "name a policy or send one", "give one of policy and policy_yaml")
    if name:
        known = {one.policy.name: one.policy for one in rollouts.policies()}
        if name not in known:
            raise Problem(422, "unknown_policy", f"no policy {name!r}", f"one of: {', '.join(sorted(known))}")
        return known[name]
    try:
        return rollouts.policy_in(text)
    except PolicyWrong as error:
        errors = [
            FieldProblemView(field=one.path or "policy", problem=one.reason, line=one.line, column=one.column)
            for one in error.problems
        ]
        raise Problem(422, error.code, error.message, error.do, errors) from error
