"""Which family a terminal is by its software, as a host decides it: docs/software.md."""

from __future__ import annotations

from actors.terminal import Terminal
from devices.profiles import PROFILES, traits_of
from devices.profiles.upgrading import require_lane
from models.domain.errors import Refused
from models.domain.presence import FamilyClaimed, FamilyFound
from models.domain.registry import RegisteredTerminal
from models.domain.software import family_of
from models.domain.twin import SoftwareVersion
from runtime.directory import Directory


def look(directory: Directory, record: RegisteredTerminal, state: Terminal) -> FamilyFound | FamilyClaimed | None:
    """Hold what a terminal says of itself against the images that are recorded; None: all is as it should be."""
    in_force = record.profile
    family = family_of(state.ran, directory.recorded(state.ran.software), in_force, directory.delivered(record))
    if family != in_force:
        return FamilyFound(in_force, family, record.lane, traits_of(in_force))
    if state.profile not in ("", in_force) and state.claimed_boot != state.boot:
        return FamilyClaimed(state.profile, in_force)
    return None


def require_fit(directory: Directory, record: RegisteredTerminal, software: SoftwareVersion) -> None:
    """Refuse software that would make the terminal what its lane cannot do with.

    A version that is not recorded makes nothing of a terminal. Raises Refused: image_differs, unfit_role, unfit_lane.
    """
    recorded = directory.recorded(software.version)
    if recorded is None:
        return
    if recorded.sha256 != software.sha256:
        do = f"order it by its SHA-256 {recorded.sha256}, or under a version of its own"
        raise Refused("image_differs", f"{software.version} is recorded with other bytes", do)
    family = recorded.profile or directory.delivered(record)
    before = PROFILES.get(record.profile)
    if before is None:
        return
    others = [
        PROFILES[one.profile]
        for one in directory.lane(record.store, record.lane)
        if one.terminal != record.terminal and one.profile in PROFILES
    ]
    require_lane(f"{record.lane} of {record.store}", record.role, before, family, others)
