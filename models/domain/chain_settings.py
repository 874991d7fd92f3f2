"""The settings of a chain: a closed list, each with its type, bounds, default, and where it may be set and is read.

A setting stands here only if somebody reads it: `read_by` names who. A new one is a line here beside its reader.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from models.domain.kill_switch import Switch

Value = bool | int | str
Path = tuple[str, ...]


class Level(StrEnum):
    """Where a setting may be set; a later one wins."""

    CHAIN = "chain"
    REGION = "region"
    STORE = "store"
    TERMINAL = "terminal"


class Kind(StrEnum):
    """What a value is."""

    FLAG = "flag"
    WHOLE = "whole number"
    CHOICE = "choice"
    TEXT = "text"
    TIME = "time of day"
    ZONE = "time zone"


class Reader(StrEnum):
    """Who acts by it."""

    HOST = "host"
    """The store's host: the same for all terminals of a store."""
    TERMINAL = "terminal"
    """The device, from its desired document."""


class Needs(StrEnum):
    """What a terminal's family must have, or the setting is left out of its document."""

    NOTHING = ""
    CAMERA = "camera"
    CUSTOMER_SCREEN = "customer screen"
    OFFLINE_TILL = "offline till"


ANYWHERE = frozenset(Level)
UP_TO_STORE = frozenset({Level.CHAIN, Level.REGION, Level.STORE})
BELOW_CHAIN = frozenset({Level.REGION, Level.STORE})

_TIME = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting. `default` None: without a value it does not stand in a document at all.

    `least` and `most`: of a whole number in the unit that the name ends with, of a text in characters.
    """

    path: str
    kind: Kind
    zh: str
    en: str
    read_by: Reader
    default: Value | None = None
    least: int = 0
    most: int = 0
    choices: tuple[str, ...] = ()
    levels: frozenset[Level] = ANYWHERE
    needs: Needs = Needs.NOTHING

    @property
    def keys(self) -> Path:
        """The path as keys."""
        return tuple(self.path.split("."))

    @property
    def wanted(self) -> str:
        """What a value must be, in words."""
        match self.kind:
            case Kind.FLAG:
                return "true or false"
            case Kind.WHOLE:
                return f"a whole number from {self.least} to {self.most}"
            case Kind.CHOICE:
                return f"one of {', '.join(self.choices)}"
            case Kind.TEXT:
                return f"a text of at most {self.most} characters in one line"
            case Kind.TIME:
                return 'a time of day in quotes, "02:00"'
            case Kind.ZONE:
                return "a time zone, for example Asia/Shanghai"

    def fits(self, value: object) -> bool:
        """True for a value of its type within its bounds."""
        match self.kind:
            case Kind.FLAG:
                return isinstance(value, bool)
            case Kind.WHOLE:
                return isinstance(value, int) and not isinstance(value, bool) and self.least <= value <= self.most
            case Kind.CHOICE:
                return value in self.choices
            case Kind.TEXT:
                return isinstance(value, str) and len(value) <= self.most and value.isprintable()
            case Kind.TIME:
                return isinstance(value, str) and _TIME.fullmatch(value) is not None
            case Kind.ZONE:
                return isinstance(value, str) and _is_zone(value)


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        return False
    return True


SETTINGS: tuple[Setting, ...] = (
    Setting(
        path="language",
        kind=Kind.CHOICE,
        choices=("zh", "en"),
        levels=BELOW_CHAIN,
        read_by=Reader.HOST,
        zh="终端与小票的语言；全连锁的语言写在文件顶部",
        en="Language of terminals and receipts; the whole chain's stands at the head of its file",
    ),
    Setting(
        path="face.enabled",
        kind=Kind.FLAG,
        default=True,
        levels=UP_TO_STORE,
        needs=Needs.CAMERA,
        read_by=Reader.HOST,
        zh="是否识别人脸；关闭后照常销售",
        en="Whether faces are recognised; without it selling goes on",
    ),
    Setting(
        path="face.digits_required",
        kind=Kind.FLAG,
        default=False,
        levels=UP_TO_STORE,
        needs=Needs.CAMERA,
        read_by=Reader.HOST,
        zh="识别后总要输入手机尾号四位；一代终端始终如此",
        en="Four digits of the phone always follow a face; a terminal of the first generation always asks",
    ),
    Setting(
        path="benefits.enabled",
        kind=Kind.FLAG,
        default=True,
        levels=UP_TO_STORE,
        read_by=Reader.HOST,
        zh="会员权益是否用于新的购物",
        en="Whether members' benefits are used for new baskets",
    ),
    Setting(
        path="offers.enabled",
        kind=Kind.FLAG,
        default=True,
        levels=UP_TO_STORE,
        read_by=Reader.HOST,
        zh="是否向顾客推荐会员与优惠券",
        en="Whether memberships and coupons are offered to customers",
    ),
    Setting(
        path="timeouts.idle_s",
        kind=Kind.WHOLE,
        default=300,
        least=60,
        most=1800,
        levels=UP_TO_STORE,
        read_by=Reader.HOST,
        zh="无操作多少秒后结束一次光顾",
        en="Seconds without anything happening after which a visit is closed",
    ),
    *(
        Setting(
            path=f"receipt.footer.{code}",
            kind=Kind.TEXT,
            most=60,
            levels=UP_TO_STORE,
            read_by=Reader.HOST,
            zh=f"小票末尾的一句话（{zh}）",
            en=f"A sentence at the receipt's end ({en})",
        )
        for code, zh, en in (("zh", "中文", "Chinese"), ("en", "英文", "English"))
    ),
    Setting(
        path="offline_sales.enabled",
        kind=Kind.FLAG,
        default=True,
        needs=Needs.OFFLINE_TILL,
        read_by=Reader.TERMINAL,
        zh="断网时是否可以独立收银；不可则文档不带价目表",
        en="Whether a terminal may sell alone; if not, its document carries no price list",
    ),
    *(
        Setting(
            path=f"screen.slogan.{code}",
            kind=Kind.TEXT,
            most=40,
            needs=Needs.CUSTOMER_SCREEN,
            read_by=Reader.TERMINAL,
            zh=f"待机画面的标语（{zh}）",
            en=f"The slogan of the idle screen ({en})",
        )
        for code, zh, en in (("zh", "中文", "Chinese"), ("en", "英文", "English"))
    ),
    Setting(
        path="screen.brightness_percent",
        kind=Kind.WHOLE,
        default=80,
        least=10,
        most=100,
        needs=Needs.CUSTOMER_SCREEN,
        read_by=Reader.TERMINAL,
        zh="顾客屏亮度，百分比",
        en="Brightness of the customer's screen in per cent",
    ),
    Setting(
        path="sound.volume_percent",
        kind=Kind.WHOLE,
        default=60,
        least=0,
        most=100,
        needs=Needs.CUSTOMER_SCREEN,
        read_by=Reader.TERMINAL,
        zh="提示音音量，百分比；0 为静音",
        en="Volume of prompts in per cent; 0 is silent",
    ),
    Setting(
        path="software_window.from",
        kind=Kind.TIME,
        read_by=Reader.TERMINAL,
        zh="夜间切换软件的开始时间（门店当地）；不设则只听指令",
        en="Start of the time in which software is activated, local; without it only a command activates",
    ),
    Setting(
        path="software_window.to",
        kind=Kind.TIME,
        read_by=Reader.TERMINAL,
        zh="切换软件的结束时间，可过午夜",
        en="End of that time, which may lie after midnight",
    ),
    Setting(
        path="software_window.zone",
        kind=Kind.ZONE,
        read_by=Reader.TERMINAL,
        zh="上述时间的时区；缺省为门店时区",
        en="The zone of both; the store's otherwise",
    ),
    Setting(
        path="telemetry.every_s",
        kind=Kind.WHOLE,
        default=0,
        least=0,
        most=3600,
        read_by=Reader.TERMINAL,
        zh="终端多少秒上报一次运行指标；0 为不上报",
        en="Seconds between a terminal's samples of its own metrics; 0: none",
    ),
    Setting(
        path="watchdog.silent_s",
        kind=Kind.WHOLE,
        default=300,
        least=60,
        most=3600,
        read_by=Reader.TERMINAL,
        zh="已连接却多少秒收不到回复时终端自行重启",
        en="Seconds without a reply, although connected, after which a terminal restarts itself",
    ),
)

BY_PATH: Mapping[Path, Setting] = {setting.keys: setting for setting in SETTINGS}
GROUPS: frozenset[Path] = frozenset(path[:n] for path in BY_PATH for n in range(1, len(path)))
"""Paths that are no setting and have some below them."""
DERIVED: Mapping[str, str] = {
    "consents": "texts that customers agree to come from the chain's book: `consents` at the head of its file",
    "offline": "prices come from the chain's book; whether a terminal may sell alone is `offline_sales.enabled`",
    "basket_owner": "who keeps the basket is said of the store itself, not under settings",
    "book": "the version of a store's book is pinned by a rollout",
    "store_gen": "how often a rollout changed something for the whole store",
    "switches": "what is off at once is thrown by kill switches; a lasting choice is face.enabled, benefits.enabled or"
    " offers.enabled",
}
"""Keys of a terminal's document that nobody sets, and where they come from."""


def get(document: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path of an effective document, or the setting's default. Raises KeyError: no setting."""
    setting = BY_PATH[tuple(path.split("."))]
    inside: Any = document
    for key in setting.keys:
        if not isinstance(inside, Mapping) or key not in inside:
            return setting.default
        inside = inside[key]
    return inside if setting.fits(inside) else setting.default


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """What a store's host acts by, read once from its effective document."""

    language: str | None = None
    face: bool = True
    digits_required: bool = False
    benefits: bool = True
    offers: bool = True
    idle_s: int = 300
    footer_zh: str = ""
    footer_en: str = ""

    @property
    def off(self) -> tuple[Switch, ...]:
        """What the configuration leaves out, as kill switches say it: the visit obeys both alike."""
        said = {Switch.FACE: self.face, Switch.BENEFITS: self.benefits, Switch.OFFERS: self.offers}
        return tuple(sorted(switch for switch, on in said.items() if not on))

    def footer(self, language: str) -> str:
        """The receipt's last sentence; empty: none."""
        return self.footer_zh if language == "zh" else self.footer_en


DEFAULT_SETTINGS = StoreSettings()


def store_settings(document: Mapping[str, Any]) -> StoreSettings:
    """Of a store's effective document."""
    return StoreSettings(
        language=get(document, "language"),
        face=get(document, "face.enabled"),
        digits_required=get(document, "face.digits_required"),
        benefits=get(document, "benefits.enabled"),
        offers=get(document, "offers.enabled"),
        idle_s=get(document, "timeouts.idle_s"),
        footer_zh=get(document, "receipt.footer.zh") or "",
        footer_en=get(document, "receipt.footer.en") or "",
    )
