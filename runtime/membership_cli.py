"""`storeops membership …`: what may be done with a light membership besides using it.

Every verb says first what it would do, in fen, and asks; `--yes` does it without asking, `--dry` never does it.
"""

from __future__ import annotations

import asyncio
import getpass
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from models.domain.errors import Refused
from models.domain.events import ProviderAuth
from models.domain.membership_actions import Asked, Done
from models.domain.money import format_yuan
from runtime.terminal_verbs import AsJson, Data, Demo, _print, err

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.membership_desk import MembershipsOfAHouse
    from runtime.membership_life import Shown

membership_app = typer.Typer(
    no_args_is_help=True, help="Light memberships: show, cancel, change, renew, suspend, resume, holds that lapse."
)

Membership = Annotated[str, typer.Argument(help="A membership's id, as the console shows it.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]
Dry = Annotated[bool, typer.Option("--dry", help="Say what it would do; do nothing.")]
Number = Annotated[
    str | None, typer.Option("--number", help="A request number of your own: repeated, it has one effect.")
]
AuthCode = Annotated[
    str | None,
    typer.Option("--auth-code", help="The member's payment code, for the new hold; without it a code to scan comes."),
]
T = TypeVar("T")


def _with_desk(data: Path | None, demo: bool, work: Callable[[MembershipsOfAHouse], Awaitable[T]]) -> T:
    from runtime import administration
    from runtime.membership_desk import opened

    plants = administration.running_all(data, demo)

    async def run() -> T:
        async with opened(plants) as desk:
            return await work(desk)

    return asyncio.run(run())


def _act(
    membership: str,
    asked: Asked,
    data: Path | None,
    demo: bool,
    *,
    as_json: bool,
    yes: bool,
    dry: bool,
    number: str | None,
    auth_code: str | None = None,
) -> None:
    """Say what it would do, ask, do it. With `--json` a dry answer has `done` false."""
    if as_json and not (yes or dry):
        raise Refused("confirm", "nobody can be asked when the answer is JSON", "add --yes, or --dry to look only")
    request = f"cli:{number or uuid.uuid4()}"
    if dry or not _with_desk(data, demo, lambda desk: desk.known(request, membership)):
        told = _with_desk(data, demo, lambda desk: desk.foresee(membership, asked))
        if not as_json:
            typer.echo(_sentence(told))
        if dry or not (yes or typer.confirm("确认执行？ Do it?", err=True)):
            if as_json:
                _print({"membership": membership, "verb": asked.verb, "done": False, "told": told}, True, "")
            return
    auth = ProviderAuth("alipay", auth_code) if auth_code else None

    async def do(desk: MembershipsOfAHouse) -> Done:
        return await desk.do(request, membership, asked, by=f"cli:{getpass.getuser()}", auth=auth)

    with err.status("doing it"):
        done = _with_desk(data, demo, do)
    text = f"{membership}: {done.state}"
    if done.state == "pending":
        text += f"; the member scans {done.code_text}" if done.code_text else "; the member confirms on the phone"
    _print({**asdict(done), "done": done.state == "done"}, as_json, text)


def _sentence(told: Mapping[str, Any]) -> str:
    return f"{told['zh']}\n{told['en']}"


@membership_app.command()
def show(membership: Membership, data: Data = None, demo: Demo = False, as_json: AsJson = False) -> None:
    """How a membership stands: what it would cost now, its hold, its task, and what was asked of it."""
    shown = _with_desk(data, demo, lambda desk: desk.show(membership))
    document = _document(shown)
    requests = document.pop("requests")
    lines = [f"{name:<16} {value}" for name, value in document.items() if value not in ("", None)]
    lines += [f"  {one['made_at']}  {one['verb']:<8} {one['state']:<10} {one['by']} {one['code']}" for one in requests]
    _print({**document, "requests": requests}, as_json, "\n".join(lines))


def _document(shown: Shown) -> dict[str, Any]:
    m = shown.standing
    return {
        "membership": m.id,
        "member": m.member,
        "plan": f"{m.plan.id} {m.plan.version}",
        "rule": m.plan.rule.value,
        "state": m.state.value,
        "generation": m.generation,
        "cycle": m.cycle,
        "guarantee": m.guarantee,
        "hold": f"{m.hold_state.value} {format_yuan(m.hold_fen)}",
        "enrolled_at": m.enrolled_at.isoformat(),
        "expires_at": m.expires_at.isoformat(),
        "cutoff_at": m.cutoff_at.isoformat(),
        "renews": m.renews,
        "fee_fen": m.fee_fen,
        "fee_eff_fen": m.fee_eff_fen,
        "used_fen": m.used_fen,
        "task": "" if m.task_target is None else f"{m.task_done} of {m.task_target}",
        "due_fen": m.preview_fen if m.charge_fen is None else m.due_fen,
        "charge_fen": m.charge_fen,
        "paid_fen": m.paid_fen,
        "receivable_fen": m.receivable_fen,
        "given_up_fen": shown.given_up.fen,
        "requests": [
            {
                "number": one.number,
                "verb": one.asked.get("verb", ""),
                "state": one.state,
                "code": one.code,
                "by": one.by,
                "made_at": one.made_at.isoformat(),
                "code_text": one.code_text,
            }
            for one in shown.requests
        ],
    }


@membership_app.command()
def cancel(
    membership: Membership,
    by: Annotated[str, typer.Option("--by", help="member, or merchant: then the plan says what the fee becomes.")],
    number: Number = None,
    yes: Yes = False,
    dry: Dry = False,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """End a membership now. It is settled after its grace days."""
    _act(membership, Asked("cancel", by), data, demo, as_json=as_json, yes=yes, dry=dry, number=number)


@membership_app.command()
def change(
    membership: Membership,
    plan: Annotated[str, typer.Option("--plan", help="The plan to change to; its newest version.")],
    guarantee: Annotated[str, typer.Option("--guarantee", help="Another guarantee than now.")] = "",
    auth_code: AuthCode = None,
    number: Number = None,
    yes: Yes = False,
    dry: Dry = False,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Upgrade or downgrade: the new hold is frozen first, then the old one goes back."""
    asked = Asked("change", plan=plan, guarantee=guarantee)
    _act(membership, asked, data, demo, as_json=as_json, yes=yes, dry=dry, number=number, auth_code=auth_code)


@membership_app.command()
def renew(
    membership: Membership,
    off: Annotated[bool, typer.Option("--off", help="It ends with this period after all.")] = False,
    number: Number = None,
    yes: Yes = False,
    dry: Dry = False,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Open the next generation, with its own hold, when this one is settled."""
    _act(membership, Asked("renew", on=not off), data, demo, as_json=as_json, yes=yes, dry=dry, number=number)


@membership_app.command()
def suspend(
    membership: Membership,
    number: Number = None,
    yes: Yes = False,
    dry: Dry = False,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Stop new online uses; what is offline already still counts."""
    _act(membership, Asked("suspend"), data, demo, as_json=as_json, yes=yes, dry=dry, number=number)


@membership_app.command()
def resume(
    membership: Membership,
    number: Number = None,
    yes: Yes = False,
    dry: Dry = False,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Let a suspended membership be used again."""
    _act(membership, Asked("resume"), data, demo, as_json=as_json, yes=yes, dry=dry, number=number)


@membership_app.command()
def lapse(
    membership: Membership,
    number: Number = None,
    yes: Yes = False,
    dry: Dry = False,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """The provider let the hold end by itself: note it, so that it can be frozen again."""
    _act(membership, Asked("lapse"), data, demo, as_json=as_json, yes=yes, dry=dry, number=number)


@membership_app.command()
def freeze(
    membership: Membership,
    auth_code: AuthCode = None,
    number: Number = None,
    yes: Yes = False,
    dry: Dry = False,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """A new hold in place of one that lapsed."""
    _act(membership, Asked("freeze"), data, demo, as_json=as_json, yes=yes, dry=dry, number=number, auth_code=auth_code)
