"""What can be made to go wrong, and when: by script (the nth call of a method), by seed (so many in a thousand)."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from gateway.providers.simulator.database import one

FAULTS_MAX = 1_000
SCRIPT_BYTES_MAX = 64 * 1024
NOTIFY, BILL = "notify", "bill"
"""Where faults strike that are no methods: a notification on its way, a day's bill."""
_NUMBERS = ("out_request_no", "out_biz_no", "out_trade_no", "out_order_no", "external_agreement_no")


class FaultKind(StrEnum):
    """What can be made to go wrong with a call or a notification."""

    TIMEOUT_BEFORE = "timeout_before"
    """No answer, no effect."""
    TIMEOUT_AFTER = "timeout_after"
    """No answer, but the effect happened."""
    FAIL = "fail"
    """A definite business failure with `sub_code`; a payment's or freeze's number stays refused."""
    PENDING = "pending"
    """Payment, capture and freeze wait for the customer; other methods answer SYSTEM_ERROR."""
    HTTP_500 = "http_500"
    """The effect happened; the answer is a server error."""
    BAD_SIGNATURE = "bad_signature"
    """The effect happened; the answer's (or the notification's) signature is of another text."""
    PROMOTION = "promotion"
    """The provider gives `value` fen of the payment from its own pocket."""
    DISCOUNT = "discount"
    """The merchant's own coupon at the provider gives `value` fen: so much less reaches the account."""
    HOLD_LAPSES = "hold_lapses"
    """The hold that the call is about lapsed just before it."""
    LOST = "lost"
    """This sending of the notification never arrives."""
    DUPLICATE = "duplicate"
    """The notification is sent twice."""
    DELAYED = "delayed"
    """The notification leaves `value` seconds later: it is late, and out of order."""


class BillFault(StrEnum):
    """What can be wrong with a day's bill. `line` or `number` choose the movement."""

    MISSING_LINE = "missing_line"
    EXTRA_LINE = "extra_line"
    """A payment of `fen` that nobody made."""
    WRONG_AMOUNT = "wrong_amount"
    """`fen` is added to the amount."""
    WRONG_FEE = "wrong_fee"
    """`fen` is added to the fee."""
    DUPLICATE = "duplicate"
    OTHER_DATE = "other_date"
    """The movement stands in the next day's bill instead."""


_FOR_NOTICES = frozenset({FaultKind.LOST, FaultKind.DUPLICATE, FaultKind.DELAYED, FaultKind.BAD_SIGNATURE})
_FOR_NOTICES_ONLY = _FOR_NOTICES - {FaultKind.BAD_SIGNATURE}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault that is due for this call."""

    kind: FaultKind
    sub_code: str
    value: int = 0


class _Step(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CallStep(_Step):
    """From the `call`-th call of a method on, `times` calls go wrong. `number` narrows it to one request number."""

    of: str = Field(max_length=64)
    do: FaultKind
    call: int = Field(default=1, ge=1, le=1_000_000)
    times: int = Field(default=1, ge=1, le=10_000)
    number: str = Field(default="", max_length=64)
    sub_code: str = Field(default="ACQ.BUYER_BALANCE_NOT_ENOUGH", min_length=1, max_length=64)
    value: int = Field(default=0, ge=0, le=10**9)

    @model_validator(mode="after")
    def _fits(self) -> CallStep:
        fits = self.do in _FOR_NOTICES if self.of == NOTIFY else self.do not in _FOR_NOTICES_ONLY
        if not fits:
            raise ValueError(f"{self.do} does not happen to {self.of}")
        return self


class BillStep(_Step):
    """Something wrong with the bill of a day."""

    of: str = Field(pattern=f"^{BILL}$")
    day: date
    do: BillFault
    app_id: str = Field(default="", max_length=64)
    number: str = Field(default="", max_length=64)
    line: int = Field(default=0, ge=0, le=10_000_000)
    fen: int = Field(default=100, ge=-(10**9), le=10**9)


class Chance(_Step):
    """So many in a thousand calls of a method go wrong, drawn by the script's seed."""

    of: str = Field(max_length=64)
    do: FaultKind
    per_mille: int = Field(ge=0, le=1000)
    sub_code: str = Field(default="ACQ.BUYER_BALANCE_NOT_ENOUGH", min_length=1, max_length=64)
    value: int = Field(default=0, ge=0, le=10**9)


class Script(_Step):
    """A story of faults. The same script over the same calls goes wrong in the same way."""

    seed: int = 0
    faults: list[Annotated[BillStep | CallStep, Field(union_mode="left_to_right")]] = Field(
        default_factory=list, max_length=FAULTS_MAX
    )
    chances: list[Chance] = Field(default_factory=list, max_length=100)


_SCRIPT = TypeAdapter(Script)


def parse_script(text: str, methods: frozenset[str]) -> Script:
    """A script in YAML or JSON. Raises ValueError that says what is wrong with it."""
    if len(text.encode()) > SCRIPT_BYTES_MAX:
        raise ValueError(f"a script is at most {SCRIPT_BYTES_MAX} bytes")
    try:
        script = _SCRIPT.validate_python(yaml.safe_load(text) or {})
    except yaml.YAMLError as error:
        raise ValueError(f"neither YAML nor JSON: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from error
    known = methods | {NOTIFY, BILL}
    strange = [step.of for step in (*script.faults, *script.chances) if step.of not in known]
    if strange:
        raise ValueError(f"no such method: {strange[0]}; one of {', '.join(sorted(known))}")
    return script


def add(db: sqlite3.Connection, step: CallStep | BillStep) -> bool:
    """Keep one step. False when too many wait already."""
    db.execute("DELETE FROM fault WHERE times_left = 0")
    count = one(db, "SELECT (SELECT count(*) FROM fault) + (SELECT count(*) FROM bill_fault) AS n")
    if count is not None and count["n"] >= FAULTS_MAX:
        return False
    if isinstance(step, BillStep):
        db.execute(
            "INSERT INTO bill_fault (app_id, day, kind, number, line, fen) VALUES (?, ?, ?, ?, ?, ?)",
            (step.app_id, step.day.isoformat(), step.do.value, step.number, step.line, step.fen),
        )
        return True
    db.execute(
        "INSERT INTO fault (method, kind, number, sub_code, times_left, skip, value) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (step.of, step.do.value, step.number, step.sub_code, step.times, step.call - 1, step.value),
    )
    return True


def play(db: sqlite3.Connection, script: Script) -> bool:
    """Begin a script's story, in place of the one before. False when it is too long."""
    clear(db)
    document = json.dumps({"seed": script.seed, "chances": [one.model_dump(mode="json") for one in script.chances]})
    db.execute("INSERT INTO setting (name, value) VALUES ('chances', ?)", (document,))
    return all(add(db, step) for step in script.faults)


def clear(db: sqlite3.Connection) -> None:
    """Forget all faults."""
    db.execute("DELETE FROM fault")
    db.execute("DELETE FROM bill_fault")
    db.execute("DELETE FROM setting WHERE name = 'chances' OR name LIKE 'calls:%'")


def due(db: sqlite3.Connection, method: str, biz: Mapping[str, Any]) -> Fault | None:
    """The fault for this call: the oldest scripted one, counted down, else one drawn by the seed."""
    numbers = [biz[name] for name in _NUMBERS if isinstance(biz.get(name), str)]
    marks = ",".join("?" * len(numbers))
    rows = db.execute(
        f"SELECT * FROM fault WHERE method = ? AND times_left > 0 AND number IN ('', {marks or 'NULL'}) ORDER BY id",
        (method, *numbers),
    ).fetchall()
    struck = None
    for row in rows:
        # Every step counts the calls that it could have struck.
        if row["skip"]:
            db.execute("UPDATE fault SET skip = skip - 1 WHERE id = ?", (row["id"],))
        elif struck is None:
            struck = row
            db.execute("UPDATE fault SET times_left = times_left - 1 WHERE id = ?", (row["id"],))
    if struck is not None:
        return Fault(FaultKind(struck["kind"]), str(struck["sub_code"]), int(struck["value"]))
    return _drawn(db, method)


def _drawn(db: sqlite3.Connection, method: str) -> Fault | None:
    stored = one(db, "SELECT value FROM setting WHERE name = 'chances'")
    document: dict[str, Any] = json.loads(stored["value"]) if stored else {"seed": 0, "chances": []}
    chances = [Chance.model_validate(chance) for chance in document["chances"] if chance["of"] == method]
    if not chances:
        return None
    db.execute(
        "INSERT INTO setting (name, value) VALUES (?, '1') "
        "ON CONFLICT (name) DO UPDATE SET value = CAST(value AS INTEGER) + 1",
        (f"calls:{method}",),
    )
    count = one(db, "SELECT value FROM setting WHERE name = ?", f"calls:{method}")
    assert count is not None
    for nth, chance in enumerate(chances):
        draw = hashlib.sha256(f"{document['seed']}:{method}:{count['value']}:{nth}".encode()).digest()
        if int.from_bytes(draw[:4], "big") % 1000 < chance.per_mille:
            return Fault(chance.do, chance.sub_code, chance.value)
    return None


def bill_faults(db: sqlite3.Connection, app_id: str, day: date) -> list[sqlite3.Row]:
    """What is wrong with the bill of a day, oldest first."""
    return db.execute(
        "SELECT * FROM bill_fault WHERE day = ? AND app_id IN ('', ?) ORDER BY id", (day.isoformat(), app_id)
    ).fetchall()
