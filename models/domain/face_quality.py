"""When a face is good enough to be judged: the gates, the reasons, and what the clerk says to the customer.

Figures: production gates are those of the accuracy report (docs: faces, Quality gates). A face that fails one
is never "unknown"; the customer is asked to look again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

JPEG_BYTES_MAX = 192 * 1024
"""Wire bound of one face (docs: terminal protocol, up/face)."""

JPEG_PIXELS_MAX = 4_194_304
"""Bound on width x height, read from the header before decoding: 192 KiB can unfold to gigabytes."""


class FaceKind(StrEnum):
    """What the terminal sent: the whole camera frame, or the aligned 112 x 112 crop."""

    FRAME = "frame"
    CROP = "crop"


class LookPurpose(StrEnum):
    """What the face is for; enrolment asks more of it."""

    PROBE = "probe"
    ENROL = "enrol"


class LookReason(StrEnum):
    """Why a face cannot be judged. Stable codes."""

    NOT_JPEG = "not_jpeg"
    CORRUPT_JPEG = "corrupt_jpeg"
    TOO_LARGE = "too_large"
    UNSUPPORTED_JPEG = "unsupported_jpeg"
    NO_FACE = "no_face"
    SEVERAL_FACES = "several_faces"
    TOO_DARK = "too_dark"
    TOO_BRIGHT = "too_bright"
    COME_CLOSER = "come_closer"
    LOOK_STRAIGHT = "look_straight"
    BLURRED = "blurred"
    UNCLEAR = "unclear"
    MASK = "mask"
    SUNGLASSES = "sunglasses"
    FRAME_NEEDED = "frame_needed"


PROMPTS: dict[LookReason, str] = {
    LookReason.NOT_JPEG: "look_again",
    LookReason.CORRUPT_JPEG: "look_again",
    LookReason.TOO_LARGE: "look_again",
    LookReason.UNSUPPORTED_JPEG: "look_again",
    LookReason.NO_FACE: "come_closer",
    LookReason.SEVERAL_FACES: "several_faces",
    LookReason.TOO_DARK: "more_light",
    LookReason.TOO_BRIGHT: "less_light",
    LookReason.COME_CLOSER: "come_closer",
    LookReason.LOOK_STRAIGHT: "look_straight",
    LookReason.BLURRED: "hold_still",
    LookReason.UNCLEAR: "look_straight",
    LookReason.MASK: "take_off_mask",
    LookReason.SUNGLASSES: "take_off_glasses",
    LookReason.FRAME_NEEDED: "look_again",
}
"""The screen's prompt for each reason. `look_again`: the image never was one; nothing was seen."""

IMAGE_FAULTS = frozenset(
    {
        LookReason.NOT_JPEG,
        LookReason.CORRUPT_JPEG,
        LookReason.TOO_LARGE,
        LookReason.UNSUPPORTED_JPEG,
        LookReason.FRAME_NEEDED,
    }
)
"""Faults of the sender, not of the customer."""

_SENTENCES: dict[LookReason, tuple[str, str]] = {
    LookReason.NOT_JPEG: ("设备发来的不是 JPEG 图片，请再拍一次。", "The terminal did not send a JPEG. Take it again."),
    LookReason.CORRUPT_JPEG: ("图片损坏，请再拍一次。", "The image arrived damaged. Take it again."),
    LookReason.TOO_LARGE: ("图片过大，请检查设备的拍照设置。", "The image is too large. Check the camera's settings."),
    LookReason.UNSUPPORTED_JPEG: (
        "这种 JPEG 无法使用，请把设备设为普通彩色 JPEG。",
        "This kind of JPEG is not taken. Set the camera to plain colour JPEG.",
    ),
    LookReason.NO_FACE: ("没有看到人脸，请顾客正对摄像头。", "No face in sight. Ask the customer to face the camera."),
    LookReason.SEVERAL_FACES: ("画面里有几个人，请只留一位。", "Several people are in view. Only one, please."),
    LookReason.TOO_DARK: ("光线太暗，请打开补光灯。", "It is too dark. Turn on the light."),
    LookReason.TOO_BRIGHT: ("光线太强，请避开逆光。", "It is too bright. Turn away from the light."),
    LookReason.COME_CLOSER: ("离得太远，请顾客靠近一些。", "Too far away. Ask the customer to come closer."),
    LookReason.LOOK_STRAIGHT: ("请顾客抬头正视摄像头。", "Ask the customer to look straight at the camera."),
    LookReason.BLURRED: ("图像模糊，请顾客站稳片刻。", "The image is blurred. Ask the customer to hold still."),
    LookReason.UNCLEAR: ("人脸看不清，请正对摄像头。", "The face is hard to see. Ask to face the camera."),
    LookReason.MASK: ("请顾客摘下口罩；也可以用手机号。", "Ask to take off the mask; a phone number will do as well."),
    LookReason.SUNGLASSES: ("请顾客摘下墨镜。", "Ask the customer to take off the sunglasses."),
    LookReason.FRAME_NEEDED: ("登记需要整幅画面，请重新拍照。", "Enrolment needs the whole frame. Take it again."),
}


def sentence(reason: LookReason, language: str) -> str:
    """What the clerk reads or says, in `zh` or `en` (any other language: English)."""
    chinese, english = _SENTENCES[reason]
    return chinese if language.lower().startswith("zh") else english


@dataclass(frozen=True, slots=True)
class QualityReport:
    """What was measured on one face.

    `eye_distance_px` is in pixels of the original image, `sharpness` the Laplacian's variance on the aligned
    112 x 112 crop, `roll_deg` the tilt of the eye line, `nose_offset` the nose's distance from the middle of
    the eyes along their line, in eye distances, `luminance` the crop's mean, 0 to 255, before any enhancement.
    """

    faces: int
    score: float
    eye_distance_px: float
    sharpness: float
    roll_deg: float
    nose_offset: float
    luminance: float
    enhanced: bool = False
    mouth_cover: float = 0.0
    """How much speaks for a mask, in standard deviations of uncovered faces (models.faces.quality.mouth_cover)."""
    eye_light: float = 1.0
    """How light the darker-free part of the eye regions is, against forehead and cheeks; sunglasses make it small."""


@dataclass(frozen=True, slots=True)
class QualityGates:
    """Bounds that one face must keep. `nose_offset_max` None: a probe may look aside."""

    score_min: float
    eye_distance_px_min: float
    sharpness_min: float
    roll_deg_max: float
    nose_offset_max: float | None
    luminance_min: float
    luminance_max: float
    nearest_ratio_min: float | None
    """Several faces: the nearest counts if its eyes are this much farther apart than the next; None: never."""
    may_hide: frozenset[LookReason] = frozenset()
    """What a face may seem to wear (see `covered`) and pass."""


@dataclass(frozen=True, slots=True)
class QualityPolicy:
    """Gates by purpose, and how well enrolment shots must agree. `name` is kept with each template."""

    name: str
    probe: QualityGates
    enrol: QualityGates
    shots: int = 3
    agreement_min: float = 0.60
    """Lowest cosine between any two shots of one enrolment."""

    def gates(self, purpose: LookPurpose) -> QualityGates:
        """The gates of this purpose."""
        return self.enrol if purpose is LookPurpose.ENROL else self.probe

    @property
    def mask_asked(self) -> QualityPolicy:
        """The same for an enrolment whose customer was asked to take off a mask: what still measures as one passes.

        Some bare faces do. They could never enrol otherwise.
        """
        return replace(self, enrol=replace(self.enrol, may_hide=self.enrol.may_hide | {LookReason.MASK}))


MOUTH_COVER_MAX = 3.9
EYE_LIGHT_MIN = 0.45
"""Measured on 100 photographs of ten people, with masks of ten fabrics and dark glasses drawn on (docs: faces)."""

_PROBE = QualityGates(
    score_min=0.7,
    eye_distance_px_min=20,
    sharpness_min=25,
    roll_deg_max=20,
    nose_offset_max=None,
    luminance_min=8,
    luminance_max=235,
    nearest_ratio_min=1.5,
    may_hide=frozenset({LookReason.MASK, LookReason.SUNGLASSES}),
)
_ENROL = QualityGates(
    score_min=0.8,
    eye_distance_px_min=40,
    sharpness_min=80,
    roll_deg_max=12,
    nose_offset_max=0.25,
    luminance_min=50,
    luminance_max=220,
    nearest_ratio_min=None,
)

PRODUCTION = QualityPolicy("production", _PROBE, _ENROL)

DEMO = QualityPolicy(
    "demo",
    _PROBE,
    QualityGates(
        score_min=0.7,
        eye_distance_px_min=24,
        sharpness_min=25,
        roll_deg_max=30,
        nose_offset_max=None,
        luminance_min=30,
        luminance_max=235,
        nearest_ratio_min=None,
    ),
)
"""For the demonstration's one photograph per person, of which half look aside; never for a real store."""

POLICIES = {policy.name: policy for policy in (PRODUCTION, DEMO)}


def judge(report: QualityReport, gates: QualityGates) -> LookReason | None:
    """The first gate that the face fails, in the order in which a customer can help; None when it is good."""
    if report.eye_distance_px < gates.eye_distance_px_min:
        return LookReason.COME_CLOSER
    if report.luminance < gates.luminance_min:
        return LookReason.TOO_DARK
    if report.luminance > gates.luminance_max:
        return LookReason.TOO_BRIGHT
    if report.score < gates.score_min:
        return LookReason.UNCLEAR
    if abs(report.roll_deg) > gates.roll_deg_max:
        return LookReason.LOOK_STRAIGHT
    if gates.nose_offset_max is not None and report.nose_offset > gates.nose_offset_max:
        return LookReason.LOOK_STRAIGHT
    if report.sharpness < gates.sharpness_min:
        return LookReason.BLURRED
    hidden = covered(report)
    return None if hidden in gates.may_hide else hidden


def covered(report: QualityReport) -> LookReason | None:
    """What seems to hide a part of the face. A face that matches nobody and is covered is no stranger yet."""
    if report.eye_light < EYE_LIGHT_MIN:
        return LookReason.SUNGLASSES
    return LookReason.MASK if report.mouth_cover > MOUTH_COVER_MAX else None
