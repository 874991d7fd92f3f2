"""What a run saw, by the step that it belongs to. Numbers are indexes of the tap's packets."""

from __future__ import annotations

from dataclasses import dataclass, field

from devices.conformance.packets import Connect
from devices.conformance.tap import Tap


@dataclass(slots=True)
class Record:
    """One run's marks; None: it did not come, or the step was not reached."""

    tap: Tap
    prefix: str
    terminal: str
    liveness_key: bytes | None = None
    """The device's public key, if the run was given it."""
    connects: list[int] = field(default_factory=list)
    applied: int | None = None
    stale_from: int | None = None
    resync_from: int = 0
    resync_id: str = ""
    answered: int | None = None
    foreign_id: str | None = None
    unknown_id: str | None = None
    unknown: int | None = None
    event: int | None = None
    resend: int | None = None
    replay: int | None = None
    replied_from: int | None = None
    face_from: int | None = None
    face: int | None = None
    late_face: int | None = None
    keeps_newer: bool | None = None
    shows_unknown: bool | None = None
    ignores_fields: bool | None = None
    takes_large: bool | None = None
    survives: bool | None = None
    pauses_s: list[float] = field(default_factory=list)

    @property
    def connect(self) -> Connect | None:
        """The first connection's CONNECT."""
        return self.connect_of(0)

    def connect_of(self, n: int) -> Connect | None:
        """The CONNECT that the run waited for as its n-th."""
        if len(self.connects) <= n:
            return None
        packet = self.tap.seen[self.connects[n]].packet
        assert isinstance(packet, Connect), "only CONNECTs are kept here"
        return packet
