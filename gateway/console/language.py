"""Which language a page speaks, and how it writes money and time. Chinese and English of equal rank."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

from starlette.requests import Request

from gateway.console.texts import TEXTS
from models.domain.money import format_yuan

LANGUAGES = ("zh", "en")
THEMES = ("auto", "light", "dark")
ZONE_DEFAULT = "Asia/Shanghai"


def language_of(request: Request) -> str:
    """The switch's cookie, else the first language of Accept-Language that we speak, else English."""
    chosen = request.cookies.get("lang", "")
    if chosen in LANGUAGES:
        return chosen
    wanted: list[tuple[float, str]] = []
    for part in request.headers.get("accept-language", "").split(",")[:20]:
        tag, _, quality = part.strip().partition(";q=")
        try:
            wanted.append((float(quality or 1), tag.lower()))
        except ValueError:
            continue
    for _, tag in sorted(wanted, key=lambda entry: -entry[0]):
        if tag[:2] in LANGUAGES:
            return tag[:2]
    return "en"


def theme_of(request: Request) -> str:
    """The switch's cookie; `auto` follows the system."""
    chosen = request.cookies.get("theme", "")
    return chosen if chosen in THEMES else "auto"


def text(language: str, name: str, **values: object) -> str:
    """The text of that id. Raises KeyError for an id that is not in the catalogue: no page shows a bare id."""
    zh, en = TEXTS[name]
    return (zh if language == "zh" else en).format(**values)


def text_or(language: str, name: str, default: str) -> str:
    """The text of an id that comes from data, such as a state; `default` when the catalogue has none."""
    return text(language, name) if name in TEXTS else default


def texts_under(language: str, *prefixes: str) -> dict[str, str]:
    """The texts that a page's own scripts need, with their placeholders."""
    index = 0 if language == "zh" else 1
    return {name: pair[index] for name, pair in TEXTS.items() if name.startswith(prefixes)}


def yuan(amount_fen: int) -> str:
    """¥8.00"""
    sign = "−" if amount_fen < 0 else ""
    return f"{sign}¥{format_yuan(abs(amount_fen))}"


def local_time(instant: datetime, zone: str = ZONE_DEFAULT, seconds: bool = False) -> str:
    """An instant on the wall of its store."""
    return instant.astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")


def part_of(language: str, words: Mapping[str, str]) -> str:
    """The page's language out of a pair."""
    return words[language]
