"""How our actors are placed and kept alive: named, detached, started again for ever, in their region's nodes."""

from __future__ import annotations

from typing import Any

import ray

NAMESPACE = "storeops"
"""Of all names of ours in the engine."""
FOR_EVER: dict[str, Any] = {"lifetime": "detached", "get_if_exists": True, "max_restarts": -1, "max_task_retries": 0}


def actor_options(region: str, name: str, **more: Any) -> dict[str, Any]:
    """Named, detached, restarted for ever; in the region's nodes when the cluster has such a resource."""
    resource = f"region:{region}"
    resources = {resource: 0.001} if ray.cluster_resources().get(resource) else None  # type: ignore[no-untyped-call]
    return {**FOR_EVER, "name": name, "num_cpus": 0, "scheduling_strategy": "SPREAD", "resources": resources, **more}
