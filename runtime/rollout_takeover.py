"""One rollout takes over from another in one commit of the home database: a kill leaves both, or neither, as it was."""

from __future__ import annotations

from datetime import datetime

from actors.rollout_effects import Journal, RolloutTurn
from actors.rollout_takeover import take_over
from models.domain.errors import RetryLater
from models.domain.ids import TerminalId
from models.domain.rollout import PersonId, RolloutId
from models.tables import rollouts as table
from models.tables.privacy import audit
from runtime.rollout_books import settle
from runtime.rollout_conflicts import require_free
from runtime.rollout_databases import Databases


class _MovedError(Exception):
    """Somebody wrote in between: both stay as they are."""


async def taken_over(
    databases: Databases, old: RolloutId, new: RolloutId, by: PersonId, now: datetime
) -> RolloutTurn | None:
    """The new one's turn; None: one of them moved meanwhile, and nothing was done."""
    sites, away = await databases.sites(databases.chain)
    if away:
        raise RetryLater("region_away", f"the database of {', '.join(away)} does not answer", "ask when it is back")
    in_service = {TerminalId(one.terminal) for site in sites for one in site.terminals}
    try:
        return await _taken_over(databases, old, new, by, in_service, now)
    except _MovedError:
        return None


async def _taken_over(
    databases: Databases, old: RolloutId, new: RolloutId, by: PersonId, in_service: set[TerminalId], now: datetime
) -> RolloutTurn:
    async with databases.at() as conn, conn.transaction():
        await table.lock_starts(conn, databases.chain)
        ending, draft = await table.load_rollout(conn, old), await table.load_rollout(conn, new)
        ended, begun = take_over(ending, draft, by, in_service, now)
        if not begun.effects:
            return begun
        await require_free(conn, draft, (old,))
        for before, turn, said in ((ending, ended, "supersede"), (draft, begun, "start")):
            entries = [one.entry for one in turn.effects if isinstance(one, Journal)]
            if not await table.append(conn, before, turn.rollout, entries, (), now):
                raise _MovedError
            await settle(conn, before, turn.rollout)
            detail = {"state": str(turn.rollout.state), "why": turn.rollout.why.en[:400]}
            await audit(conn, f"rollout.{said}", before.id, detail, by, now)
        return begun
