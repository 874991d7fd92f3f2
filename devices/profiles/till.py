"""A plain till: owns basket and base prices, accepts adjusted lines, has no camera."""

from __future__ import annotations

from devices.profiles.profile import Role, TerminalProfile

PROFILE = TerminalProfile(
    name="till",
    title_zh="收银机",
    title_en="Till",
    roles=(Role.TILL, Role.CLERK),
    screens=(Role.CLERK,),
    can_show_lines=True,
    has_camera=False,
    has_keypad=True,
    has_scanner=True,
    has_printer=True,
    has_cash_drawer=True,
    has_clerk=True,
    owns_basket=True,
    enters_amount=True,
    sells_offline=True,
    digits_required=False,
    takes_line_adjustments=True,
)
