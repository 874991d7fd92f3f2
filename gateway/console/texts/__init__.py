"""The catalogue: every text a page shows, by id, Chinese and English side by side and of equal rank."""

from __future__ import annotations

from gateway.console.texts.counter import COUNTER
from gateway.console.texts.drawers import DRAWERS
from gateway.console.texts.faces import FACES
from gateway.console.texts.kill_switches import KILL_SWITCHES
from gateway.console.texts.ledger import LEDGER
from gateway.console.texts.member_money import MEMBER_MONEY
from gateway.console.texts.memberships import MEMBERSHIPS
from gateway.console.texts.pages import PAGES
from gateway.console.texts.papers import PAPERS
from gateway.console.texts.plans import PLANS
from gateway.console.texts.privacy import PRIVACY
from gateway.console.texts.reconciliation import RECONCILIATION
from gateway.console.texts.rollouts import ROLLOUTS
from gateway.console.texts.settlement import SETTLEMENT
from gateway.console.texts.shell import SHELL
from gateway.console.texts.states import STATES
from gateway.console.texts.twins import TWINS

TEXTS: dict[str, tuple[str, str]] = {
    **SHELL,
    **PAGES,
    **PLANS,
    **STATES,
    **COUNTER,
    **TWINS,
    **FACES,
    **PRIVACY,
    **RECONCILIATION,
    **SETTLEMENT,
    **MEMBERSHIPS,
    **MEMBER_MONEY,
    **LEDGER,
    **DRAWERS,
    **KILL_SWITCHES,
    **PAPERS,
    **ROLLOUTS,
}
"""id -> (zh, en)"""
