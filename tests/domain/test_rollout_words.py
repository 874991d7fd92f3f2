"""Each state and reason of a rollout has its words, in both languages."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import pytest

from models.domain.plan_reader import Text
from models.domain.rollout import Reason, RolloutState, StageState, TargetState
from models.domain.rollout_words import REASONS, ROLLOUT_STATES, STAGE_STATES, TARGET_STATES

EACH: tuple[tuple[type[StrEnum], Mapping[Any, Text]], ...] = (
    (RolloutState, ROLLOUT_STATES),
    (StageState, STAGE_STATES),
    (TargetState, TARGET_STATES),
    (Reason, REASONS),
)


@pytest.mark.parametrize(("kind", "words"), EACH, ids=[kind.__name__ for kind, _ in EACH])
def test_every_one_has_words(kind: type[StrEnum], words: Mapping[Any, Text]) -> None:
    assert set(words) == set(kind)
    assert all((one.zh and one.en) or not key.value for key, one in words.items())
