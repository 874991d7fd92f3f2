"""A rollout of software before anybody is asked, and what becomes of a terminal whose host refuses it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from actors.hosts import Delivered, Delivery
from actors.rollout_effects import Start
from models.domain.errors import Refused
from models.domain.ids import RegionId, TerminalId
from models.domain.rollout import Artefact, ArtefactKind, Reason, RolloutPolicy, RolloutState, TargetState
from models.domain.rollout_part import software_artefact
from models.domain.rollout_words import standing
from models.domain.twin import CommandStatus
from models.tables.rollout_sight import CommandAnswer
from runtime.images import Images, Offered
from runtime.plant import Plant
from runtime.postgres import EmbeddedPostgres
from runtime.rollout_artefacts import Given, artefact_of
from runtime.rollout_desk import RolloutDesk, selected_by
from runtime.rollouts import RolloutDriver, _said
from tests.conftest import fresh_database
from tests.integration.rollout_shop import (
    AUTHOR,
    BEGAN,
    CHAIN,
    REGION,
    STORES,
    Clock,
    Region,
    opened,
    plant,
    report,
    small_policy,
)

pytestmark = pytest.mark.integration

NOBODY: Any = None
UNFIT = TerminalId(f"{STORES[0]}-face")


def release(version: str, sha256: str = "a" * 64) -> dict[str, Any]:
    return {"version": version, "url": "http://127.0.0.1/x", "sha256": sha256, "size_bytes": 9}


def software_policy() -> RolloutPolicy:
    return replace(small_policy(), kinds=frozenset({ArtefactKind.SOFTWARE}), mandatory_roles=frozenset())


@pytest.fixture(scope="module")
def url(embedded_postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    """Face terminals are Dragonflies; that of the first store stands alone in its lane."""
    with fresh_database(embedded_postgres, migrated_template) as made:
        with psycopg.connect(made, autocommit=True) as conn:
            plant(conn)
            conn.execute("UPDATE terminal SET profile = 'dragonfly-1' WHERE role = 'face'")
            conn.execute("UPDATE terminal SET lane = 'two' WHERE id = %s", (UNFIT,))
        yield made


@pytest.fixture
async def images(url: str, tmp_path: Path) -> Images:
    """1.0.0 and 2.0.0 of the same software; the second makes an extension of whoever runs it: no keypad, no scanner."""
    kept = Images([Plant(tmp_path, CHAIN, REGION, database_url=url, gateway_url="http://127.0.0.1:9")])
    for number, profile in (("1.0.0", ""), ("2.0.0", "dragonfly-extension")):
        file = tmp_path / number
        file.write_text(number)
        await kept.add(Offered(file, "dragonfly", number, profile), "test")
    return kept


async def test_a_release_is_what_the_image_store_says(images: Images) -> None:
    made = await artefact_of(Given(software="dragonfly 2.0.0", fallback="dragonfly 1.0.0"), NOBODY, images)
    image = await images.find("dragonfly 2.0.0")
    assert json.loads(made.payload) == {
        "version": "dragonfly 2.0.0",
        "url": f"http://127.0.0.1:9/images/{image.sha256}",
        "sha256": image.sha256,
        "size_bytes": 5,
    }
    assert (made.key, made.version, made.intact) == ("software/dragonfly", "dragonfly 2.0.0", True)
    assert json.loads(made.fallback)["version"] == "dragonfly 1.0.0"
    with pytest.raises(Refused) as unknown:
        await artefact_of(Given(software="dragonfly 3.0.0\x00", fallback="dragonfly 1.0.0"), NOBODY, images)
    assert unknown.value.code == "unknown_version"
    assert "dragonfly 2.0.0, dragonfly 1.0.0" in unknown.value.do
    with pytest.raises(Refused) as without:
        await artefact_of(Given(software="dragonfly 2.0.0"), NOBODY, images)
    assert (without.value.code, without.value.do) == ("no_fallback", "--fallback: dragonfly 1.0.0")


async def test_who_cannot_become_it_is_named_before_anybody_is_asked(url: str, images: Images) -> None:
    made = await artefact_of(Given(software="dragonfly 2.0.0", fallback="dragonfly 1.0.0"), NOBODY, images)

    async def refused(artefact: Artefact, *words: str) -> Refused:
        with pytest.raises(Refused) as caught:
            await RolloutDesk(databases).plan(software_policy(), artefact, selected_by(["all", *words]), AUTHOR)
        return caught.value

    async with opened(url) as databases:
        lane = await refused(made, "role=face")
        assert lane.code == "unfit_lane"
        assert UNFIT in lane.message
        assert "has_keypad, has_scanner" in lane.message
        role = await refused(made, f"!terminal={UNFIT}")
        assert (role.code, "6 terminals (s-1-till" in role.message) == ("unfit_role", True)
        other = software_artefact(release("dragonfly 2.0.0"), release("dragonfly 1.0.0"))
        assert (await refused(other)).code == "image_differs"
        # Without the one that cannot, it is planned.
        words = selected_by(["all", "role=face", f"!terminal={UNFIT}"])
        rules = replace(software_policy(), stages=software_policy().stages[1:])
        planned = await RolloutDesk(databases).plan(rules, made, words, AUTHOR)
        assert [len(stage.stores) for stage in planned.rollout.plan.stages] == [5]


class Refusing(Region):
    """Hosts that refuse the new version for one terminal, as they do for a batch with it."""

    async def deliver(self, region: RegionId, batch: Sequence[Delivery]) -> list[Delivered]:
        if any(one.terminal == UNFIT and b'"2.0"' in one.payload for one in batch):
            raise Refused("unfit_lane", "its lane would lose has_scanner", "another image")
        return await super().deliver(region, batch)


async def test_what_a_host_refuses_is_a_failure_that_says_so(url: str) -> None:
    clock = Clock()
    made = software_artefact(release("2.0"), release("1.0", "b" * 64))
    async with opened(url) as databases:
        desk, hosts = RolloutDesk(databases, clock), Refusing(url, clock)
        number = (await desk.plan(software_policy(), made, selected_by(["all"]), AUTHOR)).rollout.id
        await desk.tell(number, Start(AUTHOR))
        driver = RolloutDriver(databases, hosts, clock)  # type: ignore[arg-type]
        for _ in range(6):
            await driver.round()
            report(url)
            clock.on(5)
        rollout = (await desk.show(number)).turn.rollout
        mark = rollout.marks[UNFIT]
        assert (mark.error, mark.error_reason, mark.answer) == (
            TargetState.FAILED,
            Reason.REFUSED_BY_TERMINAL,
            "unfit_lane",
        )
        said = replace(mark, state=TargetState.FAILED, reason=mark.error_reason)
        assert standing(said).en == "failed: the terminal refused (unfit_lane)"
        assert rollout.state is RolloutState.ROLLED_BACK
        assert driver.counts.refused > 0


@pytest.mark.parametrize(
    ("status", "detail", "heard"),
    [
        ("done", "dragonfly 2.0.0", (BEGAN, "", Reason.NONE)),
        ("rejected", "busy", (None, "", Reason.BUSY)),
        ("rejected", "not_fetched", (None, "", Reason.NOT_FETCHED)),
        ("rejected", "nothing_to_activate", (None, "", Reason.NOTHING_TO_ACTIVATE)),
        ("rejected", "other_version", (None, "", Reason.OTHER_VERSION)),
        ("rejected", "fell_back", (None, "fell_back", Reason.NONE)),
        ("failed", "busy", (None, "busy", Reason.NONE)),
        ("failed", "", (None, "failed", Reason.NONE)),
        ("expired", "", (None, "", Reason.NO_ANSWER)),
        ("running", "", (None, "", Reason.NONE)),
    ],
)
def test_each_answer_is_heard(status: str, detail: str, heard: tuple[Any, ...]) -> None:
    assert _said(CommandAnswer(CommandStatus(status), detail, BEGAN)) == heard
