from __future__ import annotations

import dataclasses

import pytest

from models.domain.face_quality import (
    DEMO,
    IMAGE_FAULTS,
    PRODUCTION,
    PROMPTS,
    LookPurpose,
    LookReason,
    QualityPolicy,
    QualityReport,
    covered,
    judge,
    sentence,
)
from models.domain.texts import prompt_codes

GOOD = QualityReport(
    faces=1, score=0.8, eye_distance_px=40, sharpness=80, roll_deg=-12, nose_offset=0.25, luminance=120
)


def test_the_production_gates_are_the_measured_ones() -> None:
    enrol, probe = PRODUCTION.enrol, PRODUCTION.probe
    assert (enrol.eye_distance_px_min, enrol.sharpness_min, enrol.roll_deg_max) == (40, 80, 12)
    assert (enrol.nose_offset_max, enrol.score_min, enrol.nearest_ratio_min) == (0.25, 0.8, None)
    assert (PRODUCTION.shots, PRODUCTION.agreement_min) == (3, 0.60)
    assert (probe.eye_distance_px_min, probe.sharpness_min, probe.roll_deg_max) == (20, 25, 20)
    assert (probe.nose_offset_max, probe.score_min, probe.nearest_ratio_min) == (None, 0.7, 1.5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"eye_distance_px": 39.9}, LookReason.COME_CLOSER),
        ({"luminance": 49.0}, LookReason.TOO_DARK),
        ({"luminance": 221.0}, LookReason.TOO_BRIGHT),
        ({"score": 0.79}, LookReason.UNCLEAR),
        ({"roll_deg": -12.1}, LookReason.LOOK_STRAIGHT),
        ({"roll_deg": 12.1}, LookReason.LOOK_STRAIGHT),
        ({"nose_offset": 0.26}, LookReason.LOOK_STRAIGHT),
        ({"sharpness": 79.0}, LookReason.BLURRED),
        ({"mouth_cover": 4.0}, LookReason.MASK),
        ({"eye_light": 0.44}, LookReason.SUNGLASSES),
        ({"eye_distance_px": 10.0, "sharpness": 1.0, "score": 0.1}, LookReason.COME_CLOSER),
    ],
)
def test_each_gate_refuses_alone(change: dict[str, float], reason: LookReason | None) -> None:
    report = dataclasses.replace(GOOD, **change)  # type: ignore[arg-type]
    assert judge(report, PRODUCTION.gates(LookPurpose.ENROL)) is reason


def test_the_demo_relaxes_the_pose_and_nothing_that_a_probe_needs() -> None:
    aside = dataclasses.replace(GOOD, roll_deg=25, nose_offset=0.7)
    assert judge(aside, PRODUCTION.enrol) is LookReason.LOOK_STRAIGHT
    assert judge(aside, DEMO.enrol) is None
    assert DEMO.probe == PRODUCTION.probe


@pytest.mark.parametrize("reason", list(LookReason))
def test_every_reason_has_a_prompt_and_a_sentence_in_both_languages(reason: LookReason) -> None:
    assert PROMPTS[reason] in prompt_codes() or reason in IMAGE_FAULTS
    assert any("\u4e00" <= c <= "\u9fff" for c in sentence(reason, "zh_CN"))
    assert sentence(reason, "en").isascii()


@pytest.mark.parametrize("policy", [PRODUCTION, DEMO])
def test_who_seems_masked_enrols_once_asked_and_dark_glasses_never_do(policy: QualityPolicy) -> None:
    masked = dataclasses.replace(GOOD, mouth_cover=6.0)
    dark = dataclasses.replace(masked, eye_light=0.2)
    assert judge(masked, policy.enrol) is LookReason.MASK
    assert judge(masked, policy.mask_asked.enrol) is None
    assert judge(dark, policy.mask_asked.enrol) is LookReason.SUNGLASSES
    assert policy.mask_asked.probe == policy.probe
    assert policy.mask_asked.name == policy.name, "kept with the template"


def test_a_covered_face_may_still_match() -> None:
    masked = dataclasses.replace(GOOD, mouth_cover=6.0)
    assert judge(masked, PRODUCTION.probe) is None, "a match is a match"
    assert covered(masked) is LookReason.MASK, "and no stranger otherwise"
    assert covered(GOOD) is None
