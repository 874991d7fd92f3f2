"""What is examined: each rule of the terminal protocol that can be seen from outside a device."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How one rule came out."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; `key` is stable."""

    key: str
    zh: str
    en: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule's outcome and why."""

    rule: Rule
    verdict: Verdict
    detail: str = ""


RULES: dict[str, Rule] = {
    rule.key: rule
    for rule in (
        Rule("connect.version", "使用 MQTT 5", "Speaks MQTT 5"),
        Rule("connect.identity", "用户名为终端编号，客户端编号以它开头", "User name = terminal id, client id is it"),
        Rule("connect.clean_start", "clean start 为 false", "Clean start false"),
        Rule("connect.session_expiry", "会话保留 3600 秒", "Session expiry 3600 s"),
        Rule("connect.keepalive", "keepalive 30 秒", "Keepalive 30 s"),
        Rule("will.form", "遗嘱写入自己的 up/presence，保留，QoS 1", "Will on its own up/presence, retained, QoS 1"),
        Rule("will.conn", "遗嘱带有本次连接的 conn", "The Will names its connection"),
        Rule("will.fresh_conn", "每次连接使用新的 conn", "A fresh conn for each connection"),
        Rule("will.delay", "遗嘱延迟 15 秒", "Will delay 15 s"),
        Rule("subscribe.connect", "连接后订阅自己的 down", "Subscribes its own down/ in on_connect"),
        Rule("subscribe.reconnect", "重连后再次订阅", "Subscribes again after a reconnect"),
        Rule("birth", "上线消息完整、保留，conn 与遗嘱相同", "A whole birth, retained, of the Will's connection"),
        Rule("reported", "报告所运行的内容，保留", "Reports what it runs, retained"),
        Rule("desired.applied", "采用新的 desired 并报告", "Applies a newer desired and reports it"),
        Rule("desired.stale", "忽略旧的 desired", "Ignores an older desired"),
        Rule("command.answered", "以相同的关联数据回答命令", "Answers a command with its correlation data"),
        Rule("command.resync", "resync 后再次报告", "Reports again on resync"),
        Rule("command.unknown", "拒绝未知命令", "Rejects a verb that it does not know"),
        Rule("command.foreign", "忽略回复主题不属于自己的命令", "Ignores a command with a foreign response topic"),
        Rule("event.form", "事件符合协议：QoS 1、不保留、24 小时过期", "Events fit: QoS 1, not retained, 24 h expiry"),
        Rule("event.seq", "seq 每次加一，事件与刷脸共用", "seq rises by one over events and faces"),
        Rule("event.resent", "5 秒无回复则重发", "Sends again after 5 s without a reply"),
        Rule("event.same_bytes", "重发内容逐字节相同", "Sends the same bytes again"),
        Rule("event.replayed", "重连后立即重发", "Sends again after a reconnect"),
        Rule("event.stops", "收到回复后不再发送", "Stops when the reply has come"),
        Rule("face.action", "仅在顾客操作之后发送人脸", "A face only after a customer's action"),
        Rule("face.form", "人脸为 JPEG，不超过 192 KiB，10 秒过期", "A face is JPEG, 192 KiB at most, expiry 10 s"),
        Rule("face.late", "拍摄 10 秒后不再发送人脸", "No face is sent 10 s after its capture"),
        Rule("face.signed", "活体分的签名有效", "The signature of a liveness score fits"),
        Rule("screen.order", "不显示较旧的屏幕", "An older screen does not replace a newer one"),
        Rule("screen.unknown_prompt", "未知提示显示其文字", "Shows the text of an unknown prompt"),
        Rule("fields.unknown", "忽略未知字段", "Ignores fields that it does not know"),
        Rule("packet.large", "能接收大的屏幕", "Takes a large screen"),
        Rule("packet.limit", "从不发送超过 256 KiB 的报文", "Never sends a packet above 256 KiB"),
        Rule("garbage", "无法读取的消息不影响连接", "Survives messages that cannot be read"),
        Rule("reconnect.backoff", "同一编号的两个客户端：退避", "With two clients under one id it backs off"),
    )
}
