"""A Ray cluster by address: what its machines must be able to reach, and what a killed `up` left running there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

import ray

from models.domain.errors import NeedsOperator
from runtime.deployment import Place
from runtime.plant import Plant
from runtime.ray_actors import NAMESPACE
from runtime.ray_faces import face_names
from runtime.ray_hosts import host_name, rollouts_name, settlement_name

LEFT_BEHIND_S_MAX = 10.0
LOOK_EVERY_S = 0.05


def require_reachable(places: Sequence[Place], *, simulator: bool) -> None:
    """What is embedded listens on this machine alone: a cluster's other machines would look for it in vain.

    Raises NeedsOperator `cluster_needs_urls`. Several nodes on one machine are one machine.
    """
    machines = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
    embedded = [place.name for place in places if place.database_url is None or place.broker_url is None]
    if len(machines) > 1 and (embedded or simulator):
        what = f"database or broker of region {', '.join(embedded)}" if embedded else "provider simulator"
        raise NeedsOperator(
            "cluster_needs_urls",
            f"the cluster has {len(machines)} machines, and the {what} is embedded: only this machine reaches it",
            "name database.url, broker.url and provider.url, for each region or for all",
        )


def end_left_behind(plants: Sequence[Plant]) -> None:
    """Actors of a killed `up` would be found in place of new ones, with what they were told then.

    Raises NeedsOperator `actor_left_behind` when one does not go.
    """
    for plant in plants:
        ours = (host_name(plant.region, 0)[:-1], face_names(plant.region))
        named = (settlement_name(plant.chain, plant.region), rollouts_name(plant.chain))
        for name in ray.util.list_named_actors():
            if name.startswith(ours) or name in named:
                _end(name)


def _end(name: str) -> None:
    deadline = time.monotonic() + LEFT_BEHIND_S_MAX
    with contextlib.suppress(ValueError):  # there is none of that name any more
        while True:
            ray.kill(ray.get_actor(name, namespace=NAMESPACE))
            if time.monotonic() > deadline:
                raise NeedsOperator("actor_left_behind", f"{name} does not end", "see `ray list actors`")
            time.sleep(LOOK_EVERY_S)
