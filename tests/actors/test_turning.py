"""The turn of the head, from the visit to the worker and back: whatever is shown, no failed liveness is accepted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.face_worker import FaceWorker
from actors.galleries import Galleries
from actors.ports import IdentifyFace, RescoreFace
from models.domain.events import Cancel, Consent, Digits, FaceShown, Purpose, Traits
from models.domain.face_quality import PRODUCTION, FaceKind, LookPurpose, LookReason, QualityPolicy, QualityReport
from models.domain.ids import ChainId, MemberId, MessageId, TerminalId, event_cause
from models.domain.liveness import ChallengeMode, Landmarks, Liveness, LivenessPolicy, Side
from models.domain.messages import FaceAnswered, FaceOutcome
from models.domain.recognition import (
    ConsentToken,
    Embedding,
    FaceAnswer,
    IdentifyRequest,
    RecognitionPolicy,
    RescoreRequest,
    Seen,
    Unseen,
    reason_of,
    threshold,
)
from models.faces.gallery import Gallery
from models.faces.rotation import rotation_from
from tests.actors.lane import Lane, buy, member
from tests.actors.test_face_worker import LI, VAULT, WANG, near, row
from tests.domain.test_liveness import HEAD, seen

KEY = b"v" * 32
VOUCHES = Traits(vouches_liveness=True)
ALWAYS, IN_DOUBT, OFF = ChallengeMode.ALWAYS, ChallengeMode.IN_DOUBT, ChallengeMode.OFF


@dataclass(frozen=True)
class Frame:
    """What stands before the camera: whose face, how far it is turned, and what a net and the device say of it."""

    embedding: Embedding = LI
    yaw: float = 0.0
    net_ppm: int | None = None
    device: float | None = None
    hidden: float = 0.0


class Eyes:
    """Sees the frame whose number the image is."""

    net_sha256 = "net"

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def look(self, jpeg: bytes, *, kind: FaceKind, purpose: LookPurpose, policy: QualityPolicy) -> Seen | Unseen:
        frame = self.frames[int(jpeg)]
        points: Landmarks = seen(HEAD, frame.yaw)
        aside = abs(points[2][0] - (points[0][0] + points[1][0]) / 2) / abs(points[1][0] - points[0][0])
        quality = QualityReport(1, 0.9, 60, 300, 0, aside, 120, mouth_cover=frame.hidden)
        return Seen(frame.embedding, quality, points, frame.net_ppm)

    def combine(self, shots: list[Embedding], agreement_min: float) -> Embedding | tuple[int, ...]:
        raise AssertionError("nobody enrols here")

    def retire(self, net_sha256: str) -> None: ...


@cache
def enrolled() -> Galleries:
    """Two members; nothing here changes a gallery."""
    galleries = Galleries(VAULT, "net", lambda _: Gallery(128, rotation_from(b"r" * 32)))
    galleries.load(ChainId("chain"), 1, [row("li", LI, "1234"), row("wang", WANG, "5678")])
    return galleries


class Counter:
    """A lane, a worker, and what runtime does between them."""

    def __init__(self, policy: LivenessPolicy, traits: Traits = VOUCHES) -> None:
        self.eyes, self.traits, self.key = Eyes(), traits, KEY
        self.worker = FaceWorker(
            self.eyes,
            VAULT,
            enrolled(),
            quality=PRODUCTION,
            recognition=RecognitionPolicy(),
        )
        self.lane = Lane()
        self.lane.book = replace(self.lane.book, chain_book=replace(self.lane.book.chain_book, liveness=policy))
        self.lane.open()
        self.lane.consent()

    def show(self, frame: Frame, *, again: bool = False, late_s: float = 0.0, **sent: str) -> FaceAnswer:
        """One frame, judged. `again`: under the bytes of the first; `late_s`: off the lane's clock; `sent`: by whom."""
        self.eyes.frames[:] = [frame, *self.eyes.frames[1:]] if again else [*self.eyes.frames, frame]
        event = self.lane.event(FaceShown(b"", "frame", frame.device), traits=self.traits)
        event = replace(event, ts=event.ts + timedelta(seconds=late_s), **sent)  # type: ignore[arg-type]
        self.lane.sent[event.id] = self.lane.now
        self.lane._turn(event, event.id, event)
        question, asked = self.lane.asked(IdentifyFace)
        assert asked.image == event_cause(event.terminal, event.id)
        answer = self.worker.identify(
            IdentifyRequest(
                asked.session,
                question,
                ChainId("chain"),
                asked.store,
                b"0" if again else str(len(self.eyes.frames) - 1).encode(),
                FaceKind.FRAME,
                self.key,
                liveness_ppm=asked.liveness_ppm,
                liveness=asked.liveness,
                challenge=asked.challenge,
                device_score=asked.device_score,
                digits_required=asked.digits_required,
            ),
            ConsentToken(Purpose.RECOGNISE, asked.session, MessageId(asked.consent)),
        )
        self._tell(answer)
        return answer

    def type(self, tail: str) -> FaceAnswer:
        """Digits, judged."""
        self.lane.later(Digits(tail))
        question, asked = self.lane.asked(RescoreFace)
        answer = self.worker.rescore(
            RescoreRequest(asked.session, question, ChainId("chain"), asked.sealed, self.key, asked.tail),
            ConsentToken(Purpose.RECOGNISE, asked.session, MessageId(asked.consent)),
        )
        self._tell(answer)
        return answer

    def _tell(self, answer: FaceAnswer) -> None:
        who = replace(member(), id=MemberId(answer.member)) if answer.member else None
        lost = answer.outcome is FaceOutcome.LOST
        reason = answer.reason if lost else answer.prompt or answer.reason
        self.lane.tell(
            FaceAnswered(answer.session, answer.question, answer.outcome, who, reason, answer.sealed, answer.decision)
        )

    def who(self) -> str | None:
        """Who was recognised."""
        return self.lane.session.member.id if self.lane.session.member is not None else None

    def waits(self) -> bool:
        """For a turn of the head."""
        return self.lane.session.turning is not None

    @property
    def asked_side(self) -> Side:
        prompt = self.lane.session.prompt
        assert prompt is not None
        assert prompt.code == "turn_head"
        return Side(str(prompt.params["direction"]))

    def toward(self, side: Side) -> float:
        return 40.0 if side is Side.LEFT else -40.0


def other(side: Side) -> Side:
    return Side.RIGHT if side is Side.LEFT else Side.LEFT


def test_a_head_that_turns_as_asked_is_let_in() -> None:
    counter = Counter(LivenessPolicy(challenge=ALWAYS))
    first = counter.show(Frame())
    assert (first.outcome, first.member) == (FaceOutcome.CHALLENGE, None)
    assert counter.lane.prompt == "turn_head"
    assert counter.who() is None
    turning = counter.lane.session.turning
    assert turning is not None
    assert bytes(LI) not in turning.first, "sealed"
    counter.show(Frame(near(LI, 0.6), counter.toward(counter.asked_side)))
    assert counter.who() == "li"
    assert not counter.waits()
    counter.lane.nobody_waits()


def test_it_is_the_frame_that_looked_straight_that_is_searched_for() -> None:
    counter = Counter(LivenessPolicy(challenge=ALWAYS))
    straight = near(LI, 0.9)
    counter.show(Frame(straight))
    answer = counter.show(Frame(near(straight, 0.45), counter.toward(counter.asked_side)))
    assert answer.outcome is FaceOutcome.ACCEPTED
    assert answer.decision is not None
    assert answer.decision.best_ppm == pytest.approx(900_000, abs=1000)


@pytest.mark.parametrize("still", [0.3, 5.0, -5.0])
def test_a_photograph_is_asked_twice_and_then_for_digits(still: float) -> None:
    counter = Counter(LivenessPolicy(challenge=ALWAYS))
    counter.show(Frame())
    again = counter.show(Frame(yaw=still))
    assert again.outcome is FaceOutcome.CHALLENGE
    last = counter.show(Frame(yaw=still))
    assert (last.outcome, last.reason) == (FaceOutcome.DIGITS, "liveness_in_doubt")
    assert counter.lane.state == "digits"
    assert counter.show(Frame(yaw=0.0)).outcome is FaceOutcome.DIGITS, "and no turn is asked for any more"
    assert counter.type("5678").outcome is FaceOutcome.NOT_RECOGNISED
    assert counter.lane.session.member is None


@pytest.mark.parametrize("tries", [1, 2, 3])
def test_the_last_turn_that_is_asked_for_counts_like_the_first(tries: int) -> None:
    counter = Counter(LivenessPolicy(challenge=ALWAYS, tries_max=tries))
    for n in range(tries):
        assert counter.show(Frame(yaw=float(n))).outcome is FaceOutcome.CHALLENGE
    assert counter.show(Frame(near(LI, 0.6), counter.toward(counter.asked_side))).member == "li"


def test_each_turn_has_its_time_from_when_it_was_asked_for() -> None:
    counter = Counter(LivenessPolicy(challenge=ALWAYS))
    counter.show(Frame())
    assert counter.show(Frame(yaw=1.0), late_s=15).outcome is FaceOutcome.CHALLENGE
    assert counter.show(Frame(near(LI, 0.6), counter.toward(counter.asked_side)), late_s=30).member == "li"


def test_a_good_score_does_not_stand_in_for_the_last_turn() -> None:
    counter = Counter(LivenessPolicy(challenge=IN_DOUBT, tries_max=1))
    assert counter.show(Frame(device=0.5)).outcome is FaceOutcome.CHALLENGE
    other = counter.show(Frame(device=0.9, yaw=1.0), boot="another boot")
    assert (other.outcome, other.reason) == (FaceOutcome.DIGITS, "liveness_in_doubt")
    assert counter.show(Frame(device=0.9)).outcome is FaceOutcome.DIGITS


def test_the_first_frame_sent_again_is_refused_and_the_visit_needs_digits_from_then_on() -> None:
    counter = Counter(LivenessPolicy(challenge=ALWAYS))
    counter.show(Frame())
    again = counter.show(Frame())  # other bytes, but not one number in them has moved
    assert (again.outcome, again.reason, again.sealed) == (FaceOutcome.NOT_RECOGNISED, "liveness_failed", None)
    assert counter.show(Frame(yaw=1.0)).outcome is FaceOutcome.DIGITS
    counter = Counter(LivenessPolicy(challenge=ALWAYS))
    counter.show(Frame())
    turned = counter.show(Frame(near(LI, 0.6), counter.toward(counter.asked_side)), again=True)
    assert turned.reason == "liveness_failed", "the same file to the byte, whatever is seen in it"


@pytest.mark.parametrize(
    "moved", [{"boot": "another boot"}, {"terminal": TerminalId("another")}, {"late_s": 21.0}, {"late_s": -1.0}]
)
def test_an_answer_of_another_camera_boot_or_moment_is_a_first_frame_again(moved: dict[str, Any]) -> None:
    counter = Counter(LivenessPolicy(challenge=ALWAYS))
    counter.show(Frame())
    side = counter.asked_side
    other = counter.show(Frame(near(LI, 0.6), counter.toward(side)), **moved)
    assert (other.outcome, other.reason) == (FaceOutcome.QUALITY, LookReason.LOOK_STRAIGHT), "a turned head is no first"
    counter = Counter(LivenessPolicy(challenge=ALWAYS))
    counter.show(Frame())
    assert counter.show(Frame(yaw=1.0), **moved).outcome is FaceOutcome.CHALLENGE
    answer = counter.show(Frame(near(LI, 0.6), counter.toward(counter.asked_side)), **moved)
    assert (answer.outcome, answer.member) == (FaceOutcome.ACCEPTED, "li"), "held against the frame of its own camera"


def test_another_face_in_the_second_frame_is_refused_and_the_visit_needs_digits_from_then_on() -> None:
    counter = Counter(LivenessPolicy(challenge=ALWAYS))
    counter.show(Frame())
    swapped = counter.show(Frame(WANG, counter.toward(counter.asked_side)))
    assert (swapped.outcome, swapped.reason, swapped.sealed) == (
        FaceOutcome.NOT_RECOGNISED,
        "liveness_failed",
        None,
    )
    assert counter.lane.prompt == "not_recognised"
    assert counter.show(Frame()).outcome is FaceOutcome.DIGITS


def test_a_turn_the_other_way_is_no_turn() -> None:
    counter = Counter(LivenessPolicy(challenge=ALWAYS))
    counter.show(Frame())
    assert counter.show(Frame(yaw=counter.toward(other(counter.asked_side)))).outcome is FaceOutcome.CHALLENGE


def test_who_looks_aside_at_first_is_asked_to_look_straight() -> None:
    counter = Counter(LivenessPolicy(challenge=ALWAYS))
    assert counter.show(Frame(yaw=40)).reason == LookReason.LOOK_STRAIGHT
    assert counter.lane.prompt == "look_straight"
    assert counter.lane.session.turns == 0


def test_only_a_doubt_asks_for_a_turn_when_the_chain_says_so() -> None:
    policy = LivenessPolicy(challenge=IN_DOUBT, required=True)
    assert Counter(policy).show(Frame(device=0.9)).outcome is FaceOutcome.ACCEPTED
    assert Counter(policy).show(Frame(device=0.5)).outcome is FaceOutcome.CHALLENGE
    assert Counter(policy).show(Frame(device=0.1)).reason == "liveness_failed"
    assert Counter(policy).show(Frame(net_ppm=900_000)).outcome is FaceOutcome.ACCEPTED
    assert Counter(policy).show(Frame(device=0.9, net_ppm=100_000)).reason == "liveness_failed"
    assert Counter(replace(policy, challenge=OFF)).show(Frame(device=0.5)).outcome is FaceOutcome.DIGITS


def test_a_score_that_nobody_vouches_for_is_counted_and_not_read() -> None:
    counter = Counter(LivenessPolicy(required=True), Traits())
    assert counter.show(Frame(device=1.0)).reason == "liveness_in_doubt"
    assert counter.worker.health().answers["liveness:score_ignored_family"] == 1
    assert Counter(LivenessPolicy(), Traits()).show(Frame(device=0.0)).outcome is FaceOutcome.ACCEPTED


def test_a_terminal_that_shows_no_prompt_or_needs_digits_anyway_goes_on_with_digits() -> None:
    for traits in (Traits(shows_prompts=False), Traits(digits_required=True)):
        counter = Counter(LivenessPolicy(challenge=ALWAYS), traits)
        assert counter.show(Frame()).outcome is FaceOutcome.DIGITS
        assert counter.type("1234").outcome is FaceOutcome.ACCEPTED


def test_a_turn_nobody_made_is_over_and_was_a_try() -> None:
    counter = Counter(LivenessPolicy(challenge=ALWAYS, tries_max=1))
    counter.show(Frame())
    counter.lane.after(14.9)
    assert counter.waits()
    counter.lane.after(0.2)
    assert not counter.waits()
    assert counter.lane.prompt == "face_lost"
    assert counter.show(Frame()).outcome is FaceOutcome.DIGITS


def test_cancel_withdrawal_and_a_new_key_end_the_turn() -> None:
    counter = Counter(LivenessPolicy(challenge=ALWAYS))
    counter.show(Frame())
    counter.lane.ok(Cancel())
    assert counter.lane.session.live, "only the question ends"
    assert counter.lane.session.turning is None
    counter.show(Frame())
    counter.key = b"w" * 32
    lost = counter.show(Frame(yaw=40))
    assert lost.outcome is FaceOutcome.LOST, "the host was restarted: its key is gone"
    assert counter.lane.session.turning is None
    withdrawn = Counter(LivenessPolicy(challenge=ALWAYS))
    withdrawn.show(Frame())
    withdrawn.lane.ok(Consent(Purpose.RECOGNISE, "v1", False))
    assert withdrawn.lane.session.turning is None
    assert withdrawn.lane.session.prompt is None


def test_a_masked_face_is_no_stranger() -> None:
    counter = Counter(LivenessPolicy())
    stranger = near(LI, 0.1)
    assert counter.show(Frame(stranger)).outcome is FaceOutcome.NOT_RECOGNISED
    masked = counter.show(Frame(stranger, hidden=6.0))
    assert (masked.outcome, masked.reason, counter.lane.prompt) == (FaceOutcome.QUALITY, "mask", "take_off_mask")
    assert masked.decision is not None, "decided all the same, and recorded"
    assert counter.show(Frame(hidden=6.0)).outcome is FaceOutcome.ACCEPTED, "a bare face may seem masked"


def test_a_mask_hides_no_veto() -> None:
    counter = Counter(LivenessPolicy())
    vetoed = counter.show(Frame(net_ppm=100_000, hidden=6.0))
    assert (vetoed.outcome, vetoed.reason, counter.lane.prompt) == (
        FaceOutcome.NOT_RECOGNISED,
        "liveness_failed",
        "not_recognised",
    )
    assert counter.show(Frame(hidden=6.0)).outcome is FaceOutcome.DIGITS, "for the rest of the visit"


def test_a_face_that_seems_masked_spends_the_budget_ten_times() -> None:
    face = near(LI, 0.43)
    bare = Counter(LivenessPolicy()).show(Frame(face))
    counter = Counter(LivenessPolicy())
    masked = counter.show(Frame(face, hidden=6.0))
    assert (bare.outcome, masked.outcome) == (FaceOutcome.ACCEPTED, FaceOutcome.DIGITS)
    assert bare.decision is not None
    assert masked.decision is not None
    assert masked.reason == "below_threshold" == reason_of(masked.decision)
    assert (bare.decision.looks, masked.decision.looks) == (2, 20)
    assert masked.decision.threshold_ppm == round(threshold(20 * masked.decision.templates_searched) * 1e6)
    assert counter.type("1234").outcome is FaceOutcome.ACCEPTED


def test_the_basket_s_amount_goes_with_the_face() -> None:
    counter = Counter(LivenessPolicy())
    lane = counter.lane
    lane.later(FaceShown(b"", "frame"))
    assert lane.asked(IdentifyFace)[1].amount_fen is None
    lane.face_answer(FaceOutcome.NOT_RECOGNISED)
    buy(lane, "tea", "roll")
    lane.later(FaceShown(b"", "frame"))
    assert lane.asked(IdentifyFace)[1].amount_fen == 1853


frames = st.builds(
    Frame,
    st.sampled_from([LI, WANG, near(LI, 0.7), near(LI, 0.45)]),
    st.sampled_from([0.0, 10.0, 40.0, -40.0, 25.0]),
    st.sampled_from([None, None, 100_000, 500_000, 900_000]),
    st.sampled_from([None, None, 0.1, 0.5, 0.9]),
    st.sampled_from([0.0, 0.0, 6.0]),
)
policies = st.builds(LivenessPolicy, st.booleans(), st.sampled_from(ChallengeMode), tries_max=st.integers(1, 3))


@settings(max_examples=100, deadline=None)
@given(policies, st.lists(frames, min_size=1, max_size=7), st.booleans())
def test_whatever_is_shown_no_failed_liveness_is_accepted(
    policy: LivenessPolicy, shown: Sequence[Frame], vouches: bool
) -> None:
    counter = Counter(policy, Traits(vouches_liveness=vouches))
    vetoed, turns = False, 0
    for frame in shown:
        answer = counter.show(frame)
        turns += answer.outcome is FaceOutcome.CHALLENGE
        assert turns <= policy.tries_max
        record = answer.decision
        failed = record is not None and record.liveness is Liveness.FAILED
        if failed:
            assert answer.outcome is FaceOutcome.NOT_RECOGNISED
            assert answer.sealed is None
            vetoed = True
        if answer.outcome is FaceOutcome.ACCEPTED:
            assert record is not None
            assert not vetoed, "after a veto a face alone is not enough in this visit"
            assert record.liveness is Liveness.PASSED or (
                record.liveness is Liveness.NOT_CHECKED and not policy.required and policy.challenge is not ALWAYS
            )
            assert not (vouches and frame.device == 0.1)
            assert frame.net_ppm != 100_000
            break
    assert (counter.lane.session.member is not None) == (answer.outcome is FaceOutcome.ACCEPTED)
    counter.lane.nobody_waits()
