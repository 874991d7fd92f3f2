"""From what a run saw to a verdict for each rule: pure, nothing is sent or waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from devices import codec, wire
from devices.agent_config import WILL_DELAY_S
from devices.conformance.packets import Connect, Packet, Publish, Subscribe
from devices.conformance.record import Record
from devices.conformance.rules import RULES, Finding, Verdict
from devices.conformance.tap import Seen
from devices.liveness import PROPERTY, SIGNATURE_CHARACTERS, check_signature
from devices.refusals import Undecodable
from devices.sending import EVENT_EXPIRY_S, FACE_EXPIRY_S
from models.domain.device_score import Signature
from models.domain.ids import LaneId, RegionId, StoreId, TerminalId
from models.domain.presence import Birth, Death
from models.domain.registry import RegisteredTerminal

PACKET_BYTES_MAX = 256 * 1024
KEEPALIVE_S = 30
SESSION_EXPIRY_S = 3600

Outcome = tuple[Verdict, str]
Judge = Callable[[Record], Outcome]


def findings(record: Record, resend_s: float, reconnect_s: float) -> list[Finding]:
    """Every rule's outcome. What was not reached is skipped; a device that never connected fails the first rule."""
    judges: dict[str, Judge] = {
        **_JUDGES,
        "event.resent": lambda record: _resent(record, resend_s),
        "reconnect.backoff": lambda record: _backoff(record, reconnect_s),
    }
    assert sorted(judges) == sorted(RULES), "each rule has a judge"
    found = []
    for key, rule in RULES.items():
        if record.connect is None:
            outcome: Outcome = (Verdict.SKIPPED, "it never connected")
            if key == "connect.version":
                outcome = (Verdict.FAILED, "; ".join(["it never connected", *record.tap.not_mqtt]))
        else:
            outcome = judges[key](record)
        found.append(Finding(rule, *outcome))
    return found


# ---------------------------------------------------------------- reading


def document(packet: Packet) -> dict[str, Any]:
    """A message's JSON object; an empty one when it is none."""
    if not isinstance(packet, Publish):
        return {}
    try:
        found = msgspec.json.decode(packet.payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def message_id(packet: Packet) -> str | None:
    """The id of an event or a face."""
    if not isinstance(packet, Publish):
        return None
    found = dict(packet.properties).get("id") if packet.topic.endswith("/up/face") else document(packet).get("id")
    return found if isinstance(found, str) else None


def same_event(first: Packet, other: Packet) -> bool:
    """One event, even if its sender changed the id when it sent it again."""
    one, two = document(first), document(other)
    place = [one.get("boot"), one.get("seq")]
    return bool(one) and (one.get("id") == two.get("id") or place == [two.get("boot"), two.get("seq")])


def _published(record: Record, channel: str, after: int = 0) -> Iterator[tuple[Seen, Publish]]:
    topic = f"{record.prefix}/up/{channel}"
    for seen in record.tap.seen[after:]:
        if isinstance(seen.packet, Publish) and seen.packet.topic == topic:
            yield seen, seen.packet


def _terminal(record: Record) -> RegisteredTerminal:
    _, _, region, _, store, _ = record.prefix.split("/")
    return RegisteredTerminal(
        TerminalId(record.terminal), StoreId(store), RegionId(region), LaneId("lane"), "face", "conformance"
    )


def _ok(holds: bool, why: str) -> Outcome:
    return (Verdict.PASSED, "") if holds else (Verdict.FAILED, why)


def _seen_or_not(value: bool | None, why: str) -> Outcome:
    return (Verdict.SKIPPED, "nobody looked") if value is None else _ok(value, why)


# ---------------------------------------------------------------- connecting


def _of_connect(judge: Callable[[Record, Connect], Outcome]) -> Judge:
    def judged(record: Record) -> Outcome:
        connect = record.connect
        assert connect is not None, "findings() looked"
        if connect.level != 5:
            return Verdict.SKIPPED, "no MQTT 5"
        return judge(record, connect)

    return judged


def _version(record: Record) -> Outcome:
    connect = record.connect
    return _ok(connect is not None and connect.level == 5, f"level {connect.level if connect else '?'}; MQTT 5 is 5")


def _identity(record: Record, connect: Connect) -> Outcome:
    named = connect.client_id.partition(".")[0] == record.terminal and connect.username == record.terminal
    return _ok(named, f"user {connect.username!r}, client id {connect.client_id!r}")


def _clean_start(_: Record, connect: Connect) -> Outcome:
    return _ok(not connect.clean_start, "clean start true: what was sent while it was away is lost")


def _session_expiry(_: Record, connect: Connect) -> Outcome:
    return _ok(connect.session_expiry_s == SESSION_EXPIRY_S, f"{connect.session_expiry_s} s")


def _keepalive(_: Record, connect: Connect) -> Outcome:
    return _ok(connect.keepalive_s == KEEPALIVE_S, f"{connect.keepalive_s} s")


def _death(connect: Connect) -> Death | None:
    if connect.will is None:
        return None
    try:
        found = codec.decode_presence(connect.will.payload)
    except Undecodable:
        return None
    return found if isinstance(found, Death) else None


def _will_form(record: Record, connect: Connect) -> Outcome:
    will = connect.will
    if will is None:
        return Verdict.FAILED, "no Will: a dead terminal would look alive"
    fits = (will.topic, will.qos, will.retain) == (f"{record.prefix}/up/presence", 1, True)
    return _ok(fits, f"{will.topic} QoS {will.qos}{', retained' if will.retain else ', not retained'}")


def _will_conn(_: Record, connect: Connect) -> Outcome:
    if connect.will is None:
        return Verdict.SKIPPED, "no Will"
    return _ok(_death(connect) is not None, "its payload is not {v, online:false, boot, conn}")


def _will_delay(_: Record, connect: Connect) -> Outcome:
    if connect.will is None:
        return Verdict.SKIPPED, "no Will"
    return _ok(connect.will.delay_s == WILL_DELAY_S, f"{connect.will.delay_s} s")


def _will_fresh(record: Record, connect: Connect) -> Outcome:
    again = record.connect_of(1)
    if again is None:
        return Verdict.SKIPPED, "it connected once only"
    first, second = _death(connect), _death(again)
    if first is None or second is None:
        return Verdict.SKIPPED, "no conn to compare"
    return _ok(first.conn != second.conn, f"twice {first.conn}")


def _subscribed(record: Record, n: int) -> Outcome:
    if len(record.connects) <= n:
        return Verdict.SKIPPED, "it connected once only"
    connection = record.tap.seen[record.connects[n]].connection
    filters = {
        name
        for seen in record.tap.seen
        if seen.connection == connection and isinstance(seen.packet, Subscribe)
        for name, qos in seen.packet.filters
        if qos >= 1
    }
    down = f"{record.prefix}/down"
    channels = {f"{down}/{channel}" for channel in ("desired", "screen", "reply", "command")}
    return _ok(bool(filters & {f"{down}/#", f"{down}/+"}) or channels <= filters, f"subscribed {sorted(filters)}")


# ---------------------------------------------------------------- state


def _birth(record: Record) -> Outcome:
    for n, index in enumerate(record.connects):
        connection, connect = record.tap.seen[index].connection, record.connect_of(n)
        assert connect is not None
        births = [one for seen, one in _published(record, "presence") if seen.connection == connection]
        if not births:
            return Verdict.FAILED, "no birth after connecting"
        try:
            birth = codec.decode_presence(births[0].payload)
        except Undecodable as refusal:
            return Verdict.FAILED, refusal.message
        if not isinstance(birth, Birth) or not births[0].retain or births[0].qos != 1:
            return Verdict.FAILED, "a birth is online:true, retained, QoS 1"
        death = _death(connect)
        if death is not None and death.conn != birth.conn:
            return Verdict.FAILED, f"conn {birth.conn} is not the Will's {death.conn}"
    return Verdict.PASSED, ""


def _reported(record: Record) -> Outcome:
    found = [one for _, one in _published(record, "reported")]
    if not found:
        return Verdict.FAILED, "it never reported"
    for one in found:
        try:
            codec.decode_reported(one.payload)
        except Undecodable as refusal:
            return Verdict.FAILED, refusal.message
    return _ok(all(one.retain and one.qos == 1 for one in found), "a report is retained, QoS 1")


def _applied(record: Record) -> Outcome:
    return _ok(record.applied is not None, "no report with the new applied_gen")


def _stale(record: Record) -> Outcome:
    if record.applied is None or record.stale_from is None:
        return Verdict.SKIPPED, "the newer one was not applied"
    held = document(record.tap.seen[record.applied].packet)["applied_gen"]
    after = [document(one).get("applied_gen") for _, one in _published(record, "reported", record.stale_from)]
    return _ok(all(gen == held for gen in after), f"went from {held} to {after}")


def _answered(record: Record) -> Outcome:
    if record.answered is None:
        return Verdict.FAILED, "no response with the command's correlation data on its own up/response"
    packet = record.tap.seen[record.answered].packet
    assert isinstance(packet, Publish)
    try:
        codec.decode_response(packet.payload, packet.correlation)
    except Undecodable as refusal:
        return Verdict.FAILED, refusal.message
    return Verdict.PASSED, ""


def _resynced(record: Record) -> Outcome:
    return _ok(any(_published(record, "reported", record.resync_from)), "no report after resync")


def _unknown(record: Record) -> Outcome:
    if record.unknown is None:
        return (Verdict.SKIPPED, "it answers no command") if record.answered is None else (Verdict.FAILED, "no answer")
    status = document(record.tap.seen[record.unknown].packet).get("status")
    return _ok(status in {"rejected", "failed"}, f"status {status!r}")


def _foreign(record: Record) -> Outcome:
    if record.foreign_id is None:
        return Verdict.SKIPPED, "not reached"
    ours = f"{record.prefix}/up/"
    for seen in record.tap.seen:
        packet = seen.packet
        if isinstance(packet, Publish):
            if packet.correlation == record.foreign_id.encode():
                return Verdict.FAILED, f"it answered on {packet.topic}"
            if not packet.topic.startswith(ours):
                return Verdict.FAILED, f"it wrote to {packet.topic}"
    return Verdict.PASSED, ""


# ---------------------------------------------------------------- events and faces


def _event_form(record: Record) -> Outcome:
    events = [one for _, one in _published(record, "event")]
    if not events:
        return Verdict.FAILED, "it sent no event"
    for one in events:
        try:
            codec.decode_event(one.payload, _terminal(record))
        except Undecodable as refusal:
            return Verdict.FAILED, refusal.message
        if one.qos != 1 or one.retain or one.expiry_s != EVENT_EXPIRY_S:
            return Verdict.FAILED, f"QoS {one.qos}, retained {one.retain}, expiry {one.expiry_s} s"
    return Verdict.PASSED, ""


def _places(record: Record) -> Iterator[tuple[str, int]]:
    """(boot, seq) of events and faces in the order they were first sent.

    Until its reply the unanswered event counts once, whatever its id: a new one is event.same_bytes' to find.
    """
    known = set()
    events, faces = f"{record.prefix}/up/event", f"{record.prefix}/up/face"
    first = None if record.event is None else record.tap.seen[record.event].packet
    for index, seen in enumerate(record.tap.seen):
        packet = seen.packet
        if not isinstance(packet, Publish) or packet.topic not in (events, faces):
            continue
        head: dict[str, Any] = document(packet) if packet.topic == events else dict(packet.properties)
        unanswered = record.replied_from is None or index < record.replied_from
        again = first is not None and packet is not first and unanswered and same_event(first, packet)
        if not again and head.get("id") not in known:
            known.add(head.get("id"))
            yield str(head.get("boot")), int(head.get("seq") or 0)


def _seq(record: Record) -> Outcome:
    last: dict[str, int] = {}
    for boot, seq in _places(record):
        if boot in last and seq != last[boot] + 1:
            return Verdict.FAILED, f"after {last[boot]} came {seq}"
        if seq < 1:
            return Verdict.FAILED, f"seq {seq}; the first of a boot is 1"
        last[boot] = seq
    return (Verdict.PASSED, "") if last else (Verdict.SKIPPED, "it sent no event")


def _resent(record: Record, resend_s: float) -> Outcome:
    if record.event is None:
        return Verdict.SKIPPED, "it sent no event"
    if record.resend is None:
        return Verdict.FAILED, f"not sent again within {resend_s * 3:g} s"
    after_s = record.tap.seen[record.resend].at_s - record.tap.seen[record.event].at_s
    return _ok(after_s >= resend_s / 2, f"already after {after_s:.2f} s")


def _same_bytes(record: Record) -> Outcome:
    if record.event is None or record.resend is None:
        return Verdict.SKIPPED, "it sent nothing again"
    one, two = (record.tap.seen[index].packet for index in (record.event, record.resend))
    assert isinstance(one, Publish)
    assert isinstance(two, Publish)
    return _ok(one.payload == two.payload, "the second message differs from the first")


def _replayed(record: Record) -> Outcome:
    if record.event is None or len(record.connects) < 2:
        return Verdict.SKIPPED, "it sent no event" if record.event is None else "it did not come back"
    return _ok(record.replay is not None, "what had no reply was not sent after the reconnect")


def _stops(record: Record) -> Outcome:
    if record.event is None or record.replied_from is None:
        return Verdict.SKIPPED, "not reached"
    first = record.tap.seen[record.event].packet
    name = document(first).get("id")
    after = [one for _, one in _published(record, "event", record.replied_from) if document(one).get("id") == name]
    return _ok(not after, "sent again after its reply")


def _face_action(record: Record) -> Outcome:
    if record.face_from is None:
        return Verdict.SKIPPED, "not reached"
    early = len(list(_published(record, "face"))) - len(list(_published(record, "face", record.face_from)))
    return _ok(not early, "a face came before anybody asked for one")


def _face_form(record: Record) -> Outcome:
    faces = [one for _, one in _published(record, "face")]
    if not faces:
        return (Verdict.SKIPPED, "no face was sent")
    for one in faces:
        if len(one.payload) > wire.FACE_BYTES_MAX:
            return Verdict.FAILED, f"{len(one.payload)} bytes"
        if one.content_type != "image/jpeg" or one.expiry_s != FACE_EXPIRY_S or one.qos != 1 or one.retain:
            return Verdict.FAILED, f"type {one.content_type}, expiry {one.expiry_s} s, QoS {one.qos}"
        try:
            msgspec.convert(dict(one.properties), wire.FaceProperties, strict=False)
        except msgspec.ValidationError as error:
            return Verdict.FAILED, f"user properties: {error}"
        if not one.payload.startswith(b"\xff\xd8"):
            return Verdict.FAILED, "no JPEG"
    return Verdict.PASSED, ""


def _face_late(record: Record) -> Outcome:
    if record.face is None:
        return Verdict.SKIPPED, "no face was sent"
    return _ok(record.late_face is None, "it was sent again when it was too old")


def _face_signed(record: Record) -> Outcome:
    """Without the device's public key only the form of a signature is looked at."""
    scored = [one for _, one in _published(record, "face") if "liveness" in dict(one.properties)]
    if not scored:
        return (Verdict.SKIPPED, "it sent no liveness score")
    for one in scored:
        properties = dict(one.properties)
        sent = properties.get(PROPERTY)
        if record.liveness_key is None:
            if sent is None:
                return Verdict.SKIPPED, "its scores are not signed; --liveness-key if they should be"
            if len(sent) != SIGNATURE_CHARACTERS:
                return Verdict.FAILED, f"{PROPERTY} has {len(sent)} characters; base64url of 64 bytes has 86"
            continue
        if "session" not in properties:
            return Verdict.FAILED, "a signed score names its visit: no session among the user properties"
        found = check_signature((record.liveness_key,), one.topic, properties, one.payload, sent=sent)
        if found is not Signature.VALID:
            return Verdict.FAILED, f"signature {found}: the nine lines of Signed liveness, as sent, by this key"
    return Verdict.PASSED, ""


# ---------------------------------------------------------------- the rest


def _limit(record: Record) -> Outcome:
    longest = max((seen.length_bytes for seen in record.tap.seen), default=0)
    return _ok(longest <= PACKET_BYTES_MAX and not record.tap.not_mqtt, f"{longest} bytes; {record.tap.not_mqtt}")


def _backoff(record: Record, reconnect_s: float) -> Outcome:
    if len(record.pauses_s) < 2:
        return Verdict.SKIPPED, "its id was not taken over twice"
    told = ", ".join(f"{pause:.2f}" for pause in record.pauses_s)
    return _ok(sum(record.pauses_s) >= reconnect_s, f"it came back after {told} s")


_JUDGES: dict[str, Judge] = {
    "connect.version": _version,
    "connect.identity": _of_connect(_identity),
    "connect.clean_start": _of_connect(_clean_start),
    "connect.session_expiry": _of_connect(_session_expiry),
    "connect.keepalive": _of_connect(_keepalive),
    "will.form": _of_connect(_will_form),
    "will.conn": _of_connect(_will_conn),
    "will.fresh_conn": _of_connect(_will_fresh),
    "will.delay": _of_connect(_will_delay),
    "subscribe.connect": lambda record: _subscribed(record, 0),
    "subscribe.reconnect": lambda record: _subscribed(record, 1),
    "birth": _birth,
    "reported": _reported,
    "desired.applied": _applied,
    "desired.stale": _stale,
    "command.answered": _answered,
    "command.resync": _resynced,
    "command.unknown": _unknown,
    "command.foreign": _foreign,
    "event.form": _event_form,
    "event.seq": _seq,
    "event.same_bytes": _same_bytes,
    "event.replayed": _replayed,
    "event.stops": _stops,
    "face.action": _face_action,
    "face.form": _face_form,
    "face.late": _face_late,
    "face.signed": _face_signed,
    "screen.order": lambda record: _seen_or_not(record.keeps_newer, "it shows the older screen"),
    "screen.unknown_prompt": lambda record: _seen_or_not(record.shows_unknown, "its text is not shown"),
    "fields.unknown": lambda record: _seen_or_not(record.ignores_fields, "a screen with a new field is not shown"),
    "packet.large": lambda record: _seen_or_not(record.takes_large, "a large screen is not shown"),
    "packet.limit": _limit,
    "garbage": lambda record: _seen_or_not(record.survives, "it disconnected or fell silent"),
}
