"""Whether a rollout may begin: no active one changes the same in its stores, and there is room for one more."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from psycopg import AsyncConnection

from actors.rollout_commands import conflict_with
from models.domain.errors import Refused
from models.domain.rollout import RolloutId
from models.domain.rollout_journal import Rollout
from models.domain.rollout_part import collide
from models.tables import rollouts as table

ACTIVE_MAX = 50
"""Active rollouts of a chain: its driver looks at each of them every two seconds."""


async def in_the_way(
    conn: AsyncConnection[Any], candidate: Rollout, ending: Collection[RolloutId] = ()
) -> RolloutId | None:
    """An active rollout that changes the same in one of the candidate's stores; those of `ending` do not count."""
    active = await table.active_artefacts(conn, candidate.chain)
    same = [
        number
        for number, artefact in active
        if number != candidate.id and number not in ending and collide(artefact, candidate.artefact)
    ]
    return conflict_with([await table.load_rollout(conn, number) for number in same], candidate)


async def require_free(conn: AsyncConnection[Any], candidate: Rollout, ending: Collection[RolloutId] = ()) -> None:
    """Under the lock of starts. Raises Refused: rollout_conflict, too_many_rollouts."""
    if (other := await in_the_way(conn, candidate, ending)) is not None:
        raise Refused(
            "rollout_conflict",
            f"rollout {other} changes {candidate.artefact.key} in some of these stores",
            f"see `storeops rollout status {other}`; end it first, or select other stores",
        )
    active = {number for number, _ in await table.active_artefacts(conn, candidate.chain)}
    if len(active - {candidate.id, *ending}) >= ACTIVE_MAX:
        raise Refused(
            "too_many_rollouts",
            f"{ACTIVE_MAX} rollouts of this chain are active",
            "end one of them first: storeops rollout status",
        )
