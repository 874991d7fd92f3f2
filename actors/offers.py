"""What a customer may take: a voucher by its code, an offer from the screen."""

from __future__ import annotations

from typing import NoReturn

from actors.stage import Stage
from models.domain.errors import Refused
from models.domain.events import Claim
from models.domain.screen import ScreenState


def voucher(stage: Stage) -> NoReturn:
    """A voucher's code: no book of this release has vouchers, so each is unknown. Always raises Refused."""
    _may_take(stage)
    raise Refused("unknown_voucher")


def claim(stage: Stage, body: Claim) -> NoReturn:
    """An offer on the screen is a plan, and a plan is entered by `enrol`; anything else is not offered.

    Always raises Refused: coupons are not among the offers of this release.
    """
    _may_take(stage)
    raise Refused("not_claimable" if body.offer in stage.book.chain_book.plans else "unknown_offer")


def _may_take(stage: Stage) -> None:
    if stage.session.busy:
        raise Refused("lane_busy")
    if stage.session.state is ScreenState.PAID:
        raise Refused("not_now")
