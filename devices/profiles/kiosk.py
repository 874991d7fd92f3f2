"""A self-checkout kiosk: the customer scans, the system owns the basket; no cash, a clerk only at another member."""

from __future__ import annotations

from devices.profiles.profile import Role, TerminalProfile

PROFILE = TerminalProfile(
    name="kiosk",
    title_zh="自助收银机",
    title_en="Self-checkout kiosk",
    roles=(Role.SELF,),
    screens=(Role.CUSTOMER,),
    can_show_lines=True,
    has_camera=True,
    has_keypad=True,
    has_scanner=True,
    has_printer=True,
    has_cash_drawer=False,
    has_clerk=False,
    digits_required=False,
    takes_line_adjustments=True,
)
