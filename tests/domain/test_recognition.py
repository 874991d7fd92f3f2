from __future__ import annotations

import json
import math
import pickle
from bisect import bisect_left
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.errors import Refused
from models.domain.events import Purpose
from models.domain.face_quality import FaceKind
from models.domain.ids import ChainId, MemberId, MessageId, SessionId, StoreId
from models.domain.liveness import Liveness, LivenessPolicy
from models.domain.messages import RecognitionDecision
from models.domain.recognition import (
    CLEAR,
    NO_SCORE_PPM,
    THRESHOLDS,
    Accepted,
    Candidate,
    ConsentToken,
    DigitsReason,
    IdentifyRequest,
    Match,
    NeedsDigits,
    NotRecognised,
    RecognitionPolicy,
    SearchResult,
    UnknownReason,
    decide,
    reason_of,
    threshold,
)

POLICY = RecognitionPolicy()
LI, WANG = MemberId("li"), MemberId("wang")


def found(s1: float, s2: float | None = None, searched: int = 100) -> SearchResult:
    return SearchResult(Candidate(LI, s1), None if s2 is None else Candidate(WANG, s2), searched)


def match(search: SearchResult, **given_: object) -> Match:
    return decide(search, POLICY, net_sha256="net", **given_).match  # type: ignore[arg-type]


@pytest.mark.parametrize(("searched", "t"), THRESHOLDS)
def test_the_threshold_goes_through_the_measured_points(searched: int, t: float) -> None:
    assert threshold(searched) == pytest.approx(t, abs=1e-12)


def test_the_threshold_is_linear_in_log_n_and_goes_on_after_the_last_point() -> None:
    assert threshold(10) == pytest.approx(0.42)
    assert threshold(0) == threshold(1) == 0.36
    assert threshold(round(math.sqrt(1_000 * 10_000))) == pytest.approx((0.53 + 0.585) / 2, abs=1e-4)
    assert threshold(10_000_000) == pytest.approx(0.725)
    assert threshold(10**30) == 1.0


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_more_templates_never_lower_the_threshold(a: int, b: int) -> None:
    assert (threshold(a) <= threshold(b)) or a > b


ANSWERS = {"accepted": Accepted, "digits": NeedsDigits, "not recognised": NotRecognised}
CONDITIONS: dict[str, dict[str, object]] = {
    "two looks": {"looks": 2},
    "partial": {"partial": True},
    "liveness in doubt": {"liveness": Liveness.IN_DOUBT},
    "liveness failed": {"liveness": Liveness.FAILED},
    "digits required": {"digits_required": True},
    "above the limit": {"amount_fen": 20_001, "face_alone_max_fen": 20_000},
    "elsewhere": {"elsewhere": True},
    "digits": {"digits_given": True},
}


def documented() -> list[tuple[str, ...]]:
    """The rows of the decision table in the documentation."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "faces.md").read_text("utf-8")
    table = text.partition("## Decision")[2].partition("| case |")[2].partition("\n\n")[0]
    return [tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in table.splitlines()[2:]]


def test_the_documented_table_is_whole() -> None:
    rows = documented()
    reasons = {row[6].strip("`") for row in rows}
    assert reasons == {CLEAR, *DigitsReason, *UnknownReason}, "every reason has a row"
    assert {part for row in rows for part in row[4].split(", ") if part} == CONDITIONS.keys()


@pytest.mark.parametrize("row", documented(), ids=lambda row: row[0])
def test_the_rule_is_the_documented_table(row: tuple[str, ...]) -> None:
    _, s1, s2, n, conditions, answer, reason = row
    best, second = (None if cell == "-" else float(cell) for cell in (s1, s2))
    search = SearchResult(
        None if best is None else Candidate(LI, best),
        None if second is None else Candidate(WANG, second),
        int(n.replace(",", "")),
    )
    given_: dict[str, Any] = {}
    for condition in filter(None, conditions.split(", ")):
        given_ |= CONDITIONS[condition]
    decision = decide(search, POLICY, net_sha256="net", **given_)
    assert isinstance(decision.match, ANSWERS[answer])
    assert decision.record.reason == reason.strip("`")
    if isinstance(decision.match, Accepted):
        assert decision.match.member == LI


@pytest.mark.parametrize(
    ("amount_fen", "max_fen", "limited"),
    [(20_000, 20_000, False), (20_001, 20_000, True), (None, 20_000, False), (10**9, None, False), (1, 0, True)],
)
def test_the_amount_limits_a_face_alone_where_both_are_known(
    amount_fen: int | None, max_fen: int | None, limited: bool
) -> None:
    decision = decide(found(0.9), POLICY, net_sha256="net", amount_fen=amount_fen, face_alone_max_fen=max_fen)
    assert decision.record.amount_limited is limited
    assert isinstance(decision.match, NeedsDigits if limited else Accepted)


# ---------------------------------------------------------------- properties

SCORES = st.integers(-1_000_000, 1_000_000).map(lambda ppm: ppm / 1_000_000)
HOW = st.fixed_dictionaries(
    {
        "looks": st.integers(1, 3),
        "liveness": st.sampled_from(Liveness),
        "partial": st.booleans(),
        "digits_given": st.booleans(),
        "digits_required": st.booleans(),
        "amount_fen": st.sampled_from([None, 100, 50_000]),
        "face_alone_max_fen": st.just(20_000),
        "elsewhere": st.booleans(),
    }
)
RANK: dict[type[Match], int] = {NotRecognised: 0, NeedsDigits: 1, Accepted: 2}


def rank(s1: float, s2: float, searched: int, how: dict[str, Any]) -> int:
    return RANK[type(decide(found(s1, s2, searched), POLICY, net_sha256="net", **how).match)]


@given(SCORES, SCORES, st.integers(1, 10**6), HOW)
def test_acceptance_is_never_cheaper_than_the_rule(a: float, b: float, searched: int, how: dict[str, Any]) -> None:
    s1, s2 = max(a, b), min(a, b)
    decision = decide(found(s1, s2, searched), POLICY, net_sha256="net", **how)
    if isinstance(decision.match, Accepted):
        assert round(s1 * 1e6) >= round(threshold(searched * how["looks"]) * 1e6) >= 360_000
        assert round(s1 * 1e6) - round(s2 * 1e6) >= 80_000
        assert how["liveness"] is not Liveness.FAILED
        silent = not how["digits_given"]
        assert not (silent and how["partial"])
        assert not (silent and how["liveness"] is Liveness.IN_DOUBT)
        assert not (silent and how["digits_required"])
        assert not (silent and how["amount_fen"] == 50_000)
    if how["digits_given"]:
        assert not isinstance(decision.match, NeedsDigits), "there is no third question"


@given(SCORES, SCORES, SCORES, st.integers(1, 10**6), HOW)
def test_a_better_score_never_makes_it_worse(a: float, b: float, s2: float, n: int, how: dict[str, Any]) -> None:
    assert rank(min(a, b), s2, n, how) <= rank(max(a, b), s2, n, how)


@given(SCORES, SCORES, st.integers(1, 10**6), st.integers(1, 10**6), HOW)
def test_more_templates_never_make_it_easier(s1: float, s2: float, a: int, b: int, how: dict[str, Any]) -> None:
    assert rank(s1, s2, max(a, b), how) <= rank(s1, s2, min(a, b), how)


@given(SCORES, SCORES, SCORES, st.integers(1, 10**6), HOW)
def test_a_wider_margin_never_makes_it_worse(s1: float, a: float, b: float, n: int, how: dict[str, Any]) -> None:
    assert rank(s1, max(a, b), n, how) <= rank(s1, min(a, b), n, how)


@given(SCORES, SCORES, st.integers(1, 10**6), HOW, st.sampled_from(["partial", "digits_required", "liveness", "looks"]))
def test_a_doubt_more_never_makes_it_easier(s1: float, s2: float, n: int, how: dict[str, Any], doubt: str) -> None:
    worse = {"partial": True, "digits_required": True, "liveness": Liveness.FAILED, "looks": 4}[doubt]
    before = decide(found(s1, s2, n), POLICY, net_sha256="net", **how).match
    after = decide(found(s1, s2, n), POLICY, net_sha256="net", **(how | {doubt: worse})).match
    assert not isinstance(after, Accepted) or isinstance(before, Accepted)


@given(st.one_of(st.none(), SCORES), st.one_of(st.none(), SCORES), st.integers(1, 10**6), HOW)
def test_an_auditor_decides_the_same_from_the_record_alone(
    best: float | None, second: float | None, n: int, how: dict[str, Any]
) -> None:
    search = SearchResult(None, None, 0)
    if best is not None:
        search = SearchResult(Candidate(LI, best), None if second is None else Candidate(WANG, second), n)
    decision = decide(search, POLICY, net_sha256="net", **how)
    row = json.loads(json.dumps(asdict(decision.record)))
    assert all(isinstance(value, (int, str)) for value in row.values()), "no float, nothing nested"
    again = RecognitionDecision(**(row | {"liveness": Liveness(row["liveness"]), "reason": ""}))
    assert reason_of(again) == decision.record.reason
    assert decision.record.threshold_ppm == round(threshold(search.searched * how["looks"]) * 1_000_000)


@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=3))
def test_looks_together_spend_no_more_than_the_budget(sizes: list[int]) -> None:
    """By the table's own law: t(N) is where N x FAR(t) is one in a thousand, so FAR(t(N)) = 1 / (1000 N)."""
    spent, searched = 0.0, 0
    for fresh in sizes:
        searched += fresh
        record = decide(found(0.3, 0.1, searched), POLICY, net_sha256="net", looks=len(sizes)).record
        meant = 1 + bisect_left(
            range(1, 4 * searched), record.threshold_ppm, key=lambda n: round(threshold(n) * 1_000_000)
        )
        spent += fresh / (1000 * meant)
    assert spent <= 0.001 * (1 + 1e-4)


@given(SCORES, SCORES, st.integers(1, 10**6), HOW)
def test_a_wider_search_is_made_only_where_it_can_help(s1: float, s2: float, n: int, how: dict[str, Any]) -> None:
    decision = decide(found(s1, s2, n), POLICY, net_sha256="net", **(how | {"digits_given": False}))
    if isinstance(decision.match, Accepted):
        assert not decision.wider_may_help
    if decision.wider_may_help:
        reached = decide(found(1.0, -1.0, n), POLICY, net_sha256="net", **(how | {"digits_given": False})).match
        assert not isinstance(reached, NotRecognised)


def test_every_decision_is_recorded() -> None:
    record = decide(found(0.8, 0.73, 100), POLICY, net_sha256="ab").record
    assert (record.templates_searched, record.threshold_ppm, record.best_ppm, record.second_ppm) == (
        100,
        480_000,
        800_000,
        730_000,
    )
    assert (record.net_sha256, record.reason) == ("ab", "thin_margin")
    assert (record.floor_ppm, record.margin_ppm, record.scope, record.looks) == (360_000, 80_000, "region", 1)
    assert decide(SearchResult(None, None, 0), POLICY, net_sha256="ab").record.best_ppm == NO_SCORE_PPM
    assert decide(found(0.9, None, 1), POLICY, net_sha256="ab").record.second_ppm == NO_SCORE_PPM
    assert decide(found(0.9), POLICY, net_sha256="ab").record.reason == "clear"


def test_liveness_scores_are_read_by_the_policy() -> None:
    policy = LivenessPolicy(required=True)
    assert policy.judge(None) is Liveness.IN_DOUBT
    assert policy.judge(199_999) is Liveness.FAILED
    assert policy.judge(200_000) is Liveness.IN_DOUBT
    assert policy.judge(700_000) is Liveness.PASSED
    assert LivenessPolicy().judge(None) is Liveness.NOT_CHECKED


@pytest.mark.parametrize("points", [(), ((2, 0.4),), ((1, 0.5), (100, 0.4)), ((1, 0.4), (1, 0.5))])
def test_thresholds_that_do_not_rise_are_refused(points: tuple[tuple[int, float], ...]) -> None:
    with pytest.raises(ValueError, match="rise"):
        RecognitionPolicy(thresholds=points)


@pytest.mark.parametrize(
    "token",
    [
        ConsentToken(Purpose.MARKETING, SessionId("s"), MessageId("m")),
        ConsentToken(Purpose.MEMBERSHIP, SessionId("s"), MessageId("m")),
        ConsentToken(Purpose.RECOGNISE, SessionId("other visit"), MessageId("m")),
        ConsentToken(Purpose.RECOGNISE, SessionId("s"), MessageId("")),
    ],
)
def test_only_this_visit_s_consent_to_recognise_counts(token: ConsentToken) -> None:
    with pytest.raises(Refused) as refused:
        token.check(SessionId("s"))
    assert refused.value.code == "consent_missing"
    ConsentToken(Purpose.RECOGNISE, SessionId("s"), MessageId("m")).check(SessionId("s"))


def test_requests_cross_processes_and_never_show_an_image_or_a_key() -> None:
    request = IdentifyRequest(
        SessionId("s"), "q", ChainId("c"), StoreId("t"), b"\xff\xd8secret", FaceKind.FRAME, b"visit key"
    )
    assert pickle.loads(pickle.dumps(request)) == request
    assert "secret" not in repr(request)
    assert "visit key" not in repr(request)
