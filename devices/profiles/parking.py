"""A parking gate: the plate is its transaction (`till_txn`), the parking fee its amount; opens on `paid`."""

from __future__ import annotations

from devices.profiles.profile import Role, TerminalProfile

PROFILE = TerminalProfile(
    name="parking",
    title_zh="停车场道闸",
    title_en="Parking gate",
    roles=(Role.SELF,),
    screens=(Role.CUSTOMER,),
    can_show_lines=False,
    columns_max=32,
    has_camera=False,
    has_keypad=False,
    has_scanner=True,
    has_printer=False,
    has_cash_drawer=False,
    has_clerk=False,
    enters_amount=True,
    amount_only=True,
    opens_on_paid=True,
    digits_required=False,
    takes_line_adjustments=True,
)
