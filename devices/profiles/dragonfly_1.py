"""Dragonfly 1: the first face terminal; a face alone is not enough for it, four digits of the phone follow always."""

from __future__ import annotations

from devices.profiles.profile import Role, TerminalProfile

PROFILE = TerminalProfile(
    name="dragonfly-1",
    title_zh="蜻蜓 1 刷脸终端",
    title_en="Dragonfly 1 face terminal",
    roles=(Role.FACE, Role.CUSTOMER),
    screens=(Role.CUSTOMER,),
    can_show_lines=True,
    lines_max=8,
    has_camera=True,
    has_keypad=True,
    has_scanner=True,
    has_printer=False,
    has_cash_drawer=False,
    has_clerk=False,
    vouches_liveness=True,
    digits_required=True,
    takes_line_adjustments=True,
)
