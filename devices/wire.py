"""The documents of the terminal protocol, version 1, as strict msgspec Structs with bounds.

They exist at the door only: `devices.codec` turns them into the frozen values of models.domain. Unknown fields are
ignored, because fields may be added within version 1. A field that the protocol marks `?` may be absent.
Text has no control characters: a database cannot keep U+0000, and nothing printable needs the rest.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from models.domain.events import Purpose, TenderKind
from models.domain.screen import (
    LeaseGrant,
    Prompt,
    Receipt,
    ReplyError,
    ScreenLine,
    ScreenMember,
    ScreenMembership,
    ScreenOffer,
    ScreenState,
    ScreenVoucher,
    Suggestion,
)
from models.domain.vouchers import VOUCHERS_MAX

VERSION = 1
EVENT_BYTES_MAX = 64 * 1024
FACE_BYTES_MAX = 192 * 1024
TELEMETRY_BYTES_MAX = 4 * 1024
TELEMETRY_LEVELS_MAX = 16
HEALTH_BYTES_MAX = 512
TILL_LINES_MAX = 500
TENDERS_MAX = 8
LEASE_USES_MAX = 99
SALE_BENEFITS_MAX = 16

FEN_MAX = 1_000_000_000
"""Ten million yuan: no line, tender or basket of a shop is above it, and sums of 500 stay far inside 64 bits."""
COUNT_MAX = 2**31 - 1

_PLAIN = r"^[^\x00-\x1f\x7f]*$(?!\n)"
_SCANNED = r"^[^\x00-\x1c\x1e\x1f\x7f]*$(?!\n)"
_NAME = r"^[A-Za-z0-9._-]+$(?!\n)"

_ED25519: dict[str, Any] = {
    "pattern": "^[A-Za-z0-9_-]{86}$",
    "description": "An Ed25519 signature (base64url, no padding) over the score and what it is of: terminal protocol, "
    "Signed liveness. One that does not fit leaves the score out; the face is taken all the same.",
}
Uuid = Annotated[str, Meta(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$(?!\n)")]
Ref = Annotated[str, Meta(min_length=1, max_length=64, pattern=_PLAIN)]
"""An id or number that another party made: kept and given back, never interpreted."""
Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=_NAME)]
Code = Annotated[str, Meta(min_length=1, max_length=128, pattern=_PLAIN)]
Scanned = Annotated[str, Meta(min_length=1, max_length=128, pattern=_SCANNED)]
"""As `Code`, with the separator of GS1 symbols."""
Text = Annotated[str, Meta(max_length=256, pattern=_PLAIN)]
Token = Annotated[str, Meta(min_length=1, max_length=512, pattern=_PLAIN)]
Fen = Annotated[int, Meta(ge=0, le=FEN_MAX)]
Rising = Annotated[int, Meta(ge=1, le=COUNT_MAX)]
Count = Annotated[int, Meta(ge=0, le=COUNT_MAX)]
Quantity = Annotated[int, Meta(ge=1, le=9999)]
Line = Annotated[int, Meta(ge=1, le=9999)]
Instant = Annotated[datetime, Meta(tz=True)]


class Envelope(Struct, frozen=True):
    """`up/event`. `seq` rises by one per boot over events and faces together, from 1."""

    v: Literal[1]
    id: Uuid
    boot: Uuid
    seq: Rising
    ts: Instant
    type: Annotated[str, Meta(max_length=32)]
    body: Raw
    mono_ms: Annotated[int, Meta(ge=0)] | None = None
    session: Ref | None = None
    clerk: Ref | None = None
    replay: bool = False


class EnvelopeHead(Struct, frozen=True):
    """As much of a refused envelope as it takes to say which message was refused."""

    v: Any = None
    id: Any = None


class SessionOpenBody(Struct, frozen=True):
    """`session.open`."""

    till_txn: Ref | None = None


class DigitsBody(Struct, frozen=True):
    """`digits`: last four digits of the phone."""

    tail: Annotated[str, Meta(pattern=r"^[0-9]{4}$(?!\n)")]


class ConsentBody(Struct, frozen=True):
    """`consent`: one purpose each, `text` is the version of the text that was shown."""

    purpose: Purpose
    text: Ref
    granted: bool


class AuthBody(Struct, frozen=True):
    """A token of the payment provider."""

    provider: Name
    token: Token


class EnrolBody(Struct, frozen=True):
    """`enrol`."""

    plan: Name
    guarantee: Literal["sesame_credit", "huabei_hold", "balance_hold", "merchant_trust", "cash_deposit", "pay_score"]
    phone: Annotated[str, Meta(pattern=r"^\+?[0-9]{4,15}$(?!\n)")] | None = None
    auth: AuthBody | None = None


class ScanBody(Struct, frozen=True):
    """`scan`: a barcode. FNC1 of a GS1 symbol is ASCII 29."""

    code: Scanned
    quantity: Quantity


class RemoveBody(Struct, frozen=True):
    """`remove`: a line of our basket."""

    line: Line


class TillLineBody(Struct, frozen=True):
    """One line of a till's basket. Weighed goods: quantity 1, weight_g, unit_fen = the line's price."""

    line: Line
    code: Code
    name: Text
    quantity: Quantity
    unit_fen: Fen
    net_fen: Fen
    weight_g: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    flags: Annotated[tuple[Name, ...], Meta(max_length=8)] = ()


class BasketBody(Struct, frozen=True):
    """`basket`: the till's whole basket."""

    till_txn: Ref
    rev: Rising
    lines: Annotated[tuple[TillLineBody, ...], Meta(max_length=TILL_LINES_MAX)]
    total_fen: Fen


class TenderBody(Struct, frozen=True):
    """One part of a payment."""

    kind: TenderKind
    fen: Fen
    auth: AuthBody | None = None
    tendered_fen: Fen | None = None


class ConfirmBody(Struct, frozen=True):
    """`confirm`: pay exactly what screen revision `rev` showed."""

    rev: Rising
    tenders: Annotated[tuple[TenderBody, ...], Meta(max_length=TENDERS_MAX)]
    collect: Literal["till"] | None = None


class PaidBody(Struct, frozen=True):
    """`paid`: the till collected by itself. rev 0: it never saw a screen."""

    till_txn: Ref
    rev: Count
    tenders: Annotated[tuple[TenderBody, ...], Meta(max_length=TENDERS_MAX)]


class CancelBody(Struct, frozen=True):
    """`cancel`: an empty object."""


class VoidBody(Struct, frozen=True):
    """`void`: a whole sale of this shift."""

    receipt: Ref


class ComplaintBody(Struct, frozen=True):
    """`complaint`."""

    about: Literal["face", "price", "other"]


class IdentifyBody(Struct, frozen=True):
    """`identify`: a phone number, a card's number or the member's code."""

    by: Literal["phone", "card", "code"]
    value: Annotated[str, Meta(min_length=1, max_length=128, pattern=_PLAIN)]


class AmountBody(Struct, frozen=True):
    """`amount`: what is to be paid, where nobody sends lines."""

    till_txn: Ref
    fen: Annotated[int, Meta(ge=1, le=FEN_MAX)]


class VoucherBody(Struct, frozen=True):
    """`voucher`: its code."""

    code: Code


class ClaimBody(Struct, frozen=True):
    """`claim`: an offer's id."""

    offer: Ref


class AgeCheckBody(Struct, frozen=True):
    """`age_check`: what the clerk saw."""

    result: Literal["ok", "refused"]


class LeaseBody(Struct, frozen=True):
    """`lease`: so many uses of one benefit, before going offline."""

    benefit: Name
    uses: Annotated[int, Meta(ge=1, le=LEASE_USES_MAX)]


class LeaseEndBody(Struct, frozen=True):
    """`lease.end`: gives back what was not used."""

    lease: Ref


class ReturnLineBody(Struct, frozen=True):
    """So many pieces of a line of the receipt."""

    line: Line
    quantity: Quantity


class ReturnBody(Struct, frozen=True):
    """`return`: goods of one receipt come back."""

    receipt: Ref
    lines: Annotated[tuple[ReturnLineBody, ...], Meta(min_length=1, max_length=TILL_LINES_MAX)]
    reason: Text


class SaleBenefitBody(Struct, frozen=True):
    """A benefit that was given offline; `lease` null: without one."""

    lease: Ref | None
    membership: Ref
    benefit: Name
    fen: Fen


class SaleVoucherBody(Struct, frozen=True):
    """A voucher that was taken offline, by its code."""

    code: Code
    fen: Fen


class SaleBody(Struct, frozen=True):
    """`sale`: made offline. total_fen is the sum of net_fen; less benefits and vouchers it is the tenders."""

    lines: Annotated[tuple[TillLineBody, ...], Meta(max_length=TILL_LINES_MAX)]
    tenders: Annotated[tuple[TenderBody, ...], Meta(max_length=TENDERS_MAX)]
    total_fen: Fen
    benefits: Annotated[tuple[SaleBenefitBody, ...], Meta(max_length=SALE_BENEFITS_MAX)] = ()
    till_txn: Ref | None = None
    vouchers: Annotated[tuple[SaleVoucherBody, ...], Meta(max_length=VOUCHERS_MAX)] = ()


class FaceProperties(Struct, frozen=True):
    """The user properties of `up/face`; all are strings on the wire, `session` is absent when null."""

    id: Uuid
    boot: Uuid
    seq: Rising
    kind: Literal["frame", "crop"]
    session: Ref | None = None
    liveness: Annotated[float, Meta(ge=0, le=1)] | None = None
    liveness_sig: Annotated[str, Meta(extra_json_schema=_ED25519)] | None = None


class PresenceDocument(Struct, frozen=True):
    """`up/presence`: a birth when `online`, else the Will of connection `conn`."""

    v: Literal[1]
    online: bool
    boot: Uuid
    conn: Uuid
    software: Text | None = None
    profile: Name | None = None
    ts: Instant | None = None


class ReportedDocument(Struct, frozen=True):
    """`up/reported`: what the terminal runs. `health` is free-form, kept up to 512 bytes."""

    v: Literal[1]
    applied_gen: Count
    config_hash: Annotated[str, Meta(max_length=128, pattern=_PLAIN)]
    software: Text
    boot: Uuid
    health: dict[str, Any] = {}


class ResponseDocument(Struct, frozen=True):
    """`up/response`: the answer to a command, under the command's correlation data."""

    v: Literal[1]
    status: Literal["accepted", "running", "done", "failed", "rejected"]
    detail: Annotated[str, Meta(max_length=1024)] = ""


class ReplyDocument(Struct, frozen=True, omit_defaults=True):
    """`down/reply`: `id` is null only for bytes that could not be decoded; absent fields do not apply."""

    v: int
    id: str | None
    ok: bool
    pending: bool = False
    session: str | UnsetType = UNSET
    error: ReplyError | UnsetType = UNSET
    lease: LeaseGrant | UnsetType = UNSET


class PaidDocument(Struct, frozen=True):
    """One tender on the screen."""

    kind: str
    fen: int
    payer_fen: int
    tendered_fen: int | UnsetType = UNSET
    change_fen: int | UnsetType = UNSET


class ScreenDocument(Struct, frozen=True):
    """`down/screen`: the whole document; `paid` is absent until money was taken."""

    v: int
    session: str
    rev: int
    basket_rev: int
    state: ScreenState
    member: ScreenMember | None
    lines: tuple[ScreenLine, ...]
    gross_fen: int
    discount_fen: int
    due_fen: int
    cash_due_fen: int
    paid: tuple[PaidDocument, ...] | UnsetType
    membership: ScreenMembership | None
    offers: tuple[ScreenOffer, ...]
    suggestions: tuple[Suggestion, ...]
    prompt: Prompt | None
    actions: tuple[str, ...]
    receipt: Receipt | None
    vouchers: tuple[ScreenVoucher, ...]


class SoftwareRelease(Struct, frozen=True):
    """A software version that a terminal should run, and how to check what it fetched."""

    version: str
    url: str
    sha256: str
    size: int


class DesiredDocument(Struct, frozen=True):
    """`down/desired`, retained: the whole document; a terminal ignores gen <= applied."""

    v: int
    gen: int
    config: dict[str, Any]
    software: SoftwareRelease | None = None


class CommandDocument(Struct, frozen=True):
    """`down/command`: never retained, always with an expiry."""

    v: int
    id: str
    verb: str
    args: dict[str, str | int]
