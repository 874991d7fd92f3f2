from __future__ import annotations

import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.errors import Refused
from models.domain.events import Purpose
from models.domain.face_quality import FaceKind
from models.domain.ids import ChainId, MemberId, MessageId, SessionId, StoreId
from models.domain.liveness import Liveness, LivenessPolicy
from models.domain.recognition import (
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


@pytest.mark.parametrize(
    ("search", "given_", "expected"),
    [
        (found(0.48, 0.2), {}, Accepted(LI)),
        (found(0.48, 0.40), {}, Accepted(LI)),
        (found(0.4799, 0.2), {}, NeedsDigits(DigitsReason.BELOW_THRESHOLD)),
        (found(0.36, 0.2), {}, NeedsDigits(DigitsReason.BELOW_THRESHOLD)),
        (found(0.3599, 0.2), {}, NotRecognised(UnknownReason.BELOW_FLOOR)),
        (found(0.80, 0.73), {}, NeedsDigits(DigitsReason.THIN_MARGIN)),
        (found(0.80, None, 1), {}, Accepted(LI)),
        (found(0.80), {"partial": True}, NeedsDigits(DigitsReason.PARTIAL)),
        (found(0.30), {"partial": True}, NotRecognised(UnknownReason.BELOW_FLOOR)),
        (found(0.80), {"liveness": Liveness.IN_DOUBT}, NeedsDigits(DigitsReason.LIVENESS_IN_DOUBT)),
        (found(0.80), {"liveness": Liveness.FAILED}, NotRecognised(UnknownReason.LIVENESS_FAILED)),
        (
            found(0.80),
            {"liveness": Liveness.FAILED, "digits_given": True},
            NotRecognised(UnknownReason.LIVENESS_FAILED),
        ),
        (SearchResult(None, None, 0), {}, NotRecognised(UnknownReason.NOBODY_ENROLLED)),
        (SearchResult(None, None, 0), {"partial": True}, NeedsDigits(DigitsReason.PARTIAL)),
        (
            SearchResult(None, None, 0),
            {"partial": True, "digits_given": True},
            NotRecognised(UnknownReason.NOBODY_ENROLLED),
        ),
        (found(0.40, None, 1), {"digits_given": True}, Accepted(LI)),
        (found(0.37, None, 3), {"digits_given": True}, NotRecognised(UnknownReason.DIGITS_BELOW_THRESHOLD)),
        (found(0.70, 0.65, 2), {"digits_given": True}, NotRecognised(UnknownReason.DIGITS_THIN_MARGIN)),
        (found(0.70, 0.2, 2), {"digits_given": True, "partial": True, "liveness": Liveness.IN_DOUBT}, Accepted(LI)),
    ],
)
def test_the_rule(search: SearchResult, given_: dict[str, object], expected: Match) -> None:
    assert match(search, **given_) == expected


@given(
    st.floats(-1, 1), st.floats(-1, 1), st.integers(1, 10**6), st.booleans(), st.sampled_from(Liveness), st.booleans()
)
def test_acceptance_is_never_cheaper_than_the_rule(
    a: float, b: float, searched: int, partial: bool, liveness: Liveness, digits: bool
) -> None:
    s1, s2 = max(a, b), min(a, b)
    result = match(found(s1, s2, searched), partial=partial, liveness=liveness, digits_given=digits)
    if isinstance(result, Accepted):
        assert round(s1 * 1e6) >= round(threshold(searched) * 1e6) >= 360_000
        assert round(s1 * 1e6) - round(s2 * 1e6) >= 80_000
        assert liveness is not Liveness.FAILED
        assert digits or (not partial and liveness is not Liveness.IN_DOUBT)
    if digits:
        assert not isinstance(result, NeedsDigits), "there is no third question"


def test_every_decision_is_recorded() -> None:
    record = decide(found(0.8, 0.73, 100), POLICY, net_sha256="ab").record
    assert (record.templates_searched, record.threshold_ppm, record.best_ppm, record.second_ppm) == (
        100,
        480_000,
        800_000,
        730_000,
    )
    assert (record.net_sha256, record.reason) == ("ab", "thin_margin")
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
