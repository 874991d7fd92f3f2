"""A message that could not be handled is kept for whoever mends it, without what is the customer's."""

from __future__ import annotations

from base64 import b64encode

import pytest

from models.domain.events import (
    Confirm,
    Digits,
    Enrol,
    EventBody,
    FaceShown,
    Identify,
    Paid,
    ProviderAuth,
    Tender,
    TenderKind,
)
from models.domain.ids import LaneId, MemberId, MessageId, PlanId, RegionId, SessionId, StoreId, TerminalId
from models.domain.messages import Address, FaceAnswered, FaceOutcome, KeyRow, Message, SealedTemplate, TemplateRow
from models.domain.registry import RegisteredTerminal
from models.tables.journal import InboxKey
from runtime.engine import Engine, Item
from tests.actors.lane import NOW, Lane, book

SECRET = "13800001234"
FACE_PAY = Tender(TenderKind.FACE, 5, ProviderAuth("alipay", SECRET))


def buried(message: Message) -> tuple[str, str]:
    """The dead letter, and the inbox's row of it."""
    record = RegisteredTerminal(TerminalId("t"), StoreId("s1"), RegionId("north"), LaneId("l1"), "", "")
    address = Address.session(record.region, record.store, record.lane)
    item = Item(address, message, "m-1", key=InboxKey(record.terminal, "b", 1, "m-1"), kind="x", terminal=record)
    commit = Engine(lambda store, version: book()).bury(item, ValueError("broken"), NOW).commit
    [dead] = commit.dead
    assert (dead.terminal, dead.id, dead.error) == ("t", "m-1", "ValueError: broken")
    return dead.message.decode(), repr(commit.inbox)


@pytest.mark.parametrize(
    "body",
    [
        Identify("phone", SECRET),
        Digits(SECRET[-4:]),
        Enrol(PlanId("p"), "huabei_hold", SECRET, ProviderAuth("alipay", SECRET)),
        Confirm(3, (FACE_PAY,)),
        Paid("txn-7", 3, (FACE_PAY,)),
        FaceShown(SECRET.encode(), "frame"),
    ],
)
def test_a_dead_letter_has_no_number_token_or_image(body: EventBody) -> None:
    event = Lane().event(body)
    for text in buried(event):
        assert SECRET[-4:] not in text.replace(event.id, "").replace(event.boot, "")
    assert event.id in buried(event)[0], "it can still be found"


def test_an_answer_about_a_face_is_kept_without_the_face() -> None:
    answer = FaceAnswered(SessionId("v"), "q", FaceOutcome.ACCEPTED, sealed=b"\x13\x80probe")
    document, _ = buried(answer)
    assert MessageId("q") in document
    assert '"sealed":null' in document


def test_a_template_on_its_way_is_in_no_dead_letter() -> None:
    sealed = SealedTemplate(
        TemplateRow("t", MemberId("m"), "net", b"ciphertext", "t", "p"), KeyRow("t", MemberId("m"), 1, b"wrapped")
    )
    for texts in (
        buried(FaceAnswered(SessionId("v"), "q", FaceOutcome.ENROLLED, templates=(sealed,))),
        buried(FaceAnswered(SessionId("v"), "q", FaceOutcome.SHOT_TAKEN, sealed=b"wrapped")),
    ):
        for text in texts:
            for secret in (b"ciphertext", b"wrapped"):
                assert secret.decode() not in text
                assert b64encode(secret).decode().rstrip("=") not in text
