"""How long a customer waits: from what the terminal sends to the first newer screen, on the device's own clock."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from models.domain.ids import MessageId

SAMPLES_MAX = 10_000
SCREEN_WAIT_S_MAX = 10.0
"""A screen later than this was not caused by the event that is being timed."""


@dataclass(slots=True)
class _Mark:
    id: MessageId
    face: bool
    at_s: float
    replied: bool = False


class Timings:
    """Samples in milliseconds, the newest 10,000 of each kind."""

    def __init__(self) -> None:
        self.event_to_screen_ms: deque[float] = deque(maxlen=SAMPLES_MAX)
        self.face_to_screen_ms: deque[float] = deque(maxlen=SAMPLES_MAX)
        self._marks: list[_Mark] = []

    def sent(self, message_id: MessageId, face: bool, monotonic_s: float) -> None:
        """An event or a face was published for the first time."""
        # One that was answered and changed no screen would otherwise be credited with the next one's.
        self._marks = [mark for mark in self._marks if not mark.replied]
        self._marks.append(_Mark(message_id, face, monotonic_s))

    def replied(self, message_id: MessageId, ok: bool) -> None:
        """Its reply came; a refusal changes no screen."""
        for mark in self._marks:
            mark.replied = mark.replied or mark.id == message_id
        if not ok:
            self._marks = [mark for mark in self._marks if mark.id != message_id]

    def shown(self, monotonic_s: float) -> None:
        """A newer screen came."""
        for mark in self._marks:
            if monotonic_s - mark.at_s <= SCREEN_WAIT_S_MAX:
                samples = self.face_to_screen_ms if mark.face else self.event_to_screen_ms
                samples.append((monotonic_s - mark.at_s) * 1000)
        self._marks.clear()
