"""What the desired document tells this device to be like: read once, by its settings' own bounds and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.domain.chain_settings import get

DIM_BELOW_PERCENT = 40


@dataclass(frozen=True, slots=True)
class Told:
    """`silent_s` None: the agent's own."""

    slogan_zh: str = ""
    slogan_en: str = ""
    brightness_percent: int = 80
    volume_percent: int = 60
    telemetry_every_s: int = 0
    silent_s: float | None = None

    def slogan(self, language: str) -> str:
        """What the idle screen says."""
        return self.slogan_zh if language == "zh" else self.slogan_en

    @property
    def dim(self) -> bool:
        """A console knows two brightnesses."""
        return self.brightness_percent < DIM_BELOW_PERCENT


def told(config: Mapping[str, Any]) -> Told:
    """Of a desired configuration; what does not fit a setting counts as not said."""
    return Told(
        slogan_zh=get(config, "screen.slogan.zh") or "",
        slogan_en=get(config, "screen.slogan.en") or "",
        brightness_percent=get(config, "screen.brightness_percent"),
        volume_percent=get(config, "sound.volume_percent"),
        telemetry_every_s=get(config, "telemetry.every_s"),
        silent_s=float(get(config, "watchdog.silent_s")) if "watchdog" in config else None,
    )
