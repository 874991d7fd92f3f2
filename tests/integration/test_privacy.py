"""People's data in a real database: withdrawal, four eyes, export, retention, children."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from actors.ports import WithdrawFace
from gateway.providers.port import PaymentProvider
from models.domain.errors import NeedsOperator, Refused
from models.domain.events import Purpose
from models.domain.facts import ConsentGiven, ConsentStands, FaceDecided, TemplateMade
from models.domain.ids import LegalEntityId, MemberId, MessageId, SessionId, StoreId, TerminalId
from models.domain.messages import FaceWithdrawn, KeyRow, RecognitionDecision, TemplateKind, TemplateRow
from models.domain.privacy import FILING_FACES, Age, RequestState
from models.tables.facts import save_facts
from models.tables.memberships import load_member_view
from models.tables.persons import SECTIONS
from models.tables.templates import add_template
from runtime.memberships import Memberships
from runtime.privacy import Privacy, templates_of, withdraw_in
from runtime.privacy_checkpoints import Checkpoints
from runtime.privacy_cli import _new_file
from runtime.privacy_desk import MemberLinks
from runtime.privacy_export import as_html, as_json
from tests.integration.house import eventually

NOW = datetime(2026, 11, 22, 12, 0, 0, 123_456, tzinfo=UTC)


# ---------------------------------------------------------------- people


@dataclass
class People:
    """A database with members in it, and the desk over it. `now` is the wall and, offset 0, the business clock."""

    url: str
    now: datetime = NOW

    def desk(self, **changes: Any) -> Privacy:
        return Privacy([self.url], wall=lambda: self.now, scrubs=False, **changes)

    def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as conn:
            cursor = conn.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description is not None else []

    def add(self, member: str, *, state: str = "CLOSED", ended: datetime | None = None) -> None:
        """A member with a phone, a membership, and a sale under it."""
        self.run(
            "INSERT INTO member (id, chain, region, home_store, name, phone_sha256, phone_tail, provider_user,"
            " joined_at) VALUES (%s, 'acme', 'north', 's1', '张三', %s, '1234', %s, %s)",
            *(member, f"digest-{member}", f"user-{member}", NOW),
        )
        end = ended or NOW + timedelta(days=30)
        self.run(
            "INSERT INTO membership (id, enrol_key, member, chain, region, store, terminal, session, plan,"
            " plan_version, owner, generation, state, fee_fen, fee_eff_fen, used_fen, guarantee, hold_order, hold_no,"
            " hold_fen, hold_state, enrolled_at, expires_at, cutoff_at, cancelled_by, paid_fen, refunded_fen,"
            " receivable_fen, captured_number, attempts, parked_why) VALUES (%s, %s, %s, 'acme', 'north', 's1', 't1',"
            " 'visit', 'light-10', 1, 'acme', 1, %s, 1000, 1000, 800, 'huabei_hold', '', '', 0, 'none', %s, %s, %s,"
            " '', 0, 0, 0, '', 0, '')",
            *(f"ms-{member}", f"ask-{member}", member, state, NOW, end, end),
        )
        self.run(
            "INSERT INTO outbox (id, region, shard, store, entity_kind, entity_id, port, verb, request,"
            " idempotency_key, not_before, attempts, created_at, done_at) VALUES (%s, 'north', 1, 's1', 'session',"
            " 'l1', 'memberships', 'EnrolMember', %s, %s, %s, 1, %s, %s)",
            *(f"ask-{member}", json.dumps({"phone": "13800001234", "auth": {"token": "t"}}), f"ask-{member}"),
            *(NOW, NOW, NOW),
        )

    def sale(self, member: str, at: datetime = NOW) -> None:
        self.run(
            "INSERT INTO sale (id, receipt, session, store, lane, terminal, entity, business_date, at, member,"
            " membership, gross_fen, discount_fen, due_fen, rounding_fen, suspense_fen, agency_fen, lines, tenders,"
            " uses, till_txn) VALUES (%s, %s, 'visit', 's1', 'l1', 't1', 'acme', '2026-11-22', %s, %s, %s, 1200, 800,"
            " 400, 0, 0, 0, '[]', '[]', '[]', '')",
            *(f"sale-{member}-{at}", f"r-{member}-{at}", at, member, f"ms-{member}"),
        )

    async def decision(self, member: str, at: datetime = NOW, n: int = 0) -> None:
        record = RecognitionDecision(5, 480_000, 700_000, 100_000, "net", "clear")
        ident, visit, store = f"decision-{member}-{at}-{n}", SessionId("visit"), StoreId("s1")
        async with await psycopg.AsyncConnection.connect(self.url) as conn:
            await save_facts(conn, [(FaceDecided(ident, visit, store, at, "accepted", MemberId(member), record), "")])

    async def face(
        self,
        member: str,
        at: datetime = NOW,
        n: int = 1,
        kind: TemplateKind = TemplateKind.ENROLMENT,
        visit: SessionId = SessionId("visit"),  # noqa: B008 - a string
    ) -> int:
        """As a host commits an enrolment; how many templates the member has then."""
        ident = f"tpl-{member}-{n}"
        template = TemplateRow(ident, MemberId(member), "net", b"sealed " + ident.encode(), ident, "production", kind)
        store, terminal = StoreId("s1"), TerminalId("t1")
        consents = (
            ConsentGiven(f"c-{ident}", visit, store, terminal, Purpose.RECOGNISE, "v1", True, at, MemberId(member)),
            ConsentStands(f"s-{ident}", MemberId(member), "acme", "v1", visit, store, terminal, at),
        )
        made = TemplateMade(template, KeyRow(ident, MemberId(member), 1, b"wrapped"), MessageId("e"), "acme", store, at)
        facts = (*consents, made) if kind is TemplateKind.ENROLMENT else (made,)
        async with await psycopg.AsyncConnection.connect(self.url) as conn:
            await save_facts(conn, [(fact, "") for fact in facts])
        return self.templates(member)

    def templates(self, member: str) -> int:
        (count,) = self.run("SELECT count(*) FROM face_template WHERE member = %s", member)[0]
        (keys,) = self.run("SELECT count(*) FROM face_key WHERE member = %s", member)[0]
        assert count == keys, "each template has its key, and no key outlives its template"
        return int(count)

    def events(self) -> list[tuple[str, str]]:
        return self.run("SELECT kind, subject FROM audit_event ORDER BY n")


@pytest.fixture
def people(migrated_database_url: str) -> People:
    return People(migrated_database_url)


ME = {"by": "console:a", "via": "console", "reason": "she asked"}


async def test_withdrawal_ends_the_consent_and_erases_every_template_and_key(people: People) -> None:
    people.add("ann")
    assert await people.face("ann") == 1
    done = await people.desk().withdraw("ann", **ME)
    assert (done.state, done.result) == (RequestState.DONE, {"templates": 1, "keys": 1, "consents": 1})
    assert people.templates("ann") == 0
    assert people.run("SELECT withdrawn_by FROM member_consent WHERE member = 'ann'") == [("console:a",)]
    assert people.run("SELECT kind FROM gallery_change WHERE member = 'ann' ORDER BY n") == [("upsert",), ("removal",)]
    assert ("face_erased", "ann") in people.events()
    again = await people.desk().withdraw("ann", **ME)
    assert again.result == {"templates": 0, "keys": 0, "consents": 0}
    assert people.run("SELECT phone_tail FROM member WHERE id = 'ann'") == [("1234",)], "she is a member as before"


async def test_a_template_that_was_made_before_the_withdrawal_and_arrives_after_it_is_not_stored(
    people: People,
) -> None:
    people.add("ann")
    await people.face("ann")
    await people.desk().withdraw("ann", **ME)
    assert await people.face("ann", n=2, kind=TemplateKind.MIGRATED) == 0
    assert await people.face("ann", n=3) == 0, "an enrolment of the visit that she withdrew"
    assert await people.face("ann", n=4, visit=SessionId("next")) == 1, "an enrolment with a consent of its own"


async def _consented(people: People, member: str) -> None:
    """The visit that makes them a member; its last shot is taken, its template is on its way."""
    people.add(member)
    visit, store, terminal = SessionId("visit"), StoreId("s1"), TerminalId("t1")
    given = ConsentGiven(f"c-{member}", visit, store, terminal, Purpose.RECOGNISE, "v1", True, NOW)
    async with await psycopg.AsyncConnection.connect(people.url) as conn:
        await save_facts(conn, [(given, "")])


async def test_who_withdraws_between_the_last_shot_and_the_template_has_none(people: People) -> None:
    await _consented(people, "ann")
    assert (await people.desk().withdraw("ann", **ME)).result == {"templates": 0, "keys": 0, "consents": 0}
    assert await people.face("ann") == 0
    assert people.run("SELECT session, given_at, withdrawn_by FROM member_consent") == [("visit", NOW, "console:a")]
    assert await people.face("ann", n=2, visit=SessionId("next")) == 1


async def test_who_is_erased_while_they_enrol_has_no_template(people: People) -> None:
    await _consented(people, "ann")
    asked = await people.desk().ask_erasure("ann", **ME)
    await people.desk().approve(asked.id, by="console:b")
    assert await people.face("ann") == 0
    assert people.run("SELECT name FROM member WHERE id = 'ann'") == [("",)]


async def _waits_for_a_lock(people: People) -> None:
    asked = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    await eventually(lambda: people.run(asked), "somebody waits for a lock")


@pytest.mark.parametrize("kind", [TemplateKind.ENROLMENT, TemplateKind.MIGRATED, TemplateKind.ADAPTIVE])
async def test_a_template_waits_for_a_withdrawal_that_has_not_committed(people: People, kind: TemplateKind) -> None:
    people.add("ann")
    assert await people.face("ann") == 1
    async with await psycopg.AsyncConnection.connect(people.url) as conn:
        await withdraw_in(conn, "ann", at=NOW, by="console:a", via="console", reason="she asked")
        late = asyncio.create_task(people.face("ann", n=2, kind=kind))
        await _waits_for_a_lock(people)
        await conn.commit()
        assert await late == 0


async def test_a_withdrawal_waits_for_a_template_that_has_not_committed(people: People) -> None:
    await _consented(people, "ann")
    template = TemplateRow("t", MemberId("ann"), "net", b"sealed", "t", "production")
    async with await psycopg.AsyncConnection.connect(people.url) as conn:
        await add_template(conn, template, chain="acme", store="s1", consent="c", at=NOW)
        asked = asyncio.create_task(people.desk().withdraw("ann", **ME))
        await _waits_for_a_lock(people)
        await conn.commit()
        assert templates_of(await asked) == 1
    assert people.run("SELECT count(*) FROM face_template") == [(0,)]


async def test_who_touches_a_person_s_data_says_why_and_whose(people: People) -> None:
    people.add("ann")
    with pytest.raises(Refused) as refused:
        await people.desk().withdraw("ann", by="console:a", via="console", reason="  ")
    assert refused.value.code == "reason_missing"
    with pytest.raises(Refused) as refused:
        await people.desk().withdraw("bob", **ME)
    assert refused.value.code == "unknown_member"
    assert people.events() == []


async def test_a_person_is_erased_by_four_eyes_and_the_money_stands(people: People) -> None:
    people.add("ann")
    people.sale("ann")
    await people.decision("ann")
    await people.face("ann")
    await people.desk().mark_age("ann", Age(birth_year=1980), by="console:a")
    asked = await people.desk().ask_erasure("ann", **ME)
    assert asked.state is RequestState.OPEN
    assert people.templates("ann") == 0, "the face waits for nobody"
    assert (await people.desk().ask_erasure("ann", by="console:b", via="cli", reason="again")).id == asked.id
    with pytest.raises(Refused) as refused:
        await people.desk().approve(asked.id, by="console:a")
    assert refused.value.code == "four_eyes"
    assert people.run("SELECT name FROM member WHERE id = 'ann'") == [("张三",)]

    done = await people.desk().approve(asked.id, by="console:b")
    assert done.state is RequestState.DONE
    assert people.run("SELECT name, phone_sha256, phone_tail, provider_user FROM member WHERE id = 'ann'") == [
        ("", None, "", "")
    ]
    assert people.run("SELECT member, membership, due_fen FROM sale") == [(None, "ms-ann", 400)]
    assert people.run("SELECT member FROM face_decision") == [(None,)]
    assert people.run("SELECT used_fen FROM membership") == [(800,)]
    assert people.run("SELECT count(*) FROM member_age") == [(0,)]
    assert people.run("SELECT count(*) FROM consent WHERE member = 'ann'") == [(1,)], "that it was permitted is kept"
    assert people.run("SELECT request->>'phone', request->>'auth' FROM outbox") == [(None, None)]
    with pytest.raises(Refused) as refused:
        await people.desk().approve(asked.id, by="console:b")
    assert refused.value.code == "request_over"
    with pytest.raises(Refused) as refused:
        await people.desk().ask_erasure("ann", **ME)
    assert refused.value.code == "person_erased", "no officer is asked to erase nobody"
    assert ("person_erased", "ann") in people.events()
    assert "张三" not in str(people.run("SELECT detail, subject, by FROM audit_event"))


async def test_who_has_money_open_is_not_erased_and_is_told_what_to_do(people: People) -> None:
    people.add("ann", state="ACTIVE")
    with pytest.raises(Refused) as refused:
        await people.desk().ask_erasure("ann", **ME)
    assert (refused.value.code, "ms-ann" in refused.value.message) == ("membership_open", True)
    people.run("UPDATE membership SET state = 'CLOSED'")
    asked = await people.desk().ask_erasure("ann", **ME)
    people.run("UPDATE membership SET state = 'DUNNING'")  # it was opened, or taken up, since
    with pytest.raises(Refused) as refused:
        await people.desk().approve(asked.id, by="console:b")
    assert refused.value.code == "membership_open"
    assert people.run("SELECT name FROM member WHERE id = 'ann'") == [("张三",)]


async def test_a_refused_erasure_tells_why(people: People) -> None:
    people.add("ann")
    asked = await people.desk().ask_erasure("ann", **ME)
    refused = await people.desk().refuse(asked.id, by="console:b", reason="a court order")
    assert (refused.state, refused.result) == (RequestState.REFUSED, {"why": "a court order"})
    assert (await people.desk().ask_erasure("ann", **ME)).id != asked.id


# ---------------------------------------------------------------- export


async def _joined(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


async def test_a_person_gets_everything_that_is_kept_of_them_and_no_template(people: People) -> None:
    people.add("ann")
    people.add("bob")
    people.sale("ann")
    people.sale("bob")
    await people.decision("ann")
    await people.face("ann")
    rows = await people.desk().export("ann", by="member:ann", via="member_page", reason="asked")
    text = await _joined(as_json("ann", NOW, rows))
    found = json.loads(text)
    assert set(SECTIONS) < set(found)
    assert found["profile"][0]["name"] == "张三", "masked nowhere for the person"
    counts = {name: len(found[name]) for name in SECTIONS}
    assert counts == {
        "profile": 1,
        "age": 0,
        "standing_consents": 1,
        "consents": 1,
        "memberships": 1,
        "usage": 0,
        "sales": 1,
        "face_templates": 1,
        "face_decisions": 1,
        "requests": 1,
        "audit": 1,
        "agreements": 0,
        "balance": 0,
        "points": 0,
    }
    assert found["face_templates"][0]["net_sha256"] == "net"
    for other in (b"bob", b"sealed", b"wrapped", b"digest-ann"):
        assert other not in text
    assert people.events() == [("exported", "ann")]


async def test_the_same_as_a_page_escapes_what_people_wrote(people: People) -> None:
    people.add("ann")
    people.run("UPDATE member SET name = '<script>alert(1)</script>'")
    rows = await people.desk().export("ann", **ME)
    page = (await _joined(as_html("ann", NOW, "zh", rows))).decode()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page.count("<h2>") == len(SECTIONS)


def test_an_export_s_file_is_new_and_is_not_left_behind_by_what_fails(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="No such file"), _new_file(tmp_path / "none" / "x.json"):
        pass
    with pytest.raises(Refused, match="there already"), _new_file(tmp_path):
        pass
    with pytest.raises(Refused, match="nobody"), _new_file(tmp_path / "x.json"):
        raise Refused("unknown_member", "nobody")
    assert not (tmp_path / "x.json").exists()


async def test_an_export_of_nothing_is_a_whole_document() -> None:
    async def nothing() -> AsyncIterator[tuple[str, dict[str, Any]]]:
        for row in list[tuple[str, dict[str, Any]]]():
            yield row

    assert json.loads(await _joined(as_json("ann", NOW, nothing()))) == {
        "form": "storeops-person-1",
        "member": "ann",
        "made_at": NOW.isoformat(),
        **{name: [] for name in SECTIONS},
    }


# ---------------------------------------------------------------- retention and children


async def test_what_is_over_goes_and_the_rest_stays(people: People) -> None:
    for name in ("idle", "seen", "left", "here"):
        people.add(name, state="ACTIVE" if name == "here" else "CLOSED", ended=NOW - timedelta(days=20))
        await people.face(name, NOW - timedelta(days=30))
    people.now = NOW + timedelta(days=80)
    people.sale("seen", people.now)
    people.run("UPDATE membership SET expires_at = %s WHERE id <> 'ms-here'", NOW + timedelta(days=300))
    people.run("UPDATE membership SET expires_at = %s WHERE id = 'ms-left'", NOW - timedelta(days=20))
    lines: list[str] = []
    assert await people.desk().sweep(lines.append) == {
        "faces_membership_ended": 1,
        "decisions": 0,
        "numbers": 4,
        "gallery_changes": 0,
    }
    assert [people.templates(name) for name in ("idle", "seen", "left", "here")] == [1, 1, 0, 1]
    assert lines == ["4 members with a template looked at, 1 erased"]
    people.now = NOW + timedelta(days=335)
    assert (await people.desk().sweep())["faces_idle"] == 2
    assert [people.templates(name) for name in ("idle", "seen", "here")] == [0, 1, 0]
    assert await people.desk().sweep() == {"decisions": 0, "numbers": 0, "gallery_changes": 0}
    assert [kind for kind, _ in people.events()].count("retention_swept") == 2


async def test_old_decisions_are_counted_by_day_and_forgotten(people: People) -> None:
    old, new = NOW - timedelta(days=91), NOW - timedelta(days=89)
    for n in range(3):
        await people.decision("ann", old, n)
    await people.decision("ann", new)
    assert (await people.desk().sweep())["decisions"] == 3
    assert people.run("SELECT at FROM face_decision") == [(new,)]
    day = [("s1", f"{old:%Y-%m-%d}", "accepted", "clear", 3)]
    assert people.run("SELECT store, day, outcome, reason, decisions FROM face_decision_day") == day


async def test_a_number_that_an_enrolment_was_asked_with_is_forgotten_after_a_day(people: People) -> None:
    people.add("ann")
    people.now = NOW + timedelta(hours=23)
    assert (await people.desk().sweep())["numbers"] == 0
    people.now = NOW + timedelta(hours=25)
    assert (await people.desk().sweep())["numbers"] == 1
    assert people.run("SELECT request->>'phone', request->>'auth' FROM outbox") == [(None, None)]


async def test_a_child_s_templates_go_and_none_comes_without_a_guardian(people: People) -> None:
    people.add("kid")
    await people.face("kid")
    assert await people.desk().mark_age("kid", Age(birth_year=1980), by="clerk:7") == 0
    assert await people.desk().mark_age("kid", Age(marked_under_14=True), by="clerk:7") == 1
    assert await people.face("kid", n=2) == 0
    await people.desk().mark_age("kid", Age(marked_under_14=True, guardian_consent="paper 17"), by="clerk:7")
    assert await people.face("kid", n=3, visit=SessionId("next")) == 1
    with pytest.raises(Refused, match="still to come"):
        await people.desk().mark_age("kid", Age(birth_year=NOW.year + 1), by="clerk:7")
    assert people.run("SELECT under_14 FROM member_age WHERE member = 'kid'") == [(True,)], "what was known stands"


# ---------------------------------------------------------------- counts, links, checkpoints


async def test_distinct_faces_are_counted_against_the_filing_threshold(people: People) -> None:
    for name in ("ann", "bob"):
        people.add(name)
        await people.face(name)
    await people.face("ann", n=2)
    report = await people.desk().report()
    assert (report["distinct_faces"], report["filing_threshold"], report["filing_level"]) == (2, FILING_FACES, "well")
    assert report["chains"] == {"acme": {"distinct_faces": 2, "filing_level": "well"}}


def test_a_member_s_link_is_theirs_and_ends() -> None:
    links = MemberLinks(b"key", hours=1)
    token = links.make("ann", NOW)
    assert links.member_of(token, NOW) == "ann"
    assert links.member_of(token, NOW + timedelta(minutes=59)) == "ann"
    with pytest.raises(Refused, match="expired"):
        links.member_of(token, NOW + timedelta(hours=1))
    other = MemberLinks(b"another key", hours=1).make("ann", NOW)
    for forged in (other, token[:-1] + ("A" if token[-1] != "A" else "B"), "", "é", "a" * 43, token + "AAAA"):
        with pytest.raises(Refused) as refused:
            links.member_of(forged, NOW)
        assert refused.value.code == "link_wrong"


async def test_a_checkpoint_outside_finds_what_was_cut_off_and_no_one_can_write_it(
    people: People, tmp_path: Path
) -> None:
    people.add("ann")
    file = tmp_path / "checkpoints"
    desk = people.desk(checkpoints=Checkpoints(file, b"key"))
    for _ in range(2):
        async for _row in await desk.export("ann", **ME):
            pass
    await desk.sweep()
    await desk.sweep()
    people.now += timedelta(hours=1)
    await desk.sweep()  # nothing happened
    assert len(file.read_text().splitlines()) == 1
    assert [check.ok for check in await desk.verify()] == [True]
    people.run("ALTER TABLE audit_event DISABLE TRIGGER USER")
    people.run("DELETE FROM audit_event WHERE n = (SELECT max(n) FROM audit_event)")
    assert [check.ok for check in await desk.verify()] == [False]
    file.write_text(file.read_text().replace('"n": ', '"n": 1'))
    with pytest.raises(NeedsOperator) as forged:
        await desk.verify()
    assert forged.value.code == "checkpoint_forged"


# ---------------------------------------------------------------- at a terminal


def _no_provider(_entity: LegalEntityId, _provider: str = "", /) -> PaymentProvider:
    raise AssertionError("nothing is asked of the provider")


async def test_a_withdrawal_at_a_terminal_happens_once_however_often_it_is_asked(people: People) -> None:
    people.add("ann")
    await people.face("ann")
    request = WithdrawFace(SessionId("visit"), StoreId("s1"), TerminalId("t1"), MemberId("ann"), NOW)
    async with AsyncConnectionPool(people.url, min_size=1, max_size=2, open=False) as pool:
        memberships = Memberships(pool, _no_provider, pepper=b"pepper", wall=lambda: NOW)
        first = await memberships.ask("ask-1", request)
        again = await memberships.ask("ask-1", request, attempts=1)
    assert first == again == FaceWithdrawn("ask-1", SessionId("visit"), 1)
    assert people.templates("ann") == 0
    assert people.run("SELECT via, asked_by FROM privacy_request") == [("terminal", "terminal:t1")]
    assert [kind for kind, _ in people.events()].count("face_erased") == 1


async def test_a_known_child_is_offered_no_shot(people: People) -> None:
    people.add("kid")
    await people.desk().mark_age("kid", Age(birth_year=2020), by="clerk:7")
    async with await psycopg.AsyncConnection.connect(people.url) as conn:
        view = await load_member_view(conn, MemberId("kid"), NOW)
    assert view is not None
    assert not view.face_permitted
