"""`python -m runtime.bench.second_host DATA REGION K`: a second host for a slot, by hand, as no cluster should.

DATA: the data folder of a running house. It claims the slot, which fences the host before; says `ready` on its
standard output when it serves, and stops in order when its standard input closes.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from models.domain.errors import RetryLater
from runtime import origin
from runtime.plant import Plant, read_plants
from runtime.slot_host import Service
from runtime.telemetry import configure_logs


class NoFaces:
    """There is no face worker here: whoever looks is asked to look again."""

    def __getattr__(self, verb: str) -> Any:
        async def away(*_: object) -> Any:
            raise RetryLater("no_faces", f"{verb}: no face worker here", "try again", after_s=1.0)

        return away


async def serve(plant: Plant, k: int) -> None:
    """Until the input closes."""
    service = Service(plant, k, NoFaces())
    await service.start()
    sys.stdout.write(f"ready {service.slot.epoch}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await service.stop()


def main() -> None:
    """Raises NeedsOperator when nothing runs there."""
    origin.check()
    configure_logs()
    data, region, k = sys.argv[1:]
    plant = next(plant for plant in read_plants(Path(data)) if plant.region == region)
    asyncio.run(serve(plant, int(k)))


if __name__ == "__main__":
    main()
