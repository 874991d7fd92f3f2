"""The codec: every accepted event by its value, every refusal by its code, and no third outcome."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices import codec, wire
from devices.refusals import Undecodable, WireCode
from models.domain import events as m
from models.domain.ids import BenefitId, LeaseId, MembershipId, MessageId, PlanId, SessionId
from models.domain.presence import Birth, CommandResponse, Death, Reported
from models.domain.screen import (
    Prompt,
    Receipt,
    ReceiptTender,
    ReplyBody,
    ReplyError,
    Screen,
    ScreenLine,
    ScreenMember,
    ScreenOffer,
    ScreenPaid,
    ScreenState,
)
from tests.devices.support import JPEG, encoded, event_document, registered

TERMINAL = registered()
NOW = datetime(2026, 11, 22, 4, tzinfo=UTC)
AUTH = {"provider": "alipay", "token": "f00"}
CODES = frozenset(code.value for code in WireCode)

ACCEPTED: list[tuple[str, dict[str, Any], m.EventBody]] = [
    ("session.open", {}, m.SessionOpen()),
    ("session.open", {"till_txn": "T-1"}, m.SessionOpen("T-1")),
    ("digits", {"tail": "0234"}, m.Digits("0234")),
    (
        "consent",
        {"purpose": "recognise", "text": "3", "granted": True},
        m.Consent(m.Purpose.RECOGNISE, "3", True),
    ),
    (
        "consent",
        {"purpose": "marketing", "text": "3", "granted": False},
        m.Consent(m.Purpose.MARKETING, "3", False),
    ),
    ("enrol", {"plan": "light-10", "guarantee": "huabei_hold"}, m.Enrol(PlanId("light-10"), "huabei_hold")),
    (
        "enrol",
        {"plan": "light-10", "guarantee": "sesame_credit", "phone": "13800001234", "auth": AUTH},
        m.Enrol(PlanId("light-10"), "sesame_credit", "13800001234", m.ProviderAuth("alipay", "f00")),
    ),
    ("scan", {"code": "6901234567892", "quantity": 2}, m.Scan("6901234567892", 2)),
    ("remove", {"line": 2}, m.Remove(2)),
    (
        "basket",
        {
            "till_txn": "T-1",
            "rev": 4,
            "lines": [
                {"line": 1, "code": "69", "name": "牛奶", "quantity": 2, "unit_fen": 500, "net_fen": 1000, "flags": []},
                {
                    "line": 2,
                    "code": "21",
                    "name": "苹果",
                    "quantity": 1,
                    "weight_g": 350,
                    "unit_fen": 420,
                    "net_fen": 420,
                    "flags": ["no_discount"],
                },
            ],
            "total_fen": 1420,
        },
        m.Basket(
            "T-1",
            4,
            (
                m.TillLine(1, "69", "牛奶", 2, 500, 1000),
                m.TillLine(2, "21", "苹果", 1, 420, 420, 350, ("no_discount",)),
            ),
            1420,
        ),
    ),
    (
        "confirm",
        {"rev": 9, "tenders": [{"kind": "cash", "fen": 1250, "tendered_fen": 2000}]},
        m.Confirm(9, (m.Tender(m.TenderKind.CASH, 1250, None, 2000),)),
    ),
    (
        "confirm",
        {"rev": 9, "tenders": [{"kind": "face", "fen": 1250, "auth": AUTH}]},
        m.Confirm(9, (m.Tender(m.TenderKind.FACE, 1250, m.ProviderAuth("alipay", "f00")),)),
    ),
    ("confirm", {"rev": 9, "tenders": [], "collect": "till"}, m.Confirm(9, (), "till")),
    (
        "paid",
        {"till_txn": "T-1", "rev": 9, "tenders": [{"kind": "card", "fen": 1250}]},
        m.Paid("T-1", 9, (m.Tender(m.TenderKind.CARD, 1250),)),
    ),
    ("cancel", {}, m.Cancel()),
    ("void", {"receipt": "R-7"}, m.Void("R-7")),
    ("complaint", {"about": "price"}, m.Complaint("price")),
    ("identify", {"by": "phone", "value": "13800001234"}, m.Identify("phone", "13800001234")),
    ("amount", {"till_txn": "T-1", "fen": 1250}, m.Amount("T-1", 1250)),
    ("voucher", {"code": "V-1"}, m.Voucher("V-1")),
    ("claim", {"offer": "light-10"}, m.Claim("light-10")),
    ("age_check", {"result": "ok"}, m.AgeCheck(True)),
    ("age_check", {"result": "refused"}, m.AgeCheck(False)),
    ("lease", {"benefit": "coupon8", "uses": 2}, m.Lease(BenefitId("coupon8"), 2)),
    ("lease.end", {"lease": "le-1"}, m.LeaseEnd(LeaseId("le-1"))),
    (
        "return",
        {"receipt": "R-7", "lines": [{"line": 1, "quantity": 2}], "reason": "damaged"},
        m.Return("R-7", (m.ReturnLine(1, 2),), "damaged"),
    ),
    (
        "sale",
        {
            "lines": [{"line": 1, "code": "69", "name": "牛奶", "quantity": 1, "unit_fen": 1200, "net_fen": 1200}],
            "tenders": [{"kind": "cash", "fen": 400}],
            "total_fen": 1200,
            "benefits": [{"lease": None, "membership": "m-1", "benefit": "coupon8", "fen": 800}],
            "till_txn": "T-1",
        },
        m.OfflineSale(
            (m.TillLine(1, "69", "牛奶", 1, 1200, 1200),),
            (m.Tender(m.TenderKind.CASH, 400),),
            1200,
            (m.SaleBenefit(None, MembershipId("m-1"), BenefitId("coupon8"), 800),),
            "T-1",
        ),
    ),
    ("sale", {"lines": [], "tenders": [], "total_fen": 0}, m.OfflineSale((), (), 0)),
]


@pytest.mark.parametrize(("event_type", "body", "value"), ACCEPTED)
def test_every_accepted_event(event_type: str, body: dict[str, Any], value: m.EventBody) -> None:
    document = event_document(event_type, body, session="visit-1", clerk="wang", replay=True)
    event = codec.decode_event(encoded(document), TERMINAL)
    assert event.body == value
    assert (event.id, event.boot, event.seq) == (document["id"], document["boot"], 17)
    assert event.ts == datetime(2026, 11, 22, 4, 0, 0, 123000, tzinfo=UTC)
    assert (event.terminal, event.role) == (TERMINAL.terminal, "face")
    assert (event.session, event.clerk, event.replay) == ("visit-1", "wang", True)


def test_the_table_knows_every_type_and_the_others_are_refused() -> None:
    assert {event_type for event_type, _, _ in ACCEPTED} == set(codec.EVENT_TYPES)
    document = event_document("tea.brew", {})
    refusal = refused(document)
    assert (refusal.code, refusal.id) == ("unknown_type", document["id"])


def test_fields_may_be_added_and_optional_ones_left_out() -> None:
    document = event_document(new_field={"a": [1]})
    document["body"]["colour"] = "red"
    for name in ("session", "clerk", "replay", "mono_ms"):
        del document[name]
    event = codec.decode_event(encoded(document), TERMINAL)
    assert (event.session, event.clerk, event.replay) == (None, None, False)


def refused(document: Any) -> Undecodable:
    with pytest.raises(Undecodable) as caught:
        codec.decode_event(document if isinstance(document, bytes) else encoded(document), TERMINAL)
    assert caught.value.do
    return caught.value


@pytest.mark.parametrize(
    ("changes", "code", "where"),
    [
        ({"v": 2}, "unsupported_version", ""),
        ({"v": "1"}, "unsupported_version", ""),
        ({"v": True}, "unsupported_version", ""),
        ({"v": None}, "unsupported_version", ""),
        ({"id": "not-a-uuid"}, "bad_id", ""),
        ({"id": "0191B1E2-0000-7000-8000-000000000000"}, "bad_id", "lower-case"),
        ({"id": None}, "bad_id", ""),
        ({"boot": "b"}, "bad_field", "boot"),
        ({"seq": 0}, "bad_field", "seq"),
        ({"seq": 1.0}, "bad_field", "seq"),
        ({"seq": True}, "bad_field", "seq"),
        ({"seq": 2**31}, "bad_field", "seq"),
        ({"ts": "2026-11-22T04:00:00"}, "bad_field", "ts"),
        ({"ts": "yesterday"}, "bad_field", "ts"),
        ({"ts": "0001-01-01T00:00:00+14:00"}, "bad_field", "ts"),
        ({"session": ""}, "bad_field", "session"),
        ({"session": "a\u0000b"}, "bad_field", "session"),
        ({"clerk": "x" * 65}, "bad_field", "clerk"),
        ({"replay": "no"}, "bad_field", "replay"),
        ({"body": None}, "bad_field", "body"),
        ({"body": {"code": "1"}}, "bad_field", "quantity"),
        ({"body": {"code": "1", "quantity": 0}}, "bad_field", "body.quantity"),
        ({"body": {"code": "1", "quantity": "1"}}, "bad_field", "body.quantity"),
        ({"body": {"code": "", "quantity": 1}}, "bad_field", "body.code"),
        ({"body": {"code": "1\n", "quantity": 1}}, "bad_field", "body.code"),
        ({"body": {"code": "x" * 129, "quantity": 1}}, "bad_field", "body.code"),
    ],
)
def test_every_refusal_names_what_is_wrong(changes: dict[str, Any], code: str, where: str) -> None:
    document = event_document(**changes)
    refusal = refused(document)
    assert refusal.code == code
    assert where in refusal.message
    assert refusal.id == (None if "id" in changes else document["id"])


@pytest.mark.parametrize(
    ("event_type", "body", "where"),
    [
        ("digits", {"tail": "12345"}, "body.tail"),
        ("digits", {"tail": "١٢٣٤"}, "body.tail"),
        ("digits", {"tail": "1234\n"}, "body.tail"),
        ("consent", {"purpose": "everything", "text": "1", "granted": True}, "body.purpose"),
        ("consent", {"purpose": "recognise", "text": "1"}, "granted"),
        ("enrol", {"plan": "p", "guarantee": "trust_me"}, "body.guarantee"),
        ("enrol", {"plan": "p", "guarantee": "huabei_hold", "phone": "call me"}, "body.phone"),
        ("confirm", {"rev": 0, "tenders": []}, "body.rev"),
        ("confirm", {"rev": 1, "tenders": [{"kind": "shells", "fen": 1}]}, "body.tenders[0].kind"),
        ("confirm", {"rev": 1, "tenders": [{"kind": "cash", "fen": -1}]}, "body.tenders[0].fen"),
        ("confirm", {"rev": 1, "tenders": [{"kind": "cash", "fen": 12.5}]}, "body.tenders[0].fen"),
        ("confirm", {"rev": 1, "tenders": [{"kind": "cash", "fen": 10**12}]}, "body.tenders[0].fen"),
        ("confirm", {"rev": 1, "tenders": [{"kind": "cash", "fen": 1}] * 9}, "body.tenders"),
        ("confirm", {"rev": 1, "tenders": [], "collect": "me"}, "body.collect"),
        ("basket", {"till_txn": "t", "rev": 1, "lines": [{}], "total_fen": 0}, "body.lines[0]"),
        ("complaint", {"about": "weather"}, "body.about"),
        ("identify", {"by": "name", "value": "x"}, "body.by"),
        ("identify", {"by": "phone", "value": ""}, "body.value"),
        ("amount", {"till_txn": "T-1", "fen": 0}, "body.fen"),
        ("age_check", {"result": "maybe"}, "body.result"),
        ("lease", {"benefit": "coupon8", "uses": 0}, "body.uses"),
        ("lease", {"benefit": "coupon8", "uses": 100}, "body.uses"),
        ("return", {"receipt": "R-7", "lines": [], "reason": ""}, "body.lines"),
        ("return", {"receipt": "R-7", "lines": [{"line": 1, "quantity": 0}], "reason": ""}, "body.lines[0].quantity"),
        ("sale", {"lines": [], "tenders": [], "total_fen": -1}, "body.total_fen"),
        ("sale", {"lines": [], "tenders": [], "total_fen": 1, "benefits": [{"lease": None}]}, "body.benefits[0]"),
    ],
)
def test_a_body_out_of_bounds_is_refused_by_its_field(event_type: str, body: dict[str, Any], where: str) -> None:
    refusal = refused(event_document(event_type, body))
    assert refusal.code == "bad_field"
    assert where in refusal.message


def test_a_basket_is_bounded_in_lines() -> None:
    line = {"line": 1, "code": "1", "name": "", "quantity": 1, "unit_fen": 0, "net_fen": 0}
    body = {"till_txn": "t", "rev": 1, "lines": [line] * wire.TILL_LINES_MAX, "total_fen": 0}
    assert len(encoded(event_document("basket", body))) < wire.EVENT_BYTES_MAX
    codec.decode_event(encoded(event_document("basket", body)), TERMINAL)
    body["lines"] = [line] * (wire.TILL_LINES_MAX + 1)
    assert refused(event_document("basket", body)).code == "bad_field"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"hello",
        b"null",
        b"[]",
        b'"x"',
        b"\xff\xfe",
        b'{"v":1,"id":"\xff"}',
        b'{"v":1,"id":"\\ud800"}',
        b"[" * 10_000,
        b'{"v":1,"x":' + b"[" * 10_000,
    ],
)
def test_what_is_not_a_json_object_is_bad_json(payload: bytes) -> None:
    refusal = refused(payload)
    assert (refusal.code, refusal.id) == ("bad_json", None)


def test_a_large_event_is_refused_but_its_id_is_told() -> None:
    document = event_document(padding="x" * wire.EVENT_BYTES_MAX)
    refusal = refused(document)
    assert (refusal.code, refusal.id) == ("too_large", document["id"])


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_a_value_or_a_code(payload: bytes) -> None:
    for decode in (
        lambda: codec.decode_event(payload, TERMINAL),
        lambda: codec.decode_presence(payload),
        lambda: codec.decode_reported(payload),
        lambda: codec.decode_response(payload, payload[:36]),
        lambda: codec.decode_face(payload, {"id": payload.hex()}, TERMINAL, NOW),
        lambda: codec.decode_screen(payload),
        lambda: codec.decode_reply(payload),
        lambda: codec.decode_desired(payload),
        lambda: codec.decode_command(payload),
    ):
        try:
            decode()
        except Undecodable as refusal:
            assert refusal.code in CODES  # noqa: PT017 - most inputs are refused, a few are values


@given(
    st.sampled_from([event_type for event_type, _, _ in ACCEPTED]),
    st.sampled_from(["v", "id", "boot", "seq", "ts", "session", "clerk", "replay", "type", "body"]),
    ANY_JSON,
)
def test_any_json_in_any_field_is_a_value_or_a_code(event_type: str, name: str, value: Any) -> None:
    body = next(body for known, body, _ in ACCEPTED if known == event_type)
    try:
        codec.decode_event(encoded(event_document(event_type, body) | {name: value}), TERMINAL)
    except Undecodable as refusal:
        assert refusal.code in CODES  # noqa: PT017


@given(st.sampled_from(ACCEPTED), st.data())
def test_any_json_in_any_body_field_is_a_value_or_a_code(
    known: tuple[str, dict[str, Any], m.EventBody], data: st.DataObject
) -> None:
    event_type, body, _ = known
    changed = dict(body)
    if changed:
        changed[data.draw(st.sampled_from(sorted(changed)))] = data.draw(ANY_JSON)
    try:
        codec.decode_event(encoded(event_document(event_type, changed)), TERMINAL)
    except Undecodable as refusal:
        assert refusal.code == "bad_field"  # noqa: PT017


# ---------------------------------------------------------------- faces


def face_properties(**changes: str) -> dict[str, str]:
    return {"id": str(uuid.uuid4()), "boot": str(uuid.uuid4()), "seq": "18", "session": "v", "kind": "frame"} | changes


def test_a_face_carries_its_envelope_in_user_properties() -> None:
    properties = face_properties(liveness="0.75")
    event = codec.decode_face(JPEG, properties, TERMINAL, NOW)
    assert event.body == m.FaceShown(JPEG, "frame", 0.75)
    assert (event.id, event.seq, event.session, event.ts) == (properties["id"], 18, "v", NOW)
    del properties["session"]
    assert codec.decode_face(JPEG, properties, TERMINAL, NOW).session is None


@pytest.mark.parametrize(
    ("jpeg", "changes", "code"),
    [
        (b"\xff\xd8" + bytes(wire.FACE_BYTES_MAX), {}, "too_large"),
        (b"GIF89a", {}, "not_jpeg"),
        (b"", {}, "not_jpeg"),
        (JPEG, {"id": "x"}, "bad_id"),
        (JPEG, {"seq": "0"}, "bad_field"),
        (JPEG, {"seq": "many"}, "bad_field"),
        (JPEG, {"kind": "video"}, "bad_field"),
        (JPEG, {"liveness": "1.5"}, "bad_field"),
        (JPEG, {"liveness": "nan"}, "bad_field"),
        (JPEG, {"boot": ""}, "bad_field"),
    ],
)
def test_a_bad_face_is_refused_with_a_code(jpeg: bytes, changes: dict[str, str], code: str) -> None:
    properties = face_properties(**changes)
    with pytest.raises(Undecodable) as caught:
        codec.decode_face(jpeg, properties, TERMINAL, NOW)
    assert caught.value.code == code
    assert caught.value.id == (None if code == "bad_id" else properties["id"])


@given(
    st.dictionaries(
        st.sampled_from(["id", "boot", "seq", "session", "kind", "liveness", "liveness_sig"]), st.text(max_size=40)
    )
)
def test_any_user_properties_are_a_face_or_a_code(properties: dict[str, str]) -> None:
    try:
        codec.decode_face(JPEG, face_properties() | properties, TERMINAL, NOW)
    except Undecodable as refusal:
        assert refusal.code in {"bad_id", "bad_field"}  # noqa: PT017


# ---------------------------------------------------------------- the other channels


def test_presence_is_a_birth_or_a_will() -> None:
    boot, conn = str(uuid.uuid4()), str(uuid.uuid4())
    will = {"v": 1, "online": False, "boot": boot, "conn": conn}
    birth = will | {"online": True, "software": "1", "profile": "till", "ts": "2026-11-22T12:00:00+08:00"}
    assert codec.decode_presence(encoded(will)) == Death(boot, conn)
    assert codec.decode_presence(encoded(birth)) == Birth(boot, conn, "1", "till", NOW)
    for broken in (will | {"online": True}, will | {"conn": "1"}, will | {"v": 3}):
        with pytest.raises(Undecodable):
            codec.decode_presence(encoded(broken))


def test_reported_and_response() -> None:
    boot, command = str(uuid.uuid4()), str(uuid.uuid4())
    reported = {"v": 1, "applied_gen": 3, "config_hash": "ab", "software": "1", "boot": boot, "health": {"x": [1]}}
    assert codec.decode_reported(encoded(reported)) == Reported(3, "ab", "1", boot, '{"x":[1]}')
    response = encoded({"v": 1, "status": "done", "detail": ""})
    assert codec.decode_response(response, command.encode()) == CommandResponse(MessageId(command), "done", "")
    for correlation in (None, b"", b"\xff" * 36, command.upper().encode()):
        with pytest.raises(Undecodable) as caught:
            codec.decode_response(response, correlation)
        assert caught.value.code == "bad_id"


# ---------------------------------------------------------------- what goes down


def test_a_reply_leaves_out_what_does_not_apply_and_keeps_a_null_id() -> None:
    message_id = MessageId(str(uuid.uuid4()))
    assert json.loads(codec.encode_reply(ReplyBody(message_id, ok=True))) == {"v": 1, "id": message_id, "ok": True}
    full = ReplyBody(None, False, True, SessionId("s"), ReplyError("bad_json", "m", "d"))
    assert json.loads(codec.encode_reply(full)) == {
        "v": 1,
        "id": None,
        "ok": False,
        "pending": True,
        "session": "s",
        "error": {"code": "bad_json", "message": "m", "do": "d"},
    }


def test_a_screen_keeps_its_nulls_and_leaves_out_what_is_marked_so() -> None:
    bare = json.loads(codec.encode_screen(Screen(SessionId("s"), 1, ScreenState.OPEN)))
    for name in ("member", "membership", "prompt", "receipt"):
        assert bare[name] is None
    assert "paid" not in bare
    assert (bare["v"], bare["rev"], bare["state"], bare["lines"], bare["actions"]) == (1, 1, "open", [], [])


LINE = ScreenLine(1, "69", "牛奶", 1, 800, 800, 0, "light: 8-yuan coupon")
FULL = Screen(
    session=SessionId("s"),
    rev=9,
    state=ScreenState.PAID,
    basket_rev=4,
    member=ScreenMember("张*", "gold"),
    lines=(LINE,),
    gross_fen=800,
    discount_fen=800,
    paid=(ScreenPaid("cash", 0, 0, 100, 100), ScreenPaid("face", 0, 0)),
    offers=(ScreenOffer("o", "light-10", 1000, 800, ("huabei_hold",)),),
    prompt=Prompt("look_at_camera", {"shot": 1, "of": 3}, "请看镜头"),
    actions=("confirm", "cancel"),
    receipt=Receipt("R-1", (LINE,), (ReceiptTender("cash", 0),), "text"),
)


def test_a_screen_comes_back_as_it_went() -> None:
    document = json.loads(codec.encode_screen(FULL))
    assert document["paid"][0] == {"kind": "cash", "fen": 0, "payer_fen": 0, "tendered_fen": 100, "change_fen": 100}
    assert document["paid"][1] == {"kind": "face", "fen": 0, "payer_fen": 0}
    assert codec.decode_screen(codec.encode_screen(FULL)) == FULL


def test_desired_and_command_documents() -> None:
    desired = json.loads(codec.encode_desired(3, {"consents": []}))
    assert desired == {"v": 1, "gen": 3, "config": {"consents": []}, "software": None}
    command = MessageId(str(uuid.uuid4()))
    document = {"v": 1, "id": command, "verb": "resync", "args": {}}
    assert json.loads(codec.encode_command(command, "resync", {})) == document


# ---------------------------------------------------------------- the published examples

EXAMPLES = Path(__file__).parents[2] / "docs" / "wire"


def test_every_published_example_is_accepted_and_every_type_has_one() -> None:
    files = sorted((EXAMPLES / "events").glob("*.json"))
    assert {file.stem for file in files} == set(codec.EVENT_TYPES)
    for file in files:
        assert json.loads(file.read_bytes())["type"] == file.stem
        codec.decode_event(file.read_bytes(), TERMINAL)


def test_every_code_is_published() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert [code for code in WireCode if f"`{code}`" not in text] == []
