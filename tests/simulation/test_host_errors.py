"""What a host refuses reaches who asked as the host said it, not as the engine's traceback."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RayTaskError

from models.domain.errors import Refused, RetryLater
from models.domain.ids import RegionId
from runtime.plant import Plant
from runtime.ray_hosts import RayHosts, host_name

NORTH = RegionId("north")


class FailingHost:
    """A handle whose calls fail as the engine hands errors on: as a class of both, with a traceback for its text."""

    def __init__(self, error: Exception) -> None:
        self._error = pickle.loads(pickle.dumps(error))

    def __getattr__(self, name: str) -> Any:
        return self

    async def remote(self, *_: object) -> None:
        failed: Any = RayTaskError
        raise failed("host.health", "Traceback (most recent call last): ...", self._error).as_instanceof_cause()


@pytest.mark.parametrize("error", [Refused("bad_args", "too many", "fewer"), RetryLater("busy", "later", "wait")])
async def test_a_refusal_is_the_hosts_own(error: Refused | RetryLater) -> None:
    hosts = RayHosts(Plant(Path(), region=NORTH))
    hosts._handles[host_name(NORTH, 0)] = FailingHost(error)
    with pytest.raises(type(error)) as raised:
        await hosts.health(NORTH, 0)
    told = raised.value
    assert (str(told), told.code, told.message, told.do) == (str(error), error.code, error.message, error.do)
    assert not isinstance(told, RayTaskError)


async def test_a_bug_of_a_host_stays_a_bug() -> None:
    hosts = RayHosts(Plant(Path(), region=NORTH))
    hosts._handles[host_name(NORTH, 0)] = FailingHost(KeyError("x"))
    with pytest.raises(KeyError):
        await hosts.health(NORTH, 0)
