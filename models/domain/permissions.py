"""Who may do what, where. A permission is given to a person at a store, a region or a chain, holds for all below, and
is denied by default. The catalogue holds what is asked for somewhere, and nothing else. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from models.domain.errors import Refused
from models.domain.kill_switch import Place, Scope

PERSON_CHARACTERS_MAX = 64


class Permission(StrEnum):
    """The catalogue."""

    RETURN_CASH = "return.cash"
    """Approve that goods brought back are paid for in cash, where a provider refuses for good to give back."""
    KILL_SWITCH = "kill.switch"
    """Switch face, benefits or offers off at once, and on again, as far as the scope reaches."""
    ROLLOUT_CREATE = "rollout.create"
    """Plan and start rollouts that reach these stores, attach what their stages require."""
    ROLLOUT_PROMOTE = "rollout.promote"
    """Let a rollout of somebody else go on: approve, promote, resume."""
    ROLLOUT_HALT = "rollout.halt"
    """Pause a rollout, halt it, roll it back."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A person, by the id that they sign in under, at a till the clerk's, may do this within this scope."""

    person: str
    permission: Permission
    scope: Scope


def may(grants: Iterable[Grant], person: str, permission: Permission, place: Place) -> bool:
    """Whether this person may do it at this store."""
    return bool(person) and any(
        one.person == person and one.permission is permission and place.within(one.scope) for one in grants
    )


def uncovered(grants: Iterable[Grant], person: str, permission: Permission, places: Iterable[Place]) -> Place | None:
    """The first of these places where this person may not do it; None: everywhere."""
    theirs = [one for one in grants if one.person == person and one.permission is permission]
    return next((place for place in places if not may(theirs, person, permission, place)), None)


def missing(person: str, permission: Permission, place: Place) -> Refused:
    """Says what is missing where, and who can give it. A place without a store or region is all below it."""
    who = f"{person} has" if person else "nobody in particular is signed in, who could have"
    levels = {"store": place.store, "region": place.region, "chain": place.chain}
    named = [(level, name) for level, name in levels.items() if name]
    scopes = [f"{level}:{name}" for level, name in named]
    where = f"{', '.join(scopes[:-1])} or {scopes[-1]}" if len(scopes) > 1 else scopes[0]
    level, name = named[0]
    return Refused(
        "permission_missing",
        f"{who} no permission {permission} at {where}",
        f"`storeops permissions grant {person or 'PERSON'} {permission} --{level} {name}`"
        + ("" if person else ", and sign in with `storeops login --as PERSON`"),
    )
