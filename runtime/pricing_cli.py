"""`storeops pricing …`: what a basket would cost, by the till's own price function."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from models.domain.errors import Refused
from models.domain.money import format_yuan
from runtime.terminal_verbs import AsJson, Data, Demo, _print, whole_fen

if TYPE_CHECKING:
    from sqlmodel.ext.asyncio.session import AsyncSession

    from gateway.pricing_views import PreviewRequest
    from runtime.plant import Plant

pricing_app = typer.Typer(no_args_is_help=True, help="What a basket would cost.")

T = TypeVar("T")


@pricing_app.command()
def preview(
    store: Annotated[str, typer.Argument(help="Whose book, hours and channel count.")],
    line: Annotated[list[str], typer.Option("--line", help="CODE or CODE=PIECES; once for each line.")],
    voucher: Annotated[list[str] | None, typer.Option("--voucher", help="A voucher's code; more than once.")] = None,
    plan: Annotated[str, typer.Option("--plan", help="Priced for a member of this plan.")] = "",
    used: Annotated[
        int, typer.Option("--used", parser=whole_fen, metavar="FEN", help="Benefit used so far in the period, in fen.")
    ] = 0,
    data: Data = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Price a basket, with the why of each line and what was left out. Nothing is reserved or counted."""
    from gateway.pricing_preview import preview as price
    from gateway.queries import pricing
    from runtime import administration
    from runtime.clock import wall_now

    asked = _asked(store, line, voucher or [], plan, used)

    async def work(session: AsyncSession) -> str:
        row = await pricing.store_of(session, store)
        codes = [one.code for one in asked.lines]
        book = None if row is None else await pricing.newest_book(session, row.chain, codes, store)
        if row is None or book is None:
            raise Refused("unknown_store", f"there is no store {store!r} with a book", "see `storeops status`")
        return price(asked, book, row, wall_now()).model_dump_json()

    plants = administration.running_all(data, demo)
    plant = asyncio.run(administration.of_store(plants, store))
    _say(_with_session(plant, work), as_json)


def _asked(store: str, lines: list[str], vouchers: list[str], plan: str, used: int) -> PreviewRequest:
    from pydantic import ValidationError

    from gateway.pricing_views import PreviewLine, PreviewMembership, PreviewRequest

    try:
        made = [PreviewLine(code=code, quantity=int(pieces or "1")) for code, _, pieces in map(_parted, lines)]
        membership = PreviewMembership(plan=plan, used_fen=used) if plan else None
        return PreviewRequest(store=store, lines=made, vouchers=vouchers, membership=membership)
    except (ValueError, ValidationError) as error:
        raise Refused("line_invalid", f"{' '.join(lines)} is no basket", "--line CODE=PIECES, 1 to 99") from error


def _parted(line: str) -> tuple[str, str, str]:
    return line.partition("=")


def _with_session(plant: Plant, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlmodel.ext.asyncio.session import AsyncSession

    from runtime.postgres import sqlalchemy_url

    async def run() -> T:
        engine = create_async_engine(sqlalchemy_url(plant.database_url))
        try:
            async with AsyncSession(engine) as session:
                return await work(session)
        finally:
            await engine.dispose()

    return asyncio.run(run())


def _say(document: str, as_json: bool) -> None:
    import json

    answer = json.loads(document)
    said = [
        f"{one['name']['zh']} {one['name']['en']} x{one['quantity']}: {format_yuan(one['net_fen'])}"
        + (f"  (-{format_yuan(one['discount_fen'])}: {one['why']['en']})" if one["why"] else "")
        for one in answer["lines"]
    ]
    said += [f"left out: {one['code']}: {one['why']['en']}" for one in answer["not_taken"]]
    later = f", {format_yuan(answer['later_fen'])} more is charged later" if answer["later_fen"] else ""
    said.append(f"due {format_yuan(answer['due_fen'])} of {format_yuan(answer['gross_fen'])}{later}")
    _print(answer, as_json, "\n".join(said))
