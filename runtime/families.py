"""Which family a terminal is by its software, as a host decides it: docs/software.md."""

from __future__ import annotations

from actors.terminal import Terminal
from devices.profiles import PROFILES, profile_of, require_role, traits_of
from devices.profiles.upgrading import lost
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
    if family == record.profile or before is None:
        return
    after = profile_of(family)
    require_role(after, record.role)
    others = [
        PROFILES[one.profile]
        for one in directory.lane(record.store, record.lane)
        if one.terminal != record.terminal and one.profile in PROFILES
    ]
    if missing := lost(others, before, after):
        raise Refused(
            "unfit_lane",
            f"as {family} the lane {record.lane} of {record.store} would lose {', '.join(missing)}",
            "choose an image for this family, or put a terminal there that has it",
        )
