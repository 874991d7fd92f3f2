"""What a family of terminals can show and do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a terminal does in its lane. A closed list of the terminal protocol."""

    FACE = "face"
    """Stands before the customer: recognises, shows the basket, takes the payment."""
    TILL = "till"
    """The clerk's till: basket, drawer, receipt."""
    CLERK = "clerk"
    """A screen for the clerk alone: sees what to suggest and to check."""
    CUSTOMER = "customer"
    """A screen for the customer alone: never shows what is the clerk's to do."""
    SELF = "self"
    """Serves the customer without a clerk: kiosk, vending machine, gate."""


CUSTOMER_ROLES = frozenset({Role.FACE, Role.CUSTOMER, Role.SELF})
"""Roles whose screen is read by the customer."""

BOTH_LANGUAGES = ("zh", "en")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TerminalProfile:
    """Capabilities of one family. The server decides by these, never by a family's name.

    There is one object of each family; they are compared by identity, because each screen looks one up.
    """

    name: str
    title_zh: str
    title_en: str
    roles: tuple[Role, ...]
    """Roles in a lane that this family may be registered for; the first is the usual one."""
    screens: tuple[Role, ...]
    """Its own displays by who reads them. Registered for a role that is none of them, it gets what all of them need
    and divides it among them by `fit`."""
    can_show_lines: bool
    """Shows the basket line by line, not only the totals."""
    lines_max: int | None = None
    """Lines that fit; the newest are shown. None: it scrolls."""
    columns_max: int | None = None
    """Characters of a line's text, a Chinese character counting two. None: it wraps."""
    languages: tuple[str, ...] = BOTH_LANGUAGES
    """What its character set can show; the first is used when the chain's is none of them."""
    has_camera: bool
    """Sends faces. One without a camera may still show what a face terminal of its lane asks."""
    has_keypad: bool
    """A person can type digits on it."""
    has_scanner: bool
    """Reads barcodes and payment codes."""
    has_printer: bool
    """Prints the receipt's text."""
    has_cash_drawer: bool
    """Takes cash and gives change."""
    has_clerk: bool
    """Somebody of the shop stands at it: can check an age, take a return, undo a sale."""
    can_pay: bool = True
    """Confirms and takes tenders."""
    can_answer: bool = True
    """Sends events at all; a plain display does not."""
    owns_basket: bool = False
    """Sends the whole basket with its own prices, and `paid` when it collected by itself."""
    enters_amount: bool = False
    """Sends an amount without lines."""
    amount_only: bool = False
    """Sells one amount and nothing else: never scans, never changes a line."""
    opens_on_paid: bool = False
    """Lets the customer through when the state becomes `paid`: a gate, a vending machine's flap."""
    sells_offline: bool = False
    """Keeps a price list and sells for cash or leased benefits while the network is away."""
    vouches_liveness: bool = False
    """Measures depth beside the picture: its own liveness score is read, that of any other family is not."""
    digits_required: bool
    """Recognition always asks for four phone digits (the first generation of face terminals)."""
    takes_line_adjustments: bool
    """Accepts prices that we adjusted; one that does not gets the benefit as a `coupon` tender."""
