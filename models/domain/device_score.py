"""The liveness score that a device sends with a face: whose it must be before it is read.

Who checks a signature hands its verdict in as a value; the rule is a table of values.
"""

from __future__ import annotations

from enum import StrEnum


class SignedScores(StrEnum):
    """Which scores a chain reads, of terminal families that vouch for theirs."""

    WHEN_KEYED = "when_keyed"
    """Where a key is registered with the terminal signed ones alone; elsewhere the family's word is enough."""
    REQUIRED = "required"
    """Signed ones alone, everywhere."""


class Signature(StrEnum):
    """What the door found of a score's signature."""

    NO_KEY = "no_key"
    """The registry has no key of the terminal: nothing could be checked."""
    MISSING = "missing"
    INVALID = "invalid"
    """Of another key, picture, visit, message or terminal, or no signature at all."""
    VALID = "valid"


class DeviceScore(StrEnum):
    """What became of a device's score; kept with the decision."""

    NONE = "none"
    """The device sent none."""
    SIGNED = "signed"
    """Read: signed by a key that is registered with the terminal."""
    UNSIGNED = "unsigned"
    """Read on the family's word: no key is registered, and the chain requires none."""
    FAMILY = "ignored_family"
    """Left out: the family measures no depth."""
    NO_KEY = "ignored_no_key"
    """Left out: the chain requires signatures, and no key is registered."""
    NOT_SIGNED = "ignored_unsigned"
    """Left out: a key is registered, and the score came without a signature."""
    BAD_SIGNATURE = "ignored_bad_signature"
    """Left out: a key is registered, and the signature does not fit."""

    @property
    def read(self) -> bool:
        """The score counts."""
        return self in (DeviceScore.SIGNED, DeviceScore.UNSIGNED)


_KEYED = {
    Signature.VALID: DeviceScore.SIGNED,
    Signature.MISSING: DeviceScore.NOT_SIGNED,
    Signature.INVALID: DeviceScore.BAD_SIGNATURE,
}


def read_score(*, sent: bool, vouches: bool, signature: Signature, signed: SignedScores) -> DeviceScore:
    """Whether a score is read, and why not. `vouches`: the family measures depth beside the picture."""
    if not sent:
        return DeviceScore.NONE
    if not vouches:
        return DeviceScore.FAMILY
    if signature is Signature.NO_KEY:
        return DeviceScore.NO_KEY if signed is SignedScores.REQUIRED else DeviceScore.UNSIGNED
    return _KEYED[signature]
