"""The registry of terminal families: one file each, one line here."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from devices.profiles import (
    dragonfly_1,
    dragonfly_2,
    dragonfly_extension,
    dragonfly_plus,
    kiosk,
    parking,
    till,
    vending,
)
from devices.profiles.profile import CUSTOMER_ROLES, Role, TerminalProfile
from models.domain.errors import Refused
from models.domain.events import TenderKind, Traits

PROFILES: Mapping[str, TerminalProfile] = {
    profile.name: profile
    for profile in (
        dragonfly_1.PROFILE,
        dragonfly_2.PROFILE,
        dragonfly_plus.PROFILE,
        dragonfly_extension.PROFILE,
        till.PROFILE,
        kiosk.PROFILE,
        vending.PROFILE,
        parking.PROFILE,
    )
}
_TRAITS: Mapping[str, Traits] = {
    name: Traits(
        profile.digits_required,
        profile.takes_line_adjustments,
        vouches_liveness=profile.vouches_liveness,
        shows_prompts=Role.CUSTOMER in profile.screens,
    )
    for name, profile in PROFILES.items()
}
_UNKNOWN = Traits()


def profile_of(name: str) -> TerminalProfile:
    """The family of that name. Raises Refused `unknown_profile`."""
    try:
        return PROFILES[name]
    except KeyError:
        known = ", ".join(sorted(PROFILES))
        raise Refused("unknown_profile", f"there is no profile {name!a}", f"choose one of: {known}") from None


def ways_without_face(lane: Collection[TerminalProfile], tenders: Collection[TenderKind]) -> frozenset[TenderKind]:
    """Tenders by which a customer pays in this lane without a face and with no more taps than with one.

    The terminal that looks at the customer shows a collection code or reads a payment code after the same one tap; at
    a till beside it a clerk takes the money, and the customer taps nothing.
    """
    found: set[TenderKind] = set()
    for member in lane:
        if member.can_pay and member.can_answer:
            if Role.CUSTOMER in member.screens:
                found.add(TenderKind.QR)
            if member.has_scanner:
                found.add(TenderKind.CODE)
            if member.has_cash_drawer:
                found |= {TenderKind.CASH, TenderKind.CARD}
    return frozenset(found & set(tenders))


def require_role(profile: TerminalProfile, role: str) -> None:
    """Refuse to register a family for a role that it cannot play. Raises Refused `unfit_role`."""
    if role not in profile.roles:
        roles = ", ".join(profile.roles)
        raise Refused("unfit_role", f"a {profile.name} cannot be {role!a} in a lane", f"choose one of: {roles}")


def traits_of(name: str) -> Traits:
    """What a visit must know of the sending terminal; a family that this release does not know has no traits."""
    return _TRAITS.get(name, _UNKNOWN)


__all__ = [
    "CUSTOMER_ROLES",
    "PROFILES",
    "Role",
    "TerminalProfile",
    "profile_of",
    "require_role",
    "traits_of",
    "ways_without_face",
]
