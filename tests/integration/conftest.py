"""One running house for all tests of the whole: started at the first test that asks, stopped after the last."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from models.domain.errors import NeedsOperator
from runtime.photos import Photographs, demo_photographs
from tests.conftest import scratch_data_dir
from tests.integration.house import WHEEL_DIR, House, Note, wait_until


@pytest.fixture(scope="session")
def _house() -> Iterator[House]:
    with scratch_data_dir() as folder:
        house = House(folder)
        try:
            yield house
        finally:
            house.kill()


@pytest.fixture
def house(_house: House) -> House:
    """The running house. A test that broke it leaves a fresh start to the next one."""
    if not _house.running:
        _house.start()
    wait_until(lambda: _house.rows("SELECT 1"), "the database answers")
    return _house


@pytest.fixture(scope="session")
def people(_house: House) -> Photographs:
    """Six people and their photographs, as the demonstration shows them."""
    if not _house.running:
        _house.start()
    if not any(WHEEL_DIR.glob("*.whl")):
        pytest.skip("needs the demonstration's photographs: run scripts/setup.sh dev photos")
    try:
        return demo_photographs(_house.plant.faces_cache, WHEEL_DIR)
    except NeedsOperator as error:
        pytest.skip(f"needs the demonstration's photographs: {error.message}")


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Note:
    """Keep a measured figure: in the junit report, and in the summary of this run."""
    return Note(request)
