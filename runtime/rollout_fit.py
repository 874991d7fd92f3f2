"""Whether the terminals of a plan can run what is rolled out: asked of everybody before anybody is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from devices.profiles import PROFILES
from devices.profiles.upgrading import require_lane
from models.domain.errors import Refused
from models.domain.ids import TerminalId
from models.domain.rollout import Artefact
from models.domain.rollout_plan import FrozenPlan
from models.domain.software import Recorded
from models.tables.rollout_sight import LaneMember, load_lanes
from models.tables.software import load_recorded
from runtime.rollout_databases import Databases

NAMED_MAX = 4


async def require_fit(databases: Databases, artefact: Artefact, plan: FrozenPlan) -> None:
    """Software only. Each host looks again when it is ordered.

    Raises Refused: image_differs, and unfit_role or unfit_lane with the terminals that cannot become what the image
    makes of them.
    """
    async with databases.at() as conn:
        recorded = await load_recorded(conn)
    for part in (artefact.payload, artefact.fallback):
        _require_recorded(json.loads(part), recorded)
    known = recorded.get(artefact.version)
    if known is None:
        return
    stores = [store.store for stage in plan.stages for store in stage.stores]
    targets = {one.terminal for stage in plan.stages for store in stage.stores for one in store.targets}
    unfit: dict[str, tuple[Refused, list[TerminalId]]] = {}
    for url, regions in databases.regions.items():
        async with databases.at(url) as conn:
            members = await load_lanes(conn, regions, stores)
        for terminal, refused in _unfit(members, targets, known):
            unfit.setdefault(refused.code, (refused, []))[1].append(terminal)
    for code, (refused, terminals) in unfit.items():
        named = ", ".join(terminals[:NAMED_MAX]) + (" …" if len(terminals) > NAMED_MAX else "")
        do = "leave them out: --select '!terminal=ID', or profile=, or another image"
        raise Refused(code, f"{len(terminals)} terminals ({named}): {refused.message}", do)


def _require_recorded(release: Mapping[str, str], recorded: Mapping[str, Recorded]) -> None:
    known = recorded.get(release["version"])
    if known is not None and known.sha256 != release["sha256"]:
        do = f"plan it by its version alone, or by its SHA-256 {known.sha256}"
        raise Refused("image_differs", f"{release['version']} is recorded with other bytes", do)


def _unfit(
    members: Sequence[LaneMember], targets: set[TerminalId], image: Recorded
) -> list[tuple[TerminalId, Refused]]:
    lanes: dict[tuple[str, str], list[LaneMember]] = {}
    for one in members:
        lanes.setdefault((one.store, one.lane), []).append(one)
    found = []
    for one in members:
        if one.terminal not in targets or one.profile not in PROFILES:
            continue
        lane = lanes[one.store, one.lane]
        others = [PROFILES[other.profile] for other in lane if other is not one and other.profile in PROFILES]
        family = image.profile or one.delivered_profile or one.profile
        try:
            require_lane(f"{one.lane} of {one.store}", one.role, PROFILES[one.profile], family, others)
        except Refused as refused:
            found.append((one.terminal, refused))
    return found
