"""A vending machine: nobody of the shop near it, an amount or one scan, no cash; gives the goods on `paid`."""

from __future__ import annotations

from devices.profiles.profile import Role, TerminalProfile

PROFILE = TerminalProfile(
    name="vending",
    title_zh="自动售货机",
    title_en="Vending machine",
    roles=(Role.SELF,),
    screens=(Role.CUSTOMER,),
    can_show_lines=True,
    lines_max=1,
    columns_max=40,
    has_camera=True,
    has_keypad=True,
    has_scanner=True,
    has_printer=False,
    has_cash_drawer=False,
    has_clerk=False,
    enters_amount=True,
    opens_on_paid=True,
    digits_required=False,
    takes_line_adjustments=True,
)
