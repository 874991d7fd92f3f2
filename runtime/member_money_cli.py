"""`storeops balance …` and `storeops agreement …`: what a member pays with that is their own."""

from __future__ import annotations

import asyncio
import getpass
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from models.domain.member_balance import BalanceMove, CounterMove, MoneyWay, MoveKind
from models.domain.money import format_yuan
from runtime.terminal_verbs import AsJson, Data, Demo, _print, err, whole_fen

if TYPE_CHECKING:
    from pathlib import Path

    from models.tables.member_money import Agreement
    from runtime.member_money_desk import MemberMoneyOfAHouse

balance_app = typer.Typer(no_args_is_help=True, help="A member's stored value: top up, show, pay out.")
agreement_app = typer.Typer(no_args_is_help=True, help="A member's withholding agreements: sign, show, unsign.")

Member = Annotated[str, typer.Argument(help="A member's id, as the console shows it.")]
Fen = Annotated[int, typer.Option("--fen", parser=whole_fen, metavar="FEN", help="Integer fen.")]
OneFen = Annotated[
    int, typer.Option("--payment-fen", parser=whole_fen, metavar="FEN", help="The most of one payment; 0: 200 yuan.")
]
DayFen = Annotated[
    int, typer.Option("--day-fen", parser=whole_fen, metavar="FEN", help="The most of one business day; 0: 500 yuan.")
]
Store = Annotated[str, typer.Option("--store", help="Where the money is taken or given.")]
Drawer = Annotated[str, typer.Option("--drawer", help="The lane whose cash, or card slip, it is.")]
Way = Annotated[MoneyWay, typer.Option("--by", help="cash or card.")]
Number = Annotated[
    str | None, typer.Option("--number", help="A request number of your own: repeated, it has one effect.")
]
T = TypeVar("T")


def _with_desk(data: Path | None, demo: bool, work: Callable[[MemberMoneyOfAHouse], Awaitable[T]]) -> T:
    from runtime import administration
    from runtime.member_money_desk import opened

    plants = administration.running_all(data, demo)

    async def run() -> T:
        async with opened(plants) as desk:
            return await work(desk)

    with err.status("asking"):
        return asyncio.run(run())


def _request(number: str | None) -> str:
    return f"cli:{number or uuid.uuid4()}"


def _who() -> str:
    return f"cli:{getpass.getuser()}"


@balance_app.command()
def show(member: Member, data: Data = None, demo: Demo = False, as_json: AsJson = False) -> None:
    """What a member has with us, and the newest moves."""
    found = _with_desk(data, demo, lambda desk: desk.balance(member))
    lines = [f"{member}: {format_yuan(found.fen)}"] + [_line(move) for move in found.moves]
    document = {"member": member, "fen": found.fen, "owner": found.owner, "moves": [_move(one) for one in found.moves]}
    _print(document, as_json, "\n".join(lines))


@balance_app.command("top-up")
def top_up(
    member: Member,
    fen: Fen,
    store: Store,
    drawer: Drawer = "lane-1",
    way: Way = MoneyWay.CASH,
    number: Number = None,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Money in, against cash or a card."""
    _at_counter(
        MoveKind.TOP_UP, CounterMove(_request(number), member, fen, store, drawer, way, _who()), data, demo, as_json
    )


@balance_app.command("pay-out")
def pay_out(
    member: Member,
    fen: Fen,
    store: Store,
    drawer: Drawer = "lane-1",
    way: Way = MoneyWay.CASH,
    number: Number = None,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Money back to the member."""
    _at_counter(
        MoveKind.PAY_OUT, CounterMove(_request(number), member, fen, store, drawer, way, _who()), data, demo, as_json
    )


def _at_counter(kind: MoveKind, asked: CounterMove, data: Path | None, demo: bool, as_json: bool) -> None:
    done = _with_desk(data, demo, lambda desk: desk.move(kind, asked))
    _print(_move(done), as_json, _line(done))


def _move(move: BalanceMove) -> dict[str, Any]:
    return {**asdict(move), "kind": move.kind.value, "at": move.at.isoformat()}


def _line(move: BalanceMove) -> str:
    fen, left = format_yuan(move.fen), format_yuan(move.left_fen)
    return f"  {move.at.isoformat(timespec='seconds')}  {move.kind:<8} {fen:>10}  {left:>10}  {move.store} {move.by}"


@agreement_app.command()
def sign(
    member: Member,
    payment: OneFen = 0,
    day: DayFen = 0,
    entity: Annotated[str, typer.Option("--entity", help="Whose account; default: of the member's home store.")] = "",
    number: Number = None,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Ask a member for a withholding agreement: they scan the code and sign on their phone."""
    one = _with_desk(
        data,
        demo,
        lambda desk: desk.sign(
            _request(number), member, by=_who(), entity=entity, payment_fen_max=payment, day_fen_max=day
        ),
    )
    if not as_json and one.state == "signing" and one.code_text:
        import segno

        segno.make(one.code_text, error="l").terminal(compact=True)
    _print(document_of(one), as_json, _said(one))


@agreement_app.command("show")
def show_agreements(member: Member, data: Data = None, demo: Demo = False, as_json: AsJson = False) -> None:
    """A member's agreements, the newest first."""
    found = _with_desk(data, demo, lambda desk: desk.agreements(member))
    _print(
        {"agreements": [document_of(one) for one in found]}, as_json, "\n".join(_said(one) for one in found) or "none"
    )


@agreement_app.command()
def unsign(
    member: Member,
    agreement: Annotated[str, typer.Argument(help="Its number.")],
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """End an agreement: at the provider, then here."""
    one = _with_desk(data, demo, lambda desk: desk.unsign(member, agreement, by=_who()))
    _print(document_of(one), as_json, _said(one))


def document_of(one: Agreement) -> dict[str, Any]:
    """As the API answers it."""
    times = {name: at.isoformat() for name in ("asked_at", "signed_at", "ended_at") if (at := getattr(one, name))}
    return {**asdict(one), "signed_at": None, "ended_at": None, **times}


def _said(one: Agreement) -> str:
    limits = f"{format_yuan(one.payment_fen_max)} a payment, {format_yuan(one.day_fen_max)} a day"
    scan = f"\n  {one.code_text}" if one.state == "signing" else ""
    return f"{one.number}  {one.state:<8} {one.entity}  {limits}{scan}"
