"""A face decision at rest: whole, once, decided again from its row, and shown by a trace without saying of whom."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg.rows import dict_row

from models.domain.facts import FaceDecided
from models.domain.ids import MemberId, SessionId, StoreId
from models.domain.liveness import Liveness
from models.domain.messages import RecognitionDecision
from models.domain.recognition import Candidate, RecognitionPolicy, SearchResult, SearchScope, decide, reason_of
from models.tables import trace
from models.tables.facts import save_facts

pytestmark = pytest.mark.integration

AT = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
SEARCH = SearchResult(Candidate(MemberId("m-1"), 0.8), Candidate(MemberId("m-2"), 0.31), 120)
DECISION = decide(
    SEARCH,
    RecognitionPolicy(calibration="lfw10@0123456789ab"),
    net_sha256="f" * 64,
    scope=SearchScope.STORE,
    looks=2,
    liveness=Liveness.PASSED,
    amount_fen=50_001,
    face_alone_max_fen=50_000,
).record
FACT = FaceDecided("d-1", SessionId("v-1"), StoreId("s-1"), AT, "digits", MemberId("m-1"), DECISION)


async def test_it_is_kept_whole_and_an_auditor_finds_the_same_reason(migrated_database_url: str) -> None:
    nobody = replace(
        FACT,
        id="d-2",
        outcome="not_recognised",
        member=None,
        decision=decide(SearchResult(None, None, 0), RecognitionPolicy(), net_sha256="n").record,
    )
    async with await psycopg.AsyncConnection.connect(migrated_database_url, row_factory=dict_row) as conn:
        for _ in range(2):
            await save_facts(conn, [(FACT, "t"), (nobody, "t")])  # type: ignore[arg-type]
        rows = await (await conn.execute("SELECT * FROM face_decision ORDER BY id")).fetchall()
    assert [row["id"] for row in rows] == ["d-1", "d-2"], "the same fact again writes nothing"
    for row, fact in zip(rows, (FACT, nobody), strict=True):
        kept = {one.name: row[one.name] for one in fields(RecognitionDecision)}
        again = RecognitionDecision(**(kept | {"liveness": Liveness(kept["liveness"])}))
        assert again == fact.decision
        assert reason_of(replace(again, reason="")) == row["reason"] == fact.decision.reason
    assert asdict(DECISION)["reason"] == "amount_limit"


async def test_a_trace_shows_what_was_weighed_and_not_of_whom(migrated_database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(migrated_database_url) as conn:
        await save_facts(conn, [(replace(FACT, id="d-3", session=SessionId("v-3")), "t")])
        steps = await trace.steps(conn, trace.Anchor("v-3", "s-1", "session"), [])
    (step,) = [one for one in steps if one.table == "face_decision"]
    assert step.what == "digits amount_limit: best 0.800, next 0.310, t 0.499 in 120 of the store"
    assert step.detail["calibration"] == "lfw10@0123456789ab"
    assert step.detail["amount_limited"] is True
    assert "m-1" not in str(step)
