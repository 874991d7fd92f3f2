"""Dragonfly 2: a face terminal on the counter; recognises by face alone and shows the basket."""

from __future__ import annotations

from devices.profiles.profile import TerminalProfile

PROFILE = TerminalProfile(
    name="dragonfly-2",
    title_zh="蜻蜓 2 刷脸终端",
    title_en="Dragonfly 2 face terminal",
    roles=("face", "customer"),
    can_show_lines=True,
    has_camera=True,
    digits_required=False,
    takes_line_adjustments=True,
)
