"""A terminal's twin as stored: desired, reported, telemetry, commands."""

from __future__ import annotations

import json

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.queries.registry import get_terminal
from gateway.twin_views import (
    CommandView,
    DesiredView,
    LivenessKeyView,
    ReportedView,
    SoftwareView,
    TelemetryView,
    TwinView,
)
from models.tables.registry import LivenessKeyRow
from models.tables.twins import CommandRow, DesiredRow, PresenceRow, TelemetryRow

COMMANDS_SHOWN = 20


async def get_twin(session: AsyncSession, terminal: str) -> TwinView | None:
    """Everything of one terminal in service."""
    registered = await get_terminal(session, terminal)
    if registered is None:
        return None
    desired = await session.get(DesiredRow, terminal)
    presence = await session.get(PresenceRow, terminal)
    telemetry = await session.exec(
        select(TelemetryRow)
        .where(col(TelemetryRow.terminal) == terminal)
        .order_by(col(TelemetryRow.at).desc())
        .limit(1)
    )
    commands = await session.exec(
        select(CommandRow)
        .where(col(CommandRow.terminal) == terminal)
        .order_by(col(CommandRow.asked_at).desc())
        .limit(COMMANDS_SHOWN)
    )
    sample = telemetry.first()
    return TwinView(
        terminal=registered,
        desired=None if desired is None else _desired(desired),
        reported=None if presence is None else _reported(presence),
        telemetry=None if sample is None else TelemetryView.model_validate({"at": sample.at, "doc": sample.doc}),
        commands=[CommandView.model_validate(row.model_dump(exclude={"terminal", "store"})) for row in commands],
        liveness_keys=await list_liveness_keys(session, terminal),
    )


async def list_liveness_keys(session: AsyncSession, terminal: str) -> list[LivenessKeyView]:
    """A terminal's keys for signed liveness, those that count first."""
    rows = await session.exec(
        select(LivenessKeyRow)
        .where(col(LivenessKeyRow.terminal) == terminal)
        .order_by(col(LivenessKeyRow.ended_at).is_not(None), col(LivenessKeyRow.added_at).desc())
    )
    return [LivenessKeyView.model_validate(row.model_dump(exclude={"terminal"})) for row in rows]


def _desired(row: DesiredRow) -> DesiredView:
    software = None if row.software is None else SoftwareView.model_validate(row.software)
    return DesiredView(
        gen=row.gen, config=json.loads(row.config), config_hash=row.config_hash, software=software, set_at=row.set_at
    )


def _reported(row: PresenceRow) -> ReportedView:
    return ReportedView(
        known=row.known,
        boot=row.boot,
        applied_gen=row.applied_gen,
        config_hash=row.config_hash,
        sync=row.sync,
        behind_since=row.behind_since,
        health=json.loads(row.health) if row.health else {},
        skew_ms=row.skew_ms,
        skew_alarm=row.skew_alarm,
        takeovers=row.takeovers,
        takeover_at=row.takeover_at,
        gaps=row.gaps,
    )
