"""Faults by script and by seed: the same story goes wrong in the same way."""

from __future__ import annotations

import sqlite3
import tempfile
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.providers.alipay import AlipayProvider
from gateway.providers.port import Scene
from gateway.providers.simulator import SimulatorAdmin, faults
from gateway.providers.simulator.admin import SimulatorError
from gateway.providers.simulator.database import Database
from gateway.providers.simulator.protocol import METHODS
from models.domain.payments import Answer, Failed, FailReason, HoldResult, PayResult, Pending, Succeeded, Unknown

PAY = "alipay.trade.pay"
SCRIPT = """
faults:
  - {of: alipay.trade.pay, call: 2, do: fail, sub_code: ACQ.BUYER_BALANCE_NOT_ENOUGH}
  - {of: alipay.trade.pay, call: 3, do: promotion, value: 50}
  - {of: alipay.trade.pay, call: 4, do: pending}
  - {of: alipay.trade.pay, call: 5, do: http_500}
"""


async def pay(provider: AlipayProvider, admin: SimulatorAdmin) -> Answer[PayResult]:
    code = await admin.payment_code("lin")
    return await provider.pay(
        number=f"O-{uuid.uuid4()}", amount_fen=800, subject="a", auth_code=code, scene=Scene.PAYMENT_CODE
    )


async def test_the_nth_call_goes_wrong_as_written(provider: AlipayProvider, admin: SimulatorAdmin) -> None:
    assert await admin.play(SCRIPT) == {"ok": True, "faults": 4, "chances": 0}
    before = (await admin.create_user("lin"))["balance_fen"]
    answers = [await pay(provider, admin) for _ in range(6)]
    plain, refused, promoted, waiting, broken, last = answers
    assert isinstance(plain, Succeeded)
    assert isinstance(refused, Failed)
    assert isinstance(promoted, Succeeded)
    assert (promoted.result.payer_fen, promoted.result.receipt_fen, promoted.result.total_fen) == (750, 800, 800)
    assert [(part.who, part.fen) for part in promoted.result.funding] == [("payer", 750), ("provider", 50)]
    assert isinstance(waiting, Pending)
    assert broken == Unknown("http_status:500")
    assert isinstance(last, Succeeded)
    assert (await admin.user("lin"))["balance_fen"] == before - 4 * 800 + 50


async def test_a_hold_lapses_before_its_capture(provider: AlipayProvider, admin: SimulatorAdmin) -> None:
    held: Answer[HoldResult] = await provider.freeze(
        number=f"F-{uuid.uuid4()}",
        amount_fen=1000,
        subject="m",
        auth_code=await admin.face_token("zhou"),
        scene=Scene.FACE,
    )
    assert isinstance(held, Succeeded)
    await admin.play("faults: [{of: alipay.trade.pay, do: hold_lapses}]")
    answer = await provider.capture(
        number=f"S-{uuid.uuid4()}", hold_no=held.result.hold_no, amount_fen=800, subject="s"
    )
    assert isinstance(answer, Failed)
    assert answer.reason is FailReason.HOLD_GONE
    user = await admin.user("zhou")
    assert (user["huabei_held_fen"], user["huabei_used_fen"]) == (0, 0)


async def test_a_hold_lives_as_long_as_the_provider_says(provider: AlipayProvider, admin: SimulatorAdmin) -> None:
    await admin.set("hold_life_days", 1)
    code = await admin.face_token("chen")
    held = await provider.freeze(
        number=f"F-{uuid.uuid4()}", amount_fen=1000, subject="m", auth_code=code, scene=Scene.FACE
    )
    await admin.set("hold_life_days", 365)
    assert isinstance(held, Succeeded)
    await admin.advance(86_401)
    assert (await admin.user("chen"))["huabei_held_fen"] == 0


async def test_the_clock_goes_up_to_an_instant_and_never_back(admin: SimulatorAdmin) -> None:
    now = await admin.advance_to(datetime(2020, 1, 1, tzinfo=UTC))
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=2)
    assert timedelta(0) <= await admin.advance_to(midnight) - midnight < timedelta(seconds=2)
    assert await admin.advance_to(now) >= midnight


@pytest.mark.parametrize(
    "script",
    [
        "faults: 1",
        "faults: [{of: nothing, do: fail}]",
        "faults: [{of: alipay.trade.pay, do: explode}]",
        "faults: [{of: alipay.trade.pay, do: lost}]",
        "faults: [{of: notify, do: fail}]",
        "faults: [{of: bill, do: missing_line}]",
        "faults: [{of: bill, day: yesterday, do: missing_line}]",
        "chances: [{of: alipay.trade.pay, do: fail, per_mille: 1001}]",
        "surprise: 1",
        "[",
        "#" * (faults.SCRIPT_BYTES_MAX + 1),
    ],
)
def test_a_script_that_makes_no_sense_is_refused(script: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        faults.parse_script(script, frozenset(METHODS))


async def test_a_refused_script_says_where(admin: SimulatorAdmin) -> None:
    with pytest.raises(SimulatorError, match="script_invalid"):
        await admin.play("faults: [{of: alipay.trade.pay, do: explode}]")


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder))
        yield database.connection
        database.close()


def drawn(db: sqlite3.Connection, seed: int) -> list[str]:
    script = f"""{{"seed": {seed}, "chances": [
        {{"of": "{PAY}", "do": "fail", "per_mille": 100}}, {{"of": "{PAY}", "do": "pending", "per_mille": 300}}]}}"""
    faults.play(db, faults.parse_script(script, frozenset(METHODS)))
    found = (faults.due(db, PAY, {}) for _ in range(1000))
    return ["" if fault is None else fault.kind.value for fault in found]


def test_a_seed_draws_the_same_story_and_another_one_another(db: sqlite3.Connection) -> None:
    story = drawn(db, 7)
    assert drawn(db, 7) == story
    assert drawn(db, 8) != story
    assert 60 < story.count("fail") < 140
    assert 200 < story.count("pending") < 340
    assert faults.due(db, "alipay.trade.query", {}) is None


def test_an_older_file_gets_the_columns_that_it_lacks(tmp_path: Path) -> None:
    first = Database(tmp_path)
    first.connection.execute("ALTER TABLE fault DROP COLUMN skip")
    first.connection.execute("ALTER TABLE refund DROP COLUMN receipt_fen")
    first.close()
    again = Database(tmp_path)
    assert {"skip", "value"} <= {row["name"] for row in again.connection.execute("PRAGMA table_info(fault)")}
    again.close()
