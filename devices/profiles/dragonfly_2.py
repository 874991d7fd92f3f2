"""Dragonfly 2: a face terminal on the counter; recognises by face alone and shows the basket."""

from __future__ import annotations

from devices.profiles.profile import Role, TerminalProfile

PROFILE = TerminalProfile(
    name="dragonfly-2",
    title_zh="蜻蜓 2 刷脸终端",
    title_en="Dragonfly 2 face terminal",
    roles=(Role.FACE, Role.CUSTOMER),
    screens=(Role.CUSTOMER,),
    can_show_lines=True,
    has_camera=True,
    has_keypad=True,
    has_scanner=True,
    has_printer=False,
    has_cash_drawer=False,
    has_clerk=False,
    sells_offline=True,
    vouches_liveness=True,
    digits_required=False,
    takes_line_adjustments=True,
)
