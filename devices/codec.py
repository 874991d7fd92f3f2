"""Bytes to frozen values and back, at the door, once: past it nobody sees a dict.

Every decoder gives a value of models.domain.messages or raises Undecodable with a stable code; nothing else comes
out of it, whatever the bytes are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET

from devices import wire
from devices.liveness import check_signature
from devices.profiles import traits_of
from devices.refusals import Undecodable, WireCode
from devices.topics import Up, topic_of
from models.domain.device_score import Signature
from models.domain.events import (
    AgeCheck,
    Amount,
    Basket,
    Cancel,
    Claim,
    Complaint,
    Confirm,
    Consent,
    Digits,
    Enrol,
    Event,
    EventBody,
    FaceShown,
    Identify,
    Lease,
    LeaseEnd,
    OfflineSale,
    Paid,
    ProviderAuth,
    Remove,
    Return,
    ReturnLine,
    SaleBenefit,
    SaleVoucherClaim,
    Scan,
    SessionOpen,
    Tender,
    TillLine,
    Void,
    Voucher,
)
from models.domain.ids import BenefitId, LeaseId, MembershipId, MessageId, PlanId, SessionId
from models.domain.presence import Birth, CommandResponse, Death, Reported
from models.domain.registry import RegisteredTerminal
from models.domain.screen import ReplyBody, Screen

D = TypeVar("D")

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_WHERE = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")
_JPEG_START = b"\xff\xd8"


# ---------------------------------------------------------------- up/event


def decode_event(payload: bytes, terminal: RegisteredTerminal) -> Event:
    """One `up/event` of a registered terminal.

    Raises Undecodable: too_large, bad_json, unsupported_version, bad_id, unknown_type, bad_field (names it).
    """
    if len(payload) > wire.EVENT_BYTES_MAX:
        raise _too_large("an event", len(payload), wire.EVENT_BYTES_MAX, _id_of(payload))
    try:
        envelope = _ENVELOPE.decode(payload)
    except (ValueError, RecursionError) as error:
        raise _refused_envelope(payload, error) from None
    message_id = MessageId(envelope.id)
    decoder = _BODIES.get(envelope.type)
    if decoder is None:
        raise Undecodable(
            WireCode.UNKNOWN_TYPE,
            f"this host knows no event type {envelope.type!a}",
            "send only the event types that the screen lists under actions",
            message_id,
        )
    try:
        body = decoder(envelope.body)
    except (ValueError, RecursionError) as error:
        raise _bad_field(error, message_id, "body") from None
    return Event(
        id=message_id,
        boot=envelope.boot,
        seq=envelope.seq,
        ts=_utc(envelope.ts, message_id),
        terminal=terminal.terminal,
        role=terminal.role,
        session=None if envelope.session is None else SessionId(envelope.session),
        clerk=envelope.clerk,
        replay=envelope.replay,
        body=body,
        traits=traits_of(terminal.profile),
    )


def _auth(body: wire.AuthBody | None) -> ProviderAuth | None:
    return None if body is None else ProviderAuth(body.provider, body.token)


def _tenders(bodies: tuple[wire.TenderBody, ...]) -> tuple[Tender, ...]:
    return tuple(Tender(body.kind, body.fen, _auth(body.auth), body.tendered_fen) for body in bodies)


def _enrol(body: wire.EnrolBody) -> Enrol:
    return Enrol(PlanId(body.plan), body.guarantee, body.phone, _auth(body.auth))


def _till_lines(lines: tuple[wire.TillLineBody, ...]) -> tuple[TillLine, ...]:
    return tuple(
        TillLine(line.line, line.code, line.name, line.quantity, line.unit_fen, line.net_fen, line.weight_g, line.flags)
        for line in lines
    )


def _basket(body: wire.BasketBody) -> Basket:
    return Basket(body.till_txn, body.rev, _till_lines(body.lines), body.total_fen)


def _return(body: wire.ReturnBody) -> Return:
    lines = tuple(ReturnLine(line.line, line.quantity) for line in body.lines)
    return Return(body.receipt, lines, body.reason)


def _sale(body: wire.SaleBody) -> OfflineSale:
    benefits = tuple(
        SaleBenefit(
            None if given.lease is None else LeaseId(given.lease),
            MembershipId(given.membership),
            BenefitId(given.benefit),
            given.fen,
        )
        for given in body.benefits
    )
    vouchers = tuple(SaleVoucherClaim(given.code, given.fen) for given in body.vouchers)
    lines, tenders = _till_lines(body.lines), _tenders(body.tenders)
    return OfflineSale(lines, tenders, body.total_fen, benefits, body.till_txn, vouchers)


def _body(document: type[D], convert: Callable[[D], EventBody]) -> Callable[[bytes | msgspec.Raw], EventBody]:
    decode = msgspec.json.Decoder(document).decode
    return lambda raw: convert(decode(raw))


_ENVELOPE = msgspec.json.Decoder(wire.Envelope)
_HEAD = msgspec.json.Decoder(wire.EnvelopeHead)
_BODIES: dict[str, Callable[[bytes | msgspec.Raw], EventBody]] = {
    "session.open": _body(wire.SessionOpenBody, lambda b: SessionOpen(b.till_txn)),
    "digits": _body(wire.DigitsBody, lambda b: Digits(b.tail)),
    "consent": _body(wire.ConsentBody, lambda b: Consent(b.purpose, b.text, b.granted)),
    "enrol": _body(wire.EnrolBody, _enrol),
    "scan": _body(wire.ScanBody, lambda b: Scan(b.code, b.quantity)),
    "remove": _body(wire.RemoveBody, lambda b: Remove(b.line)),
    "basket": _body(wire.BasketBody, _basket),
    "confirm": _body(wire.ConfirmBody, lambda b: Confirm(b.rev, _tenders(b.tenders), b.collect)),
    "paid": _body(wire.PaidBody, lambda b: Paid(b.till_txn, b.rev, _tenders(b.tenders))),
    "cancel": _body(wire.CancelBody, lambda _: Cancel()),
    "void": _body(wire.VoidBody, lambda b: Void(b.receipt)),
    "complaint": _body(wire.ComplaintBody, lambda b: Complaint(b.about)),
    "identify": _body(wire.IdentifyBody, lambda b: Identify(b.by, b.value)),
    "amount": _body(wire.AmountBody, lambda b: Amount(b.till_txn, b.fen)),
    "voucher": _body(wire.VoucherBody, lambda b: Voucher(b.code)),
    "claim": _body(wire.ClaimBody, lambda b: Claim(b.offer)),
    "age_check": _body(wire.AgeCheckBody, lambda b: AgeCheck(b.result == "ok")),
    "lease": _body(wire.LeaseBody, lambda b: Lease(BenefitId(b.benefit), b.uses)),
    "lease.end": _body(wire.LeaseEndBody, lambda b: LeaseEnd(LeaseId(b.lease))),
    "return": _body(wire.ReturnBody, _return),
    "sale": _body(wire.SaleBody, _sale),
}
EVENT_TYPES = tuple(_BODIES)
"""The event types that this host accepts."""


# ---------------------------------------------------------------- up/face and the other channels


def decode_face(
    payload: bytes, properties: Mapping[str, str], terminal: RegisteredTerminal, received_at: datetime
) -> Event:
    """One `up/face`: the JPEG itself, and its envelope from the user properties. A face has no `ts` of its own, so
    the event carries `received_at`. The signature of its score is looked at here, where the bytes are.

    Raises Undecodable: too_large, bad_id, bad_field, not_jpeg. The image is opened later, in a face worker.
    """
    message_id = _id_or_none(properties.get("id"))
    if len(payload) > wire.FACE_BYTES_MAX:
        raise _too_large("a face", len(payload), wire.FACE_BYTES_MAX, message_id)
    if message_id is None:
        raise _bad_id(properties.get("id"))
    try:
        head = msgspec.convert(properties, wire.FaceProperties, strict=False)
    except (ValueError, RecursionError) as error:
        raise _bad_field(error, message_id, "user property") from None
    if not payload.startswith(_JPEG_START):
        raise Undecodable(WireCode.NOT_JPEG, "a face is one JPEG image; this is none", "send baseline JPEG", message_id)
    signature = Signature.NO_KEY
    if head.liveness is not None and terminal.liveness_keys:
        topic = str(topic_of(terminal, Up.FACE))
        signature = check_signature(terminal.liveness_keys, topic, properties, payload, sent=head.liveness_sig)
    return Event(
        id=message_id,
        boot=head.boot,
        seq=head.seq,
        ts=received_at,
        terminal=terminal.terminal,
        role=terminal.role,
        session=None if head.session is None else SessionId(head.session),
        clerk=None,
        replay=False,
        body=FaceShown(payload, head.kind, head.liveness, signature),
        traits=traits_of(terminal.profile),
    )


def decode_presence(payload: bytes) -> Birth | Death:
    """`up/presence`: a birth, or the Will of a connection. A birth names its software, profile and time."""
    document = _decode(_PRESENCE, payload)
    if not document.online:
        return Death(document.boot, document.conn)
    if document.software is None or document.profile is None or document.ts is None:
        raise Undecodable(WireCode.BAD_FIELD, "a birth needs software, profile and ts", "send the whole birth document")
    return Birth(document.boot, document.conn, document.software, document.profile, _utc(document.ts, None))


def decode_reported(payload: bytes) -> Reported:
    """`up/reported`: what the terminal runs."""
    document = _decode(_REPORTED, payload)
    health = _ENCODER.encode(document.health)
    kept = health.decode() if document.health and len(health) <= wire.HEALTH_BYTES_MAX else ""
    return Reported(document.applied_gen, document.config_hash, document.software, document.boot, kept)


def decode_telemetry(payload: bytes) -> dict[str, Any]:
    """`up/telemetry`: one JSON object of the terminal's own, at most 4 KiB. Raises Undecodable.

    `v` may be absent; another version than 1 is refused. NUL characters are refused: no database keeps them.
    """
    if len(payload) > wire.TELEMETRY_BYTES_MAX:
        raise _too_large("telemetry", len(payload), wire.TELEMETRY_BYTES_MAX)
    try:
        document = _TELEMETRY.decode(payload)
    except (ValueError, RecursionError) as error:
        raise _refused_envelope(payload, error) from None
    if document.get("v", wire.VERSION) != wire.VERSION:
        raise Undecodable(WireCode.UNSUPPORTED_VERSION, "telemetry of another version", f"send v: {wire.VERSION}")
    if b"\\u0000" in payload or b"\0" in payload:
        raise Undecodable(WireCode.BAD_FIELD, "NUL in telemetry", "leave it out")
    if _too_deep(document, wire.TELEMETRY_LEVELS_MAX):
        what = f"telemetry is nested in more than {wire.TELEMETRY_LEVELS_MAX} levels"
        raise Undecodable(WireCode.BAD_FIELD, what, "send a flatter object")
    return document


def _too_deep(value: object, levels: int) -> bool:
    """What is read here with some stack left is written elsewhere with less."""
    if not isinstance(value, dict | list):
        return False
    inside = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_too_deep(one, levels - 1) for one in inside)


def decode_response(payload: bytes, correlation: bytes | None) -> CommandResponse:
    """`up/response`: which command is answered stands in the correlation data."""
    command = _id_or_none((correlation or b"").decode("ascii", "replace"))
    if command is None:
        raise Undecodable(
            WireCode.BAD_ID,
            "a response needs the command's id as correlation data",
            "copy the command's correlation data into the response",
        )
    document = _decode(_RESPONSE, payload)
    return CommandResponse(command, document.status, document.detail.replace("\0", ""))


_PRESENCE = msgspec.json.Decoder(wire.PresenceDocument)
_REPORTED = msgspec.json.Decoder(wire.ReportedDocument)
_RESPONSE = msgspec.json.Decoder(wire.ResponseDocument)
_TELEMETRY = msgspec.json.Decoder(dict[str, Any])


def _decode(decoder: msgspec.json.Decoder[D], payload: bytes) -> D:
    if len(payload) > wire.EVENT_BYTES_MAX:
        raise _too_large("a document", len(payload), wire.EVENT_BYTES_MAX)
    try:
        return decoder.decode(payload)
    except (ValueError, RecursionError) as error:
        raise _refused_envelope(payload, error) from None


# ---------------------------------------------------------------- what a host sends

_ENCODER = msgspec.json.Encoder()


def encode_reply(reply: ReplyBody) -> bytes:
    """`down/reply`. `id` stays, null included; `pending`, `session` and `error` are absent when they do not apply."""
    return _ENCODER.encode(
        wire.ReplyDocument(
            v=reply.v,
            id=reply.id,
            ok=reply.ok,
            pending=reply.pending,
            session=UNSET if reply.session is None else reply.session,
            error=UNSET if reply.error is None else reply.error,
            lease=UNSET if reply.lease is None else reply.lease,
        )
    )


def encode_screen(screen: Screen) -> bytes:
    """`down/screen`. member, membership, prompt and receipt stay as null; `paid` is absent when None."""
    paid: tuple[wire.PaidDocument, ...] | msgspec.UnsetType = UNSET
    if screen.paid is not None:
        paid = tuple(
            wire.PaidDocument(
                kind=tender.kind,
                fen=tender.fen,
                payer_fen=tender.payer_fen,
                tendered_fen=UNSET if tender.tendered_fen is None else tender.tendered_fen,
                change_fen=UNSET if tender.change_fen is None else tender.change_fen,
            )
            for tender in screen.paid
        )
    return _ENCODER.encode(
        wire.ScreenDocument(
            v=screen.v,
            session=screen.session,
            rev=screen.rev,
            basket_rev=screen.basket_rev,
            state=screen.state,
            member=screen.member,
            lines=screen.lines,
            gross_fen=screen.gross_fen,
            discount_fen=screen.discount_fen,
            due_fen=screen.due_fen,
            cash_due_fen=screen.cash_due_fen,
            paid=paid,
            membership=screen.membership,
            offers=screen.offers,
            suggestions=screen.suggestions,
            prompt=screen.prompt,
            actions=screen.actions,
            receipt=screen.receipt,
            vouchers=screen.vouchers,
        )
    )


def encode_desired(gen: int, config: Mapping[str, object], software: wire.SoftwareRelease | None = None) -> bytes:
    """`down/desired`: the whole document, never a difference."""
    return _ENCODER.encode(wire.DesiredDocument(wire.VERSION, gen, dict(config), software))


def encode_command(command: MessageId, verb: str, args: Mapping[str, str | int]) -> bytes:
    """`down/command`. Its deadline is the message's expiry, not a field."""
    return _ENCODER.encode(wire.CommandDocument(wire.VERSION, command, verb, dict(args)))


# ---------------------------------------------------------------- what a terminal reads (devices.terminal)

_REPLY = msgspec.json.Decoder(ReplyBody)
_SCREEN = msgspec.json.Decoder(Screen)
_DESIRED = msgspec.json.Decoder(wire.DesiredDocument)
_COMMAND = msgspec.json.Decoder(wire.CommandDocument)


def decode_reply(payload: bytes) -> ReplyBody:
    """`down/reply`, as a terminal reads it. Raises Undecodable."""
    return _decode_down(_REPLY, payload)


def decode_screen(payload: bytes) -> Screen:
    """`down/screen`, as a terminal reads it. Raises Undecodable."""
    return _decode_down(_SCREEN, payload)


def decode_desired(payload: bytes) -> wire.DesiredDocument:
    """`down/desired`, as a terminal reads it. Raises Undecodable."""
    return _decode_down(_DESIRED, payload)


def decode_command(payload: bytes) -> wire.CommandDocument:
    """`down/command`, as a terminal reads it. Raises Undecodable."""
    return _decode_down(_COMMAND, payload)


def _decode_down(decoder: msgspec.json.Decoder[D], payload: bytes) -> D:
    try:
        return decoder.decode(payload)
    except (ValueError, RecursionError) as error:
        raise _refused_envelope(payload, error) from None


# ---------------------------------------------------------------- refusals


def _refused_envelope(payload: bytes, error: Exception) -> Undecodable:
    """Why a document as a whole was refused: the version first, then its id, then the field."""
    if not isinstance(error, msgspec.ValidationError):
        return _bad_json(error)
    try:
        head = _HEAD.decode(payload)
    except msgspec.ValidationError:
        return Undecodable(WireCode.BAD_JSON, "the document is not a JSON object", "send one JSON object")
    except (ValueError, RecursionError) as broken:
        return _bad_json(broken)
    message_id = _id_or_none(head.id)
    if head.v != wire.VERSION or isinstance(head.v, bool):
        return Undecodable(
            WireCode.UNSUPPORTED_VERSION,
            f"this host speaks version {wire.VERSION} of the terminal protocol",
            f"send v: {wire.VERSION}",
            message_id,
        )
    refusal = _bad_field(error, message_id)
    return _bad_id(head.id) if refusal.message.startswith("id:") else refusal


def _bad_json(error: Exception) -> Undecodable:
    return Undecodable(WireCode.BAD_JSON, f"not JSON in UTF-8: {error}"[:300], "send one JSON object in UTF-8")


def _bad_field(error: Exception, message_id: MessageId | None, root: str = "") -> Undecodable:
    """Names the field: `body.lines[0].fen: Expected `int` >= 0`."""
    text = str(error)
    where = _WHERE.search(text)
    path = ".".join(part for part in (root, where.group(1) if where else "") if part)
    reason = _WHERE.sub("", text)
    return Undecodable(
        WireCode.BAD_FIELD,
        f"{path}: {reason}"[:300] if path else reason[:300],
        "correct the field as the published schema says",
        message_id,
    )


def _bad_id(found: object) -> Undecodable:
    return Undecodable(
        WireCode.BAD_ID,
        f"an id is a UUID in its 36 lower-case characters, not {ascii(found)[:60]}",
        "make a new uuid7 for each event and keep it when sending again",
    )


def _too_large(what: str, size: int, limit: int, message_id: MessageId | None = None) -> Undecodable:
    return Undecodable(
        WireCode.TOO_LARGE,
        f"{what} has at most {limit} bytes, this one {size}",
        "send less: a smaller frame or an aligned crop, a basket in fewer lines",
        message_id,
    )


def _id_of(payload: bytes) -> MessageId | None:
    try:
        return _id_or_none(_HEAD.decode(payload).id)
    except (ValueError, RecursionError):
        return None


def _id_or_none(found: object) -> MessageId | None:
    return MessageId(found) if isinstance(found, str) and _UUID.fullmatch(found) else None


def _utc(moment: datetime, message_id: MessageId | None) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise Undecodable(
            WireCode.BAD_FIELD, "ts: outside the years 1 to 9999 in UTC", "set the device's clock", message_id
        ) from None
