"""What of a lane's one screen document each of its members shows, and which actions it offers. Pure.

Prices, state, session and revision are never touched: what a person confirms is the same on every screen.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache

from devices.profiles.profile import Role, TerminalProfile
from models.domain.screen import Prompt, Screen, ScreenLine, ScreenState
from models.domain.texts import prompt

CLERK_ACTIONS = frozenset({"age_check", "void", "return"})
"""For somebody of the shop: an age is checked by a person, money goes back with one."""

_NEEDS: dict[str, str] = {
    "face": "has_camera",
    "digits": "has_keypad",
    "scan": "has_scanner",
    "basket": "owns_basket",
    "paid": "owns_basket",
    "amount": "enters_amount",
    "confirm": "can_pay",
    "lease": "sells_offline",
    "lease.end": "sells_offline",
    "sale": "sells_offline",
}
"""What a terminal must be able to do for an action; any other action needs only somebody to touch it."""

_LINE_ACTIONS = frozenset({"scan", "remove", "basket"})


@dataclass(frozen=True, slots=True, eq=False)
class Lens:
    """What one family in one role lets through. `whole`: it leaves lines, texts and suggestions as they are."""

    hidden: frozenset[str]
    lines_max: int | None
    columns_max: int | None
    shows_suggestions: bool
    language: str | None
    """None: it shows every language of the chain."""
    whole: bool

    def allows(self, action: str) -> bool:
        """May this action be offered here?"""
        return "*" not in self.hidden and action not in self.hidden


@lru_cache(maxsize=1024)
def _offered(lens: Lens, actions: tuple[str, ...]) -> tuple[str, ...]:
    """The actions that are offered here; the very same tuple when all are."""
    offered = tuple(filter(lens.allows, actions))
    return actions if offered == actions else offered


@lru_cache(maxsize=256)
def lens_of(profile: TerminalProfile, role: str) -> Lens:
    """The lens of a family in a role; computed once."""
    hidden = {action for action, capability in _NEEDS.items() if not getattr(profile, capability)}
    clerk_reads = role in (Role.TILL, Role.CLERK) or (role not in profile.screens and Role.CLERK in profile.screens)
    if not (profile.has_clerk and clerk_reads):
        hidden |= CLERK_ACTIONS
    if role == Role.CLERK and profile.has_camera:
        hidden |= {"face"}  # its camera looks at the customer, not at who reads this screen
    if profile.amount_only:
        hidden |= _LINE_ACTIONS
    if not profile.can_answer:
        hidden |= {"*"}
    lines_max = profile.lines_max if profile.can_show_lines else 0
    suggests = role != Role.CUSTOMER
    language = None if set(profile.languages) >= {"zh", "en"} else profile.languages[0]
    whole = lines_max is None and profile.columns_max is None and suggests and language is None
    return Lens(frozenset(hidden), lines_max, profile.columns_max, suggests, language, whole)


def fit(screen: Screen, profile: TerminalProfile, role: str, lane: Collection[TerminalProfile] = ()) -> Screen:
    """The lane's screen as this member shows it; the very same object when nothing is to be changed.

    `lane`: the families of all members of the lane. One without a keypad does not ask for digits: it sends the
    customer to the member that has one, or, where none has, offers only to go on without recognition. Where nobody
    of the shop stands, an age cannot be checked, and the goods must be taken out.
    """
    lens = lens_of(profile, role)
    offered = _offered(lens, screen.actions)
    if offered is not screen.actions and offered != screen.actions:
        screen = replace(screen, actions=offered)
    if screen.state is ScreenState.DIGITS and not profile.has_keypad:
        screen = _without_keypad(screen, lane)
    shown = screen.prompt
    if shown is not None and shown.code == "age_check" and not any(one.has_clerk for one in (profile, *lane)):
        screen = replace(screen, prompt=prompt("no_clerk", _language(shown)))
    if lens.whole:
        return screen
    if lens.language is not None and screen.prompt is not None:
        screen = replace(screen, prompt=_in_language(screen.prompt, lens.language))
    if not lens.shows_suggestions and screen.suggestions:
        screen = replace(screen, suggestions=())
    return _with_lines(screen, lens)


def _without_keypad(screen: Screen, lane: Collection[TerminalProfile]) -> Screen:
    elsewhere = any(other.has_keypad for other in lane)
    language = _language(screen.prompt)
    return replace(screen, prompt=prompt("digits_elsewhere" if elsewhere else "not_recognised", language))


def _language(shown: Prompt | None) -> str:
    """The language that the host wrote a prompt in."""
    return "en" if shown is not None and shown.text.isascii() else "zh"


def _in_language(shown: Prompt, language: str) -> Prompt:
    try:
        return prompt(shown.code, language, **shown.params)
    except (KeyError, IndexError):
        return shown  # a code of a later release: its text is better than none


def _with_lines(screen: Screen, lens: Lens) -> Screen:
    if not screen.lines:
        return screen
    kept = screen.lines
    if lens.lines_max is not None:
        kept = kept[-lens.lines_max :] if lens.lines_max else ()
    if lens.columns_max is not None:
        kept = tuple(_clipped(line, lens.columns_max) for line in kept)
    return screen if kept == screen.lines else replace(screen, lines=kept)


def _clipped(line: ScreenLine, columns: int) -> ScreenLine:
    name, why = clip(line.name, columns), clip(line.why, columns)
    return line if (name, why) == (line.name, line.why) else replace(line, name=name, why=why)


def clip(text: str, columns: int) -> str:
    """As much of a text as fits into so many columns, `…` at the end of one that was cut.

    A wide character counts two (Unicode Standard Annex 11: W and F).
    """
    widths = [2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text]
    if sum(widths) <= columns:
        return text
    used, end = 1, 0
    while end < len(text) and used + widths[end] <= columns:
        used += widths[end]
        end += 1
    return text[:end] + "…"


def views(screen: Screen, profile: TerminalProfile) -> dict[Role, Screen]:
    """On the device: one document for each display of its own, by who reads it."""
    return {reader: fit(screen, profile, reader) for reader in profile.screens}
