"""`storeops explain`: what the console and the API say of a charge, for a person's terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.queries import members
from gateway.views import ExplanationView
from models.domain.errors import Refused
from models.domain.money import format_yuan
from runtime.plant import Plant
from runtime.postgres import sqlalchemy_url


async def explain_anywhere(plants: Sequence[Plant], membership: str) -> ExplanationView:
    """The explanation, from whichever region has the membership. Raises Refused `unknown_membership`."""
    for url in dict.fromkeys(plant.database_url for plant in plants):
        engine = create_async_engine(sqlalchemy_url(url))
        try:
            async with AsyncSession(engine) as session:
                found = await members.explain(session, membership)
        finally:
            await engine.dispose()
        if found is not None:
            return found
    raise Refused("unknown_membership", f"there is no membership {membership!r}", "take its id from the members page")


def sentences(found: ExplanationView) -> list[str]:
    """The sentence and the counterfactual, in both languages."""
    return [found.sentence.zh, found.sentence.en, found.without_membership.zh, found.without_membership.en]


def usage_table(found: ExplanationView) -> Table:
    """The uses that the charge follows from, and their sum. A receipt's number is never cut: it is looked for next."""
    table = Table(
        title=f"{found.membership.id} · {found.membership.plan} · {found.membership.state}",
        title_justify="left",
        show_footer=True,
        box=SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    table.add_column("when", footer="u", max_width=10)
    table.add_column("benefit, class", overflow="fold")
    table.add_column("receipt", overflow="fold")
    table.add_column("given", justify="right")
    table.add_column("counts", justify="right", footer=format_yuan(found.membership.used_fen))
    for use in found.usage:
        table.add_row(
            f"{use.at:%Y-%m-%d %H:%M}",
            f"{use.benefit}\n{use.use_class}",
            use.receipt or use.store,
            format_yuan(use.fen - use.reversed_fen),
            format_yuan(use.counts_fen),
        )
    return table
