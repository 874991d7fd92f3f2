"""What a host does for its terminals beside visits: desired documents, resync, greeting after a birth."""

from __future__ import annotations

import time
from datetime import timedelta

from devices.bridge import Bridge
from devices.link import LinkError
from models.domain.ids import MessageId, TerminalId, derived_id
from models.domain.registry import RegisteredTerminal
from models.tables.journal import Slot
from runtime.directory import Directory
from runtime.publisher import Publisher
from runtime.telemetry import HostCounts

RESYNC_DEADLINE = timedelta(seconds=30)


class TerminalCare:
    """Tells terminals what they should run, and asks those that a broker may have forgotten."""

    def __init__(self, directory: Directory, publisher: Publisher, counts: HostCounts) -> None:
        self._directory = directory
        self._publisher = publisher
        self._counts = counts
        self._desired_told: set[TerminalId] = set()
        """Terminals whose retained desired document this host has published."""

    async def resync(self, bridge: Bridge, slot: Slot) -> None:
        """desired is retained and whole; resync asks every terminal for presence, report and what waits."""
        stamp = time.time_ns()
        for record in self._directory.terminals():
            if slot.owns(record.store):
                try:
                    await self._publish_desired(bridge, record)
                    command = MessageId(derived_id(record.terminal, stamp))
                    await bridge.publish_command(record, command, "resync", {}, RESYNC_DEADLINE)
                except LinkError:
                    self._counts.publish_failures += 1
                    return  # the connection is gone; the next one starts again

    async def greet(self, bridge: Bridge, born: list[RegisteredTerminal]) -> None:
        """The lane's screen once more; and desired for whoever was registered since the last resync."""
        await self._publisher.show_again(bridge, born)
        for record in born:
            if record.terminal not in self._desired_told:
                try:
                    await self._publish_desired(bridge, record)
                except LinkError:
                    self._counts.publish_failures += 1

    async def _publish_desired(self, bridge: Bridge, record: RegisteredTerminal) -> None:
        book = self._directory.book_of(record.store, 0)
        await bridge.publish_desired(record, book.version, self._directory.desired_config(book))
        self._desired_told.add(record.terminal)
