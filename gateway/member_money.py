"""What the console and the API ask of the desk of members' own means of payment, which the runtime implements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from models.domain.member_balance import BalanceMove, BalanceStatement, CounterMove, MoveKind
from models.tables.member_money import Agreement


class MemberMoneyDesk(Protocol):
    """Raises Refused with the rule's code (`balance_short`, `unknown_member`, `number_reused`, …); RetryLater."""

    async def balance(self, member: str) -> BalanceStatement:
        """What the member has with us, and its newest moves."""

    async def move(self, kind: MoveKind, asked: CounterMove) -> BalanceMove:
        """Top up or pay out, once under its number."""

    async def agreements(self, member: str) -> Sequence[Agreement]:
        """Withholding agreements, the newest first."""

    async def sign(
        self, request: str, member: str, *, by: str, entity: str = "", payment_fen_max: int = 0, day_fen_max: int = 0
    ) -> Agreement:
        """Ask the member for an agreement: `code_text` is what they scan. A limit of 0 is the usual one."""

    async def look(self, member: str, number: str) -> Agreement:
        """Ask the provider what became of a signing."""

    async def unsign(self, member: str, number: str, *, by: str) -> Agreement:
        """End an agreement."""
