"""The registry of terminal families: one file each, one line here."""

from __future__ import annotations

from collections.abc import Mapping

from devices.profiles import dragonfly_2, till
from devices.profiles.profile import TerminalProfile
from models.domain.errors import Refused

PROFILES: Mapping[str, TerminalProfile] = {
    profile.name: profile
    for profile in (
        dragonfly_2.PROFILE,
        till.PROFILE,
    )
}


def profile_of(name: str) -> TerminalProfile:
    """The family of that name. Raises Refused `unknown_profile`."""
    try:
        return PROFILES[name]
    except KeyError:
        known = ", ".join(sorted(PROFILES))
        raise Refused("unknown_profile", f"there is no profile {name!a}", f"choose one of: {known}") from None


__all__ = ["PROFILES", "TerminalProfile", "profile_of"]
