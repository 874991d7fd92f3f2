"""A store's frozen prices, plans, texts and policy. Its version is pinned when a session opens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from models.domain.barcode import InStoreLayout
from models.domain.calendar import business_date
from models.domain.chain_settings import DEFAULT_SETTINGS, StoreSettings
from models.domain.events import Purpose, TenderKind
from models.domain.ids import ChainId, LegalEntityId, PlanId, RegionId, StoreId
from models.domain.kill_switch import Switch
from models.domain.liveness import PLAIN, LivenessPolicy
from models.domain.plans import Plan
from models.domain.points import PointsPolicy
from models.domain.pricing import Item
from models.domain.privacy import COVERED_BY_DEFAULT, FaceUse
from models.domain.taxes import DEFAULT_TAXES
from models.domain.vouchers import Voucher


@dataclass(frozen=True, slots=True)
class ConsentText:
    """One consent as it is shown: a session's consent names this version."""

    purpose: Purpose
    version: str
    zh: str
    en: str
    covers: tuple[FaceUse, ...] = COVERED_BY_DEFAULT
    """Of a text to recognise: the uses of a face that it permits (models.domain.privacy.permits)."""


@dataclass(frozen=True, slots=True)
class ChainBook:
    """What all stores of a chain share: items by code, plans by id, consent texts."""

    chain: ChainId
    version: int
    items: Mapping[str, Item]
    plans: Mapping[PlanId, Plan]
    consents: tuple[ConsentText, ...]
    language: str = "zh"
    shots_to_enrol: int = 3
    """Mean of three shots lifts the weakest mates from 0.499 to 0.625 (faces: accuracy)."""
    tenders: frozenset[TenderKind] = frozenset(TenderKind)
    """By what a customer may pay, at one price."""
    age_check_to_enrol: bool = False
    """A clerk must have looked at the customer's age before a face may be enrolled."""
    liveness: LivenessPolicy = PLAIN
    vouchers: Mapping[str, Voucher] = field(default_factory=dict)
    """By their code in capitals (models.domain.voucher_reader.code_key)."""
    codes: tuple[InStoreLayout, ...] = ()
    """What the chain's own scales print."""
    points: PointsPolicy | None = None
    """The brand's loyalty points, where it gives any."""
    taxes: Mapping[str, int] = field(default_factory=lambda: DEFAULT_TAXES)
    """Tax rates by their code, in basis points."""

    def voucher(self, voucher_id: str) -> Voucher | None:
        """The voucher of that id, or None when the book has none."""
        return next((voucher for voucher in self.vouchers.values() if voucher.id == voucher_id), None)


@dataclass(frozen=True, slots=True)
class StoreBook:
    """The chain's book as one store uses it."""

    chain_book: ChainBook
    store: StoreId
    region: RegionId
    entity: LegalEntityId
    zone: str
    cutoff_hour: int
    basket_owner: str
    owners: tuple[tuple[str, LegalEntityId], ...] = ()
    """Legal entities with the business dates from which they own the store, ascending; empty: `entity`, for ever."""
    off: tuple[Switch, ...] = ()
    """What kill switches or the configuration stopped here, as of now: no version of the book pins it."""
    settings: StoreSettings = DEFAULT_SETTINGS
    """The effective configuration, as of now likewise."""
    gen: int = 0
    """How often a rollout changed something for the whole store."""

    @property
    def version(self) -> int:
        """The chain book's version."""
        return self.chain_book.version

    @property
    def language(self) -> str:
        """The terminals' language, "zh" or "en"."""
        return self.settings.language or self.chain_book.language

    def business_date(self, now: datetime) -> str:
        """The store's business date at `now`, ISO 8601."""
        return business_date(now, self.zone, self.cutoff_hour).isoformat()

    def entity_at(self, moment: datetime) -> LegalEntityId:
        """Whose store it is on the business date of `moment`: stores change hands."""
        owner = self.entity
        day = self.business_date(moment) if self.owners else ""
        for n, (from_date, entity) in enumerate(self.owners):
            if n == 0 or from_date <= day:
                owner = entity
        return owner

    def consent_text(self, purpose: Purpose) -> ConsentText | None:
        """The text in force for a purpose."""
        return next((text for text in self.chain_book.consents if text.purpose == purpose), None)
