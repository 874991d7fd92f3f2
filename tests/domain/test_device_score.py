"""Whose liveness scores are read: every row of the table."""

from __future__ import annotations

from itertools import product

import pytest

from models.domain.device_score import DeviceScore, Signature, SignedScores, read_score

WHEN_KEYED, REQUIRED = SignedScores.WHEN_KEYED, SignedScores.REQUIRED


@pytest.mark.parametrize(
    ("signature", "signed", "said"),
    [
        (Signature.NO_KEY, WHEN_KEYED, DeviceScore.UNSIGNED),
        (Signature.NO_KEY, REQUIRED, DeviceScore.NO_KEY),
        (Signature.VALID, WHEN_KEYED, DeviceScore.SIGNED),
        (Signature.VALID, REQUIRED, DeviceScore.SIGNED),
        (Signature.MISSING, WHEN_KEYED, DeviceScore.NOT_SIGNED),
        (Signature.MISSING, REQUIRED, DeviceScore.NOT_SIGNED),
        (Signature.INVALID, WHEN_KEYED, DeviceScore.BAD_SIGNATURE),
        (Signature.INVALID, REQUIRED, DeviceScore.BAD_SIGNATURE),
    ],
)
def test_of_a_family_that_vouches(signature: Signature, signed: SignedScores, said: DeviceScore) -> None:
    assert read_score(sent=True, vouches=True, signature=signature, signed=signed) is said


def test_no_signature_makes_another_family_s_score_count_and_none_is_none() -> None:
    for signature, signed, vouches in product(Signature, SignedScores, (False, True)):
        other = read_score(sent=True, vouches=False, signature=signature, signed=signed)
        assert other is DeviceScore.FAMILY
        assert read_score(sent=False, vouches=vouches, signature=signature, signed=signed) is DeviceScore.NONE


def test_what_is_read_is_signed_or_has_no_key_to_be_signed_with() -> None:
    assert {one for one in DeviceScore if one.read} == {DeviceScore.SIGNED, DeviceScore.UNSIGNED}
