"""What the HTTP API shows and takes of a terminal's twin and its commands."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from gateway.views import TerminalView, View
from models.domain.twin import COMMAND_ARG_CHARACTERS_MAX, COMMAND_ARGS_MAX, COMMAND_DEADLINE_S_MAX


class SoftwareView(View):
    """A version that the terminal should run."""

    version: str
    url: str
    sha256: str
    size_bytes: int


class DesiredView(View):
    """The document that the terminal should run, as it is published."""

    gen: int
    config: dict[str, JsonValue]
    config_hash: str
    software: SoftwareView | None
    set_at: datetime


class ReportedView(View):
    """What the terminal says of itself. `sync`: unknown, in_sync, behind, ahead or differs."""

    known: bool
    boot: str
    applied_gen: int | None
    config_hash: str
    sync: str
    behind_since: datetime | None
    health: dict[str, JsonValue]
    skew_ms: int | None
    skew_alarm: bool
    takeovers: int
    takeover_at: datetime | None
    gaps: int


class TelemetryView(View):
    """The newest sample, one a minute at most."""

    at: datetime
    doc: dict[str, JsonValue]


class CommandView(View):
    """A command and what became of it."""

    id: str
    verb: str
    args: dict[str, JsonValue]
    asked_at: datetime
    deadline_at: datetime
    status: str
    detail: str
    answered_at: datetime | None
    late_status: str | None


class LivenessKeyView(View):
    """A public key of the terminal's depth camera. `ended_at` null: scores that it signed count."""

    fingerprint: str
    public_key: str
    """64 hex digits."""
    added_at: datetime
    added_by: str
    ended_at: datetime | None
    ended_by: str


class TwinView(View):
    """Both halves of a terminal's twin, its newest telemetry, its last commands, and who may sign its liveness."""

    terminal: TerminalView
    desired: DesiredView | None
    reported: ReportedView | None
    telemetry: TelemetryView | None
    commands: list[CommandView]
    liveness_keys: list[LivenessKeyView]


ArgValue = Annotated[str, Field(max_length=COMMAND_ARG_CHARACTERS_MAX)] | Annotated[int, Field(ge=-(2**53), le=2**53)]


class CommandOrder(BaseModel):
    """Tell a terminal to do something within a deadline."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    verb: Literal["resync", "reboot", "show_text", "test_print", "activate", "rotate"]
    args: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,31}$")], ArgValue] = Field(
        default_factory=dict, max_length=COMMAND_ARGS_MAX
    )
    deadline_s: Annotated[int, Field(ge=1, le=COMMAND_DEADLINE_S_MAX)] = 10


class DesiredOrder(BaseModel):
    """Change what a terminal should run: a merge patch (RFC 7396) over its overrides."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    config: dict[str, JsonValue]
    expected_gen: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None


class DesiredAnswer(View):
    """The generation that is durable now; its host publishes it."""

    gen: int


class CommandAnswer(View):
    """The command's id: ask for the terminal's twin to see what becomes of it."""

    id: str
