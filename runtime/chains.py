"""A chain's file: its companies, stores, lanes, articles, plans and consents. chain_tables.py applies it."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from devices.profiles import profile_of, require_role, ways_without_face
from models.domain.barcode import read_layouts
from models.domain.errors import NeedsOperator, Refused
from models.domain.events import TenderKind
from models.domain.ids import StoreId, TerminalId
from models.domain.liveness import PLAIN, ChallengeMode, LivenessPolicy
from models.domain.payments import PROVIDERS
from models.domain.points import POINTS, PointsPolicy, read_policy
from models.domain.privacy import COVERED_BY_DEFAULT, FaceUse
from models.domain.taxes import read_taxes
from models.domain.voucher_reader import read_vouchers
from runtime.settings import CONFIGS

Slug = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,48}$")]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Name(_Closed):
    """A name in both languages."""

    zh: str
    en: str


class EntityDoc(_Closed):
    """A legal entity. `accounts`: the payment providers where it has a merchant account.

    Whoever owns a plan needs the first: memberships are guaranteed and settled there.
    """

    id: Slug
    name: Name
    accounts: Annotated[tuple[str, ...], Field(min_length=1, max_length=len(PROVIDERS))] = PROVIDERS[:1]

    @model_validator(mode="after")
    def _at_known_providers(self) -> EntityDoc:
        strange = set(self.accounts) - set(PROVIDERS)
        if strange:
            raise ValueError(f"entity {self.id!r}: no provider {min(strange)!r}; one of {', '.join(PROVIDERS)}")
        return self


class ConsentDoc(_Closed):
    """A consent text and its version."""

    purpose: str
    version: Slug
    zh: str
    en: str
    covers: tuple[FaceUse, ...] = COVERED_BY_DEFAULT
    """Of a text to recognise: the uses of a face that its words name."""


class ItemDoc(_Closed):
    """An article."""

    code: Annotated[str, Field(pattern=r"^[0-9A-Za-z-]{1,48}$")]
    name: Name
    unit_fen: Annotated[int, Field(ge=0, le=100_000_00)]
    flags: tuple[str, ...] = ()
    tax: str = ""
    """A code of `taxes`."""


class StoreDoc(_Closed):
    """A store and who owns it. `region` is needed where a chain's file serves several."""

    id: Slug
    name: Name
    entity: Slug
    region: Slug | None = None
    basket_owner: Annotated[str, Field(pattern="^(pos|storeops|none)$")] = "storeops"
    placement: Annotated[str, Field(pattern="^(shared|dedicated)$")] = "shared"


class TerminalDoc(_Closed):
    """One terminal of a lane; its id is `{store}-{suffix}`."""

    suffix: Slug
    role: Slug
    profile: Slug

    @model_validator(mode="after")
    def _plays_its_role(self) -> TerminalDoc:
        try:
            require_role(profile_of(self.profile), self.role)
        except Refused as refusal:
            raise ValueError(f"{refusal.message}; {refusal.do}") from None
        return self


class LaneDoc(_Closed):
    """A lane as every store has it."""

    lane: Slug
    terminals: tuple[TerminalDoc, ...]


Part = Annotated[float, Field(ge=0, le=1)]


class LivenessDoc(_Closed):
    """What is asked before a face alone counts (models.domain.liveness.LivenessPolicy, whose defaults stand)."""

    required: bool = PLAIN.required
    challenge: ChallengeMode = PLAIN.challenge
    pass_min: Part = PLAIN.pass_min
    veto_below: Part = PLAIN.veto_below
    net_pass_min: Part = PLAIN.net_pass_min
    net_veto_below: Part = PLAIN.net_veto_below
    tries_max: Annotated[int, Field(ge=1, le=5)] = PLAIN.tries_max
    face_alone_max_fen: Annotated[int, Field(ge=0)] | None = PLAIN.face_alone_max_fen

    @model_validator(mode="after")
    def _veto_below_pass(self) -> LivenessDoc:
        LivenessPolicy(**self.model_dump())
        return self


class FacesDoc(_Closed):
    """Recognition, as far as a chain decides it."""

    liveness: LivenessDoc = LivenessDoc()


class ChainDoc(_Closed):
    """One chain: its companies, stores, lanes, articles, plans and consents.

    `tenders`: by what a customer may pay, anywhere in the chain and at one price: no key gives a tender a price of its
    own. A lane that looks at faces must offer one that is no face, with no more taps, or the chain does not load.
    """

    chain: Slug
    language: Annotated[str, Field(pattern="^(zh|en)$")] = "zh"
    entities: tuple[EntityDoc, ...]
    plans: tuple[Slug, ...]
    consents: tuple[ConsentDoc, ...]
    items: tuple[ItemDoc, ...]
    stores: tuple[StoreDoc, ...]
    zone: str
    cutoff_hour: Annotated[int, Field(ge=0, le=23)]
    lanes: tuple[LaneDoc, ...]
    tenders: tuple[TenderKind, ...] = tuple(TenderKind)
    age_check_to_enrol: bool = False
    """A clerk must have confirmed the customer's age before a face is enrolled."""
    faces: FacesDoc = FacesDoc()
    vouchers: tuple[dict[str, Any], ...] = ()
    """Definitions as models.domain.voucher_reader reads them."""
    codes: tuple[dict[str, Any], ...] = ()
    """What the chain's scales print, as models.domain.barcode reads it."""
    points: dict[str, Any] | None = None
    """Loyalty points, as models.domain.points reads them; `owner` is one of the entities."""
    taxes: dict[str, int] = {}
    """Tax rates of its own, in basis points by code."""

    def book_parts(self) -> dict[str, Any]:
        """What goes into the book as it stands here."""
        return {"codes": list(self.codes), "points": self.points, "taxes": self.taxes}

    def points_policy(self) -> PointsPolicy | None:
        """How points are earned; None: the chain gives none."""
        return None if self.points is None else read_policy(self.points)

    @model_validator(mode="after")
    def _codes_points_and_taxes(self) -> ChainDoc:
        read_layouts(self.codes)
        rates = read_taxes(self.taxes)
        policy = self.points_policy()
        if policy is not None and policy.owner not in {entity.id for entity in self.entities}:
            raise ValueError(f"points are owed by {policy.owner!r}, which is no company here")
        if policy is not None and any(str(one.get("id")) == POINTS for one in self.vouchers):
            raise ValueError(f"a voucher cannot have the id {POINTS!r}: that is what points are paid by")
        for item in self.items:
            if item.tax and item.tax not in rates:
                raise ValueError(f"item {item.code!r}: no tax code {item.tax!r}; known: {', '.join(sorted(rates))}")
        return self

    @model_validator(mode="after")
    def _vouchers_can_be_applied(self) -> ChainDoc:
        funders = {entity.id for entity in self.entities}
        for voucher in read_vouchers(self.vouchers, self.zone).values():
            if voucher.funder not in funders:
                raise ValueError(f"voucher {voucher.id!r} is funded by {voucher.funder!r}, which is no company here")
        return self

    @model_validator(mode="after")
    def _pays_without_face(self) -> ChainDoc:
        for lane in self.lanes:
            families = [profile_of(terminal.profile) for terminal in lane.terminals]
            if any(family.has_camera for family in families) and not ways_without_face(families, self.tenders):
                said = ", ".join(self.tenders) or "nothing"
                raise ValueError(
                    f"lane {lane.lane!r} looks at faces, and {said} leaves no way to pay there without one;"
                    " add qr, code, cash or card to tenders, and a terminal that takes it to the lane"
                )
        return self

    @model_validator(mode="after")
    def _memberships_can_be_guaranteed(self) -> ChainDoc:
        elsewhere = {entity.id for entity in self.entities if PROVIDERS[0] not in entity.accounts}
        for plan in self.plans if elsewhere else ():
            owner = read_plan_document(plan).get("owner_entity")
            if owner in elsewhere:
                raise ValueError(f"plan {plan!r}: its owner {owner!r} needs an account at {PROVIDERS[0]}, too")
        return self

    @model_validator(mode="after")
    def _each_store_once(self) -> ChainDoc:
        ids = [store.id for store in self.stores]
        if len(set(ids)) < len(ids):
            raise ValueError(f"store {next(one for one in ids if ids.count(one) > 1)!r} is there twice")
        return self

    def of_region(self, region: str) -> ChainDoc:
        """The same with this region's stores alone: those that name it, and those that name none."""
        stores = tuple(store for store in self.stores if store.region in {None, region})
        return self.model_copy(update={"stores": stores})

    def without_stores(self) -> ChainDoc:
        """What is the chain's everywhere."""
        return self.model_copy(update={"stores": ()})


@dataclass(frozen=True, slots=True)
class DemoTerminal:
    """A terminal that the demonstration plays, with its secret."""

    terminal: TerminalId
    store: StoreId
    lane: str
    role: str
    profile: str
    secret: str


def read_chain(path: Path) -> ChainDoc:
    """The chain that a file describes. Raises NeedsOperator naming the file and the first wrong entry."""
    try:
        return ChainDoc.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise NeedsOperator("chain_unreadable", f"{path}: {error}", "check the file") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise NeedsOperator("chain_wrong", f"{path}: {where}: {first['msg']}", "mend that entry") from error


def read_plan_document(plan: str) -> dict[str, Any]:
    """The plan's document from configs/plans."""
    path = CONFIGS / "plans" / f"{plan}.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def provider_app_of(entity: str) -> str:
    """The merchant app id of a legal entity with the provider."""
    return f"storeops-{entity}"


def demo_secret(key: str, terminal: str) -> str:
    """A demonstration terminal's secret: derived, so that the player needs no list of secrets."""
    return hmac.new(key.encode(), terminal.encode(), hashlib.sha256).hexdigest()


def terminals_of(chain: ChainDoc, key: str) -> list[DemoTerminal]:
    """All terminals of the file, with their derived secrets."""
    return [
        DemoTerminal(
            TerminalId(f"{store.id}-{terminal.suffix}"),
            StoreId(store.id),
            lane.lane,
            terminal.role,
            terminal.profile,
            demo_secret(key, f"{store.id}-{terminal.suffix}"),
        )
        for store in chain.stores
        for lane in chain.lanes
        for terminal in lane.terminals
    ]


def secret_sha256(secret: str) -> str:
    """How the registry keeps a terminal's 256-bit secret."""
    return hashlib.sha256(secret.encode()).hexdigest()
