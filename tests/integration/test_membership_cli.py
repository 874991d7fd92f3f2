"""`storeops membership` against a real database, found by its data folder."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from models.domain.errors import Refused
from models.domain.ids import MembershipId
from runtime.membership_cli import membership_app
from runtime.plant import Plant, write_plants
from tests.integration.money_shop import CHAIN, REGION, RunningSimulator, open_shop, running_simulator


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    with running_simulator(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture
def membership(migrated_database_url: str, simulator: RunningSimulator, tmp_path: Path) -> MembershipId:
    """Active, with one coupon of 8.00 used, in the house of `tmp_path`."""

    async def enrol() -> MembershipId:
        async with open_shop(migrated_database_url, simulator) as shop:
            shop.clock.now = datetime.now(UTC)
            membership = await shop.member()
            await shop.use_coupon(membership)
            return membership

    (tmp_path / "secrets").mkdir()
    write_plants(tmp_path / "secrets", [Plant(tmp_path, CHAIN, REGION, database_url=migrated_database_url)])
    return asyncio.run(enrol())


def run(data: Path, *words: str, answer: str = "") -> str:
    done = CliRunner().invoke(membership_app, [*words, "--data", str(data)], input=answer)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def run_json(data: Path, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(data, *words, "--json"))
    return found


def test_a_cancel_says_first_what_it_does_asks_and_is_done_once(
    migrated_database_url: str, membership: MembershipId, tmp_path: Path
) -> None:
    told = run_json(tmp_path, "cancel", membership, "--by", "merchant", "--dry")
    assert (told["done"], told["told"]["charge_fen"], told["told"]["given_up_fen"]) == (False, 0, 800)
    assert "given up, borne by chain" in run(tmp_path, "cancel", membership, "--by", "merchant", "--dry")
    assert "减免 8.00 元" in run(tmp_path, "cancel", membership, "--by", "merchant", answer="n\n")
    assert run_json(tmp_path, "show", membership)["state"] == "ACTIVE", "nothing was done so far"
    with pytest.raises(Refused) as unasked:
        run(tmp_path, "cancel", membership, "--by", "merchant", "--json")
    assert unasked.value.code == "confirm"
    words = ("cancel", membership, "--by", "merchant", "--yes", "--number", "c-1")
    first, again = run_json(tmp_path, *words), run_json(tmp_path, *words)
    assert first["done"]
    assert first == again
    shown = run_json(tmp_path, "show", membership)
    assert (shown["state"], shown["given_up_fen"], shown["fee_eff_fen"]) == ("EXPIRED", 800, 0)
    assert [(one["number"], one["verb"], one["state"]) for one in shown["requests"]] == [("cli:c-1", "cancel", "done")]
    with psycopg.connect(migrated_database_url) as conn:
        noted = conn.execute(
            "SELECT sum(amount_fen)::bigint FROM entry WHERE account = 'given_up:chain' AND book = 'pending'"
        ).fetchone()
    assert noted == (800,)


def test_suspend_resume_and_renew(membership: MembershipId, tmp_path: Path) -> None:
    assert run(tmp_path, "suspend", membership, answer="y\n").endswith(f"{membership}: done\n")
    assert run_json(tmp_path, "show", membership)["state"] == "SUSPENDED"
    run_json(tmp_path, "resume", membership, "--yes")
    told = run_json(tmp_path, "renew", membership, "--yes")["told"]
    assert (told["renews"], told["new_hold_fen"]) == (True, 1000)
    assert "renews           True" in run(tmp_path, "show", membership)
    assert run_json(tmp_path, "renew", membership, "--off", "--yes")["told"]["renews"] is False
    with pytest.raises(Refused) as refused:
        run(tmp_path, "resume", membership, "--yes")
    assert refused.value.code == "resume_refused"
    with pytest.raises(Refused) as unknown:
        run(tmp_path, "show", "nobody")
    assert unknown.value.code == "unknown_membership"
