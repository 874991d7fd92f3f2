"""The keys of a terminal that is played on a laptop: which there are, and which the screen allows now. zh and en."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from devices.profiles import TerminalProfile
from models.domain.screen import Screen


@dataclass(frozen=True, slots=True)
class Key:
    """One thing a person can do. `action`: allowed when the screen lists it; None: always."""

    usage: str
    zh: str
    en: str
    action: str | None = None
    needs: str | None = None
    """A capability of the family, by its field's name."""
    offline: bool = False
    """Also, or only, while the network is away."""
    online: bool = True


KEYS = (
    Key("who NAME", "换一位顾客", "the next customer", offline=True),
    Key("open", "顾客到来", "a customer steps up", "session.open"),
    Key("look", "同意并看摄像头", "agree, and look into the camera", "face", "has_camera"),
    Key("alive 0..1|off", "深度相机给出的活体分", "the score of the depth camera", None, "vouches_liveness"),
    Key("digits 1234", "手机号后四位", "the phone's last four digits", "digits", "has_keypad"),
    Key("identify phone|card|code VALUE", "报手机号、卡或会员码", "say phone, card or code", "identify"),
    Key("scan CODE [N]", "扫商品条码", "scan a barcode", "scan", "has_scanner", offline=True),
    Key("remove LINE", "删除一行", "take a line out", "remove", offline=True),
    Key("amount FEN [TXN]", "输入金额（停车：车牌为 TXN）", "type an amount (parking: TXN is the plate)", "amount"),
    Key("basket CODE FEN [CODE FEN …]", "收银机整单", "the till's whole basket", "basket", "owns_basket"),
    Key("age ok|refused", "店员核验年龄", "the clerk checks the age", "age_check", "has_clerk", offline=True),
    Key("voucher CODE", "用优惠券", "use a voucher", "voucher"),
    Key("enrol PLAN", "开通会员", "become a member", "enrol"),
    Key("pay cash [FEN]", "付现金", "pay cash", "confirm", "has_cash_drawer", offline=True),
    Key("pay card", "刷卡（店内刷卡机）", "pay by the shop's card terminal", None, "sells_offline", True, online=False),
    Key("pay face|code|qr", "刷脸、付款码或扫码付款", "pay by face, code or QR", "confirm", "can_pay"),
    Key("collect", "收银机自行收款", "the till collects by itself", "confirm", "owns_basket"),
    Key("paid cash|card FEN", "收银机已收款", "the till took the money", "paid", "owns_basket"),
    Key("lease BENEFIT [N]", "断网前预留优惠", "reserve uses before going offline", "lease", "sells_offline"),
    Key("give LEASE|NAME", "用预留的优惠", "use a leased benefit", None, "sells_offline", True, online=False),
    Key("giveback", "退回未用的预留", "give back what was not used", None, "sells_offline", offline=True),
    Key("void RECEIPT", "整单撤销", "undo a sale", None, "has_clerk"),
    Key("complain", "顾客投诉", "the customer complains", None),
    Key("cancel", "取消", "stop", "cancel", offline=True),
    Key("drop / back", "拔网线 / 插网线", "pull the cable / plug it in", None, offline=True),
    Key("help, quit", "全部按键，退出", "all keys, the end", None, offline=True),
)


def keys_for(profile: TerminalProfile, screen: Screen | None, *, offline: bool) -> list[Key]:
    """The keys that mean something now: what the screen's actions allow, or what can be done without a network."""
    able = [key for key in KEYS if key.needs is None or getattr(profile, key.needs)]
    if offline:
        return [key for key in able if key.offline and (profile.sells_offline or key.action is None)]
    return [key for key in able if key.online and (key.action is None or key.action in _actions(profile, screen))]


def _actions(profile: TerminalProfile, screen: Screen | None) -> Collection[str]:
    if screen is None:
        first = {"session.open", "scan"} if not profile.amount_only else {"session.open"}
        return first | ({"amount"} if profile.enters_amount else set()) | ({"basket"} if profile.owns_basket else set())
    # A customer who has not agreed yet agrees by looking; the clerk may always let the next one step up.
    looks = {"face"} if "consent" in screen.actions and screen.member is None else set()
    return {*screen.actions, *looks, "session.open"}


def text_of(key: Key, language: str) -> str:
    """One line of help."""
    return f"{key.usage:<32} {key.zh if language == 'zh' else key.en}"


WORDS = {
    "customer": ("顾客屏", "customer"),
    "clerk": ("店员屏", "clerk"),
    "item": ("商品", "item"),
    "count": ("数量", "n"),
    "fen": ("分", "fen"),
    "discount": ("优惠", "discount"),
    "due": ("应付", "due"),
    "offline": ("断网销售", "offline"),
    "receipt": ("小票", "receipt"),
    "keys": ("可用", "keys"),
    "opens": ("放行", "opens"),
    "no answer yet": ("还没有应答", "no answer yet"),
    "not understood": ("没有听懂", "not understood"),
    "stored": ("已存，联网后发送", "stored, sent when the network is back"),
    "leases": ("预留", "leases"),
    "customers": ("位顾客", "customers"),
    "signed": ("签名", "signed"),
    "not signed": ("未签名", "not signed"),
}


def word(name: str, language: str) -> str:
    """A word of the frame around the screen's own texts."""
    zh, en = WORDS[name]
    return zh if language == "zh" else en
