"""The process of one crew: commands come as lines of JSON on stdin, ticks and answers go out on stdout.

`python -m runtime.fleet_crew` is started by fleet_crews.py; it holds thousands of MQTT connections on one event loop
and imports nothing of the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from pathlib import Path
from typing import Any, Literal

import msgspec

from devices.fleet.backlog import Backlog
from devices.fleet.crew import Crew
from devices.fleet.orders import CrewOrder, Day
from models.domain.errors import StoreOpsError
from runtime.processes import raise_file_limit
from runtime.telemetry import configure_logs

TICK_EVERY_S = 0.5
LINE_BYTES_MAX = 64 * 1024 * 1024


class Command(msgspec.Struct):
    """One line to a crew. `path` for begin is the order's file, for report where the evidence goes."""

    do: Literal["begin", "connect", "day", "measure", "settled", "quiet", "report", "backlog", "drained", "software"]
    path: str = ""
    day: Day | None = None
    seconds: float = 0.0
    messages: int = 0
    on: bool = True


class Player:
    """Obeys, one command at a time."""

    def __init__(self) -> None:
        self._crew: Crew | None = None
        self._backlog: Backlog | None = None

    @property
    def crew(self) -> Crew:
        """The crew that `begin` made."""
        assert self._crew is not None, "begin comes first"
        return self._crew

    async def obey(self, command: Command) -> Any:
        """Do it and return what it has to say."""
        match command.do:
            case "begin":
                order = await asyncio.to_thread(Path(command.path).read_bytes)
                self._crew = Crew(msgspec.json.decode(order, type=CrewOrder))
            case "connect":
                return await self.crew.connect()
            case "day":
                assert command.day is not None
                await self.crew.day(command.day)
            case "measure":
                self.crew.measure(command.on)
            case "settled":
                return await self.crew.settled(command.seconds)
            case "quiet":
                return await self.crew.quiet(command.seconds)
            case "report":
                evidence = msgspec.json.encode(self.crew.report())
                await asyncio.to_thread(Path(command.path).write_bytes, evidence)
            case "backlog":
                self._backlog = Backlog(self.crew.agents)
                return await self._backlog.pile_up(command.messages)
            case "drained":
                assert self._backlog is not None
                return await self._backlog.drained(command.seconds)
            case "software":
                return self.crew.software()
        return None

    async def stop(self) -> None:
        """Disconnect in order."""
        if self._crew is not None:
            await self._crew.stop()


async def play() -> None:
    """Until stdin ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    player = Player()
    ticking = asyncio.create_task(_tick_forever(player))
    decoder = msgspec.json.Decoder(Command)
    while line := await reader.readline():
        command = decoder.decode(line)
        try:
            value = await player.obey(command)
            _say({"done": command.do, "value": value})
        except (StoreOpsError, TimeoutError, AssertionError) as error:
            _say({"done": command.do, "error": f"{type(error).__name__} {error}"})
    ticking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await ticking
    await player.stop()


async def _tick_forever(player: Player) -> None:
    while True:
        await asyncio.sleep(TICK_EVERY_S)
        if player._crew is not None:
            _say({"tick": player.crew.tick(), "cpu_s": round(time.process_time(), 3)})


def _say(value: dict[str, Any]) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    raise_file_limit()
    configure_logs()
    asyncio.run(play())
