"""Small rollouts for tests: policies with short times, chains of a few stores, terminals by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from models.domain.ids import ChainId, RegionId, StoreId, TerminalId
from models.domain.rollout import (
    Artefact,
    ArtefactKey,
    ArtefactKind,
    Device,
    Observed,
    PersonId,
    RolloutId,
    RolloutPolicy,
    Selector,
    Site,
    digest_of,
)
from models.domain.rollout_journal import Rollout, drafted
from models.domain.rollout_plan import resolve
from models.domain.rollout_policy import policy_from

NOW = datetime(2026, 3, 2, 1, 0, tzinfo=UTC)
AUTHOR, OTHER = PersonId("author"), PersonId("other")


def after(seconds: int) -> datetime:
    return NOW + timedelta(seconds=seconds)


def rules(**over: Any) -> dict[str, Any]:
    """The rules of one stage, each said."""
    return {
        "success_percent_min": 100,
        "error_percent_max": 0,
        "error_stores_max": 0,
        "executed_min": 1,
        "soak_s": 60,
        "queue_deadline_s": 3600,
        "in_progress_deadline_s": 600,
        "soak_deadline_s": 600,
        "claim_grace_s": 30,
        "flaps_max": 1,
        "offline_percent_max": 0,
        "in_flight_stores_max": 100,
        "starts_per_minute_max": 100,
        "jitter_s": 0,
        "windows": [],
        "terminals_up_min": 0,
        "following": "automatic",
        "attachments": [],
        "evidence": None,
        "unclear": "halt",
    } | over


def document(*stages: dict[str, Any], **over: Any) -> dict[str, Any]:
    """A policy as a file has it."""
    return {
        "name": "small",
        "title": {"zh": "小", "en": "small"},
        "kinds": ["config", "software", "prices"],
        "mandatory_roles": "all",
        "stratify": ["region"],
        "tail": False,
        "zone": "Asia/Shanghai",
        "rollback": {
            "in_flight_stores_max": 100,
            "starts_per_minute_max": 100,
            "deadline_s": 600,
            "error_stores_max": 0,
            "terminals_up_min": 0,
            "automatic": True,
        },
        "stages": list(stages) or [{"name": "all", "stores": "all"} | rules()],
    } | over


def policy(*stages: dict[str, Any], **over: Any) -> RolloutPolicy:
    return policy_from(document(*stages, **over))


def site(number: int, region: str = "gz", terminals: int = 1, **labels: str) -> Site:
    store = StoreId(f"s-{number}")
    devices = tuple(
        Device(TerminalId(f"{store}-{role}"), role, "dragonfly-1") for role in ("till", "face", "screen")[:terminals]
    )
    return Site(store, RegionId(region), "Asia/Shanghai", devices, labels)


def release(version: str) -> str:
    part = {"version": version, "url": f"http://x/{version}", "sha256": digest_of(version), "size_bytes": 9}
    return json.dumps(part, sort_keys=True, separators=(",", ":"))


CONFIG = Artefact(
    ArtefactKind.CONFIG, ArtefactKey("config"), "c2", '{"volume":2}', digest_of('{"volume":2}'), fallback=""
)
SOFTWARE = Artefact(
    ArtefactKind.SOFTWARE, ArtefactKey("software/d1"), "2.0", release("2.0"), digest_of(release("2.0")), release("1.0")
)


def rollout(rules_of: RolloutPolicy, *sites: Site, artefact: Artefact = CONFIG, name: str = "r-1") -> Rollout:
    plan = resolve(
        sites,
        Selector(all_stores=True),
        rules_of.stages,
        7,
        mandatory_roles=rules_of.mandatory_roles,
        stratify=rules_of.stratify,
    )
    return drafted(RolloutId(name), ChainId("harbour"), artefact, Selector(all_stores=True), rules_of, plan, AUTHOR)


OLD = Observed(
    gen=1,
    part="{}",
    config_hash="old",
    online=True,
    applied_gen=1,
    reported_hash="old",
    software="1.0",
    boot="b1",
)


def old(**over: Any) -> Observed:
    """A terminal that answers and has the old configuration."""
    return replace(OLD, **over)


def new(**over: Any) -> Observed:
    """The same terminal with the new configuration, applied and reported."""
    return old(
        **({"gen": 2, "part": CONFIG.payload, "config_hash": "new", "applied_gen": 2, "reported_hash": "new"} | over)
    )
