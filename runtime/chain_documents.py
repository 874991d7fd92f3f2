"""What may stand in a chain's file: companies, stores, lanes, articles, plans, consents, settings."""

from __future__ import annotations

from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from devices.profiles import profile_of, require_role, ways_without_face
from models.domain.barcode import read_layouts
from models.domain.device_score import SignedScores
from models.domain.errors import Refused
from models.domain.events import TenderKind
from models.domain.liveness import PLAIN, ChallengeMode, LivenessPolicy
from models.domain.payments import PROVIDERS
from models.domain.points import POINTS, PointsPolicy, read_policy
from models.domain.privacy import COVERED_BY_DEFAULT, FaceUse
from models.domain.taxes import read_taxes
from models.domain.voucher_reader import read_vouchers
from runtime.settings import CONFIGS

LABELS_MAX = 16
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
    """A store and who owns it. `region` is needed where a chain's file serves several.

    `labels`: what rollouts select by. `settings`, and `terminals` by suffix: what is set here and not above.
    `families`: terminals by suffix that are of another family than the lane says.
    """

    id: Slug
    name: Name
    entity: Slug
    region: Slug | None = None
    basket_owner: Annotated[str, Field(pattern="^(pos|storeops|none)$")] = "storeops"
    placement: Annotated[str, Field(pattern="^(shared|dedicated)$")] = "shared"
    labels: Annotated[dict[Slug, Slug], Field(max_length=LABELS_MAX)] = {}
    families: dict[Slug, Slug] = {}
    settings: dict[str, Any] = {}
    terminals: dict[Slug, dict[str, Any]] = {}


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
    signed: SignedScores = PLAIN.signed
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
    settings: dict[str, Any] = {}
    """What models.domain.chain_settings lists, for the whole chain."""
    regions: dict[Slug, dict[str, Any]] = {}
    """The same for a region, by its name."""
    places: dict[str, str] = Field(default={}, repr=False)
    """Where each setting was written: `level:scope/path` -> file:line. Filled by the reader."""

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
    def _families_play_their_roles(self) -> ChainDoc:
        roles = {terminal.suffix: terminal.role for lane in self.lanes for terminal in lane.terminals}
        for store in self.stores:
            for suffix in (*store.families, *store.terminals):
                if suffix not in roles:
                    raise ValueError(f"store {store.id!r} has no terminal {suffix!r}; one of {', '.join(roles)}")
            for suffix, family in store.families.items():
                try:
                    require_role(profile_of(family), roles[suffix])
                except Refused as refusal:
                    raise ValueError(f"store {store.id!r}: {refusal.message}; {refusal.do}") from None
        return self

    @model_validator(mode="after")
    def _pays_without_face(self) -> ChainDoc:
        others = {tuple(sorted(store.families.items())) for store in self.stores} | {()}
        for lane, other in ((lane, dict(other)) for lane in self.lanes for other in others):
            families = [profile_of(other.get(terminal.suffix, terminal.profile)) for terminal in lane.terminals]
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
            twice = next(one for n, one in enumerate(ids) if one in set(ids[:n]))
            raise ValueError(f"store {twice!r} is there twice")
        return self

    def of_region(self, region: str) -> ChainDoc:
        """The same with this region's stores alone: those that name it, and those that name none."""
        stores = tuple(store for store in self.stores if store.region in {None, region})
        return self.model_copy(update={"stores": stores})

    def without_stores(self) -> ChainDoc:
        """What is the chain's everywhere."""
        return self.model_copy(update={"stores": (), "places": {}})

    def family(self, store: StoreDoc, terminal: TerminalDoc) -> str:
        """The family of a store's terminal."""
        return store.families.get(terminal.suffix, terminal.profile)


def read_plan_document(plan: str) -> dict[str, Any]:
    """The plan's document from configs/plans."""
    path = CONFIGS / "plans" / f"{plan}.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document
