"""Who holds a membership's fee and collects its charge: a provider's account, or the member's own money with us."""

from __future__ import annotations

from typing import Protocol

from gateway.providers.port import PaymentProvider
from models.domain.ids import LegalEntityId
from models.domain.member_balance import BALANCE
from models.domain.payments import PROVIDERS, Answer, PayResult, RefundResult, ReleaseResult
from runtime.clock import Pool, Wall
from runtime.held_balances import HeldBalances
from runtime.plant import ProviderOf


class Holder(Protocol):
    """What settlement asks of whoever holds a fee; the promises are those of gateway.providers.port."""

    async def capture(
        self, *, number: str, hold_no: str, amount_fen: int, subject: str, complete: bool = True
    ) -> Answer[PayResult]: ...

    async def query_payment(self, *, number: str, amount_fen: int) -> Answer[PayResult]: ...

    async def unfreeze(self, *, number: str, hold_no: str, amount_fen: int, remark: str) -> Answer[ReleaseResult]: ...

    async def query_unfreeze(self, *, number: str, hold_no: str, amount_fen: int) -> Answer[ReleaseResult]: ...

    async def refund(
        self, *, number: str, payment_number: str, amount_fen: int, reason: str
    ) -> Answer[RefundResult]: ...

    async def query_refund(self, *, number: str, payment_number: str, amount_fen: int) -> Answer[RefundResult]: ...


class Holders:
    """Finds them by a membership's legal entity and its `provider`."""

    def __init__(self, pool: Pool, providers: ProviderOf, *, wall: Wall) -> None:
        self._providers = providers
        self._own = HeldBalances(pool, wall)

    def of(self, entity: LegalEntityId, provider: str) -> Holder:
        """Whoever holds. Raises KeyError where the entity has no account there."""
        return self._own if provider == BALANCE else self.account(entity, provider)

    def account(self, entity: LegalEntityId, provider: str = PROVIDERS[0]) -> PaymentProvider:
        """The entity's account at a provider. Raises KeyError when it has none."""
        return self._providers(entity, provider)

    def has(self, entity: LegalEntityId, provider: str) -> bool:
        """Whether somebody there can hold for this entity."""
        try:
            self.of(entity, provider)
        except KeyError:
            return False
        return True
