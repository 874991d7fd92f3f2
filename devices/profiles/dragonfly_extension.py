"""Dragonfly Extension: the camera apart from the screens; drives a customer display of two rows, no keypad."""

from __future__ import annotations

from devices.profiles.profile import Role, TerminalProfile

PROFILE = TerminalProfile(
    name="dragonfly-extension",
    title_zh="蜻蜓 Extension 分体刷脸终端",
    title_en="Dragonfly Extension split face terminal",
    roles=(Role.CUSTOMER, Role.FACE),
    screens=(Role.CUSTOMER,),
    can_show_lines=False,
    columns_max=20,
    has_camera=True,
    has_keypad=False,
    has_scanner=False,
    has_printer=False,
    has_cash_drawer=False,
    has_clerk=False,
    vouches_liveness=True,
    digits_required=False,
    takes_line_adjustments=True,
)
