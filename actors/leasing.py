"""Before a terminal goes offline: so many uses of the member's benefit are kept for it, and given back afterwards.

A lease is told in the reply and nowhere else. A terminal that was told `pending` never learns of it, so a lease
that is granted after that is given back at once.
"""

from __future__ import annotations

from actors.ports import EndLease, GrantLease
from actors.stage import Stage
from actors.visit import Leasing
from models.domain.errors import Refused
from models.domain.events import Event, Lease, LeaseEnd
from models.domain.ids import SessionId
from models.domain.kill_switch import Switch
from models.domain.messages import LeaseEnded, LeaseGranted

LEASINGS_OPEN_MAX = 8
"""Questions about leases that one lane may have open."""


def lease(stage: Stage, event: Event, body: Lease) -> None:
    """Ask for uses of a benefit of the member who stands here."""
    session = stage.session
    view = session.member.membership if session.member is not None else None
    if view is None:
        raise Refused("no_membership")
    if Switch.BENEFITS in session.off:
        raise Refused("benefits_off")
    left = next((benefit.uses_left for benefit in view.benefits if benefit.benefit == body.benefit), 0)
    if body.uses > left:
        raise Refused("benefit_gone")
    assert session.id is not None
    _may_ask(stage)
    ask = stage.ask(
        GrantLease(session.id, stage.book.store, event.terminal, view.id, body.benefit, body.uses, stage.now)
    )
    _wait(stage, ask, event)


def lease_end(stage: Stage, event: Event, body: LeaseEnd) -> None:
    """Give back what was not used; nobody needs to stand at the lane."""
    _may_ask(stage)
    session = stage.session.id or SessionId("")
    ask = stage.ask(EndLease(session, stage.book.store, body.lease, stage.now))
    _wait(stage, ask, event)


def _may_ask(stage: Stage) -> None:
    if len(stage.session.leasing) >= LEASINGS_OPEN_MAX:
        raise Refused("question_open")


def _wait(stage: Stage, ask: str, event: Event) -> None:
    stage.keep(leasing=(*stage.session.leasing, Leasing(ask, stage.later(event))))


def granted(stage: Stage, answer: LeaseGranted) -> None:
    """The uses are kept: say so in the reply, or give them back when the terminal cannot hear of it any more."""
    waiting = _taken(stage, answer.ask)
    if waiting is None:
        return
    session = stage.session
    if answer.lease is None:
        stage.refuse(waiting.reply, answer.code or "benefit_gone")
    elif waiting.reply is None:
        stage.ask(EndLease(answer.session, stage.book.store, answer.lease.id, stage.now))
    else:
        stage.reply(waiting.reply, lease=answer.lease)
    same = session.id == answer.session and session.live and session.member is not None
    if same and answer.member is not None and session.payment is None and session.member != answer.member:
        stage.change(member=answer.member)


def ended(stage: Stage, answer: LeaseEnded) -> None:
    """What was left is free again."""
    waiting = _taken(stage, answer.ask)
    if waiting is None:
        return
    if answer.code:
        stage.refuse(waiting.reply, answer.code)
    else:
        stage.reply(waiting.reply)


def answer_late(stage: Stage, waiting: Leasing) -> None:
    """Ten seconds are over: told `pending`. A lease that comes now is not used."""
    stage.reply(waiting.reply, pending=True)
    kept = tuple(Leasing(one.ask, None) if one is waiting else one for one in stage.session.leasing)
    stage.keep(leasing=kept)


def _taken(stage: Stage, ask: str) -> Leasing | None:
    waiting = next((one for one in stage.session.leasing if one.ask == ask), None)
    if waiting is not None:
        stage.keep(leasing=tuple(one for one in stage.session.leasing if one is not waiting))
    return waiting
