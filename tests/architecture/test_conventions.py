"""Conventions are tests. Each rule is shown an offence first: a rule that cannot fail guards nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture import rules
from tests.architecture.rules import PACKAGES, ROOT, Rule, offences, python_files, text_files, text_of

THIS_FOLDER = Path(__file__).resolve().parent
MONEY_FILES = [path for path in python_files("models/domain") if path.name not in rules.NO_MONEY]
PURE = python_files("actors", "models/domain")
SOURCE = python_files(*PACKAGES)
TESTS = [path for path in python_files("tests") if path.parent != THIS_FOLDER]
# The one place that decorates actors.
HOSTING = {"runtime/hosting.py", "runtime/face_service.py"}


@pytest.mark.parametrize(
    ("rule", "offence"),
    [
        (rules.sleeps, "import time\ntime.sleep(1)"),
        (rules.sleeps, "from time import sleep"),
        (rules.sleeps, "async def f():\n    await asyncio.sleep(0.5)"),
        (rules.impurities, "def f():\n    return datetime.now(UTC)"),
        (rules.impurities, "x = time.time()"),
        (rules.impurities, "import random"),
        (rules.impurities, "from secrets import token_bytes"),
        (rules.impurities, "async def f(x):\n    await x"),
        (rules.floats, "fee_fen = 10.0"),
        (rules.floats, "def f(fee: float) -> int: ..."),
        (rules.floats, "share = total / 2"),
        (rules.class_names, "class MemberModel: ..."),
        (rules.class_names, "class Member(SQLModel, table=True): ..."),
        (rules.unfinished, "# TODO: later"),
        (rules.unfinished, "raise NotImplementedError"),
        (rules.unfinished, "import x  # noqa"),
        (rules.unfinished, "x = y  # type: ignore"),
        (rules.too_long, "\n" * 501),
        (rules.foreign_places, "see /root/notes"),
        (rules.foreign_places, "made by ChatGPT"),
        (rules.index_hosts, "--index-url https://example.org/simple"),
        (rules.index_hosts, "x @ file:///wheels/x.whl"),
        (rules.unhashed, "ray==2.60.0"),
        (rules.unhashed, "ray>=2 --hash=sha256:00"),
        (rules.real_parts, "import ray"),
        (rules.real_parts, "from psycopg import sql"),
        (rules.ray_decorators, "@ray.remote\nclass A: ..."),
    ],
)
def test_each_rule_catches_its_offence(rule: Rule, offence: str) -> None:
    assert list(rule(offence))


@pytest.mark.parametrize(
    ("rule", "innocent"),
    [
        (rules.sleeps, "async def f():\n    await asyncio.sleep(0.01)"),
        (rules.impurities, "from datetime import UTC, datetime\nx = datetime(2026, 1, 1, tzinfo=UTC)"),
        (rules.floats, "class Face:\n    liveness: float | None = None"),
        (rules.floats, "share_fen, rest_fen = divmod(total_fen, 2)\nhalf = total_fen // 2"),
        (rules.class_names, "class MemberRow(SQLModel, table=True): ..."),
        (rules.unfinished, "x = y  # type: ignore[attr-defined]\nimport z  # noqa: F401"),
        (rules.foreign_places, "see docs/work/notes and /var/lib/storeops"),
        (rules.unhashed, "# why\nray==2.60.0 \\\n    --hash=sha256:00\n    # via x"),
    ],
)
def test_no_rule_cries_wolf(rule: Rule, innocent: str) -> None:
    assert list(rule(innocent)) == []


def test_tests_wait_for_conditions_never_for_time() -> None:
    assert offences(TESTS, rules.sleeps) == []


def test_turns_and_domain_are_functions_of_their_arguments() -> None:
    assert offences(PURE, rules.impurities) == []


def test_money_is_never_a_float() -> None:
    assert len(MONEY_FILES) >= 5
    assert offences(MONEY_FILES, rules.floats) == []


def test_names_of_classes() -> None:
    assert offences(SOURCE, rules.class_names) == []


def test_nothing_is_unfinished_or_excused_without_a_code() -> None:
    assert offences([*SOURCE, *TESTS], rules.unfinished) == []


def test_files_fit_a_head() -> None:
    # A migration is written once and never worked on again; its length follows from the tables.
    worked_on = [path for path in [*SOURCE, *python_files("tests")] if path.parent.name != "versions"]
    assert offences(worked_on, rules.too_long) == []


def test_the_repository_speaks_of_the_project_alone() -> None:
    files = [path for path in text_files() if path.parent != THIS_FOLDER]
    assert len(files) > 100
    assert offences(files, rules.foreign_places) == []


def test_locks_carry_hashes_and_no_host() -> None:
    locks = sorted((ROOT / "requirements").glob("*.txt"))
    assert {path.name for path in locks} == {"lock.txt", "lock-dev.txt", "photos.txt"}
    assert offences(locks, rules.index_hosts) == []
    assert offences(locks, rules.unhashed) == []
    assert not (ROOT / "uv.lock").exists(), "it names an index host"


def test_the_development_lock_holds_the_runtime_lock() -> None:
    def versions(name: str) -> set[str]:
        text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
        return set(re.findall(r"^[a-z0-9.\-\[\]]+==\S+", text, re.MULTILINE))

    assert versions("lock.txt") - versions("lock-dev.txt") == set()


def test_tests_of_pure_code_touch_no_real_part() -> None:
    assert offences(python_files("tests/domain", "tests/actors"), rules.real_parts) == []


def test_ray_is_applied_in_one_file() -> None:
    found = offences(SOURCE, rules.ray_decorators)
    assert {finding.partition(":")[0] for finding in found} <= HOSTING


def test_nothing_secret_lies_in_the_tree() -> None:
    kinds = {".env", ".pem", ".key", ".p12", ".pfx", ".sqlite", ".db"}
    found = [
        path
        for folder in [*PACKAGES, "configs", "docs", "scripts", "tests", "requirements"]
        for path in (ROOT / folder).rglob("*")
        if path.suffix in kinds or path.name.startswith(".env")
    ]
    found += [path for path in ROOT.iterdir() if path.suffix in kinds or path.name.startswith(".env")]
    # A key of a test says so in its name.
    assert [path for path in found if not path.name.startswith("test_only_")] == []


def test_each_folder_of_code_is_a_package() -> None:
    folders = {path.parent for path in [*SOURCE, *python_files("tests")]}
    # Alembic loads its scripts by path.
    assert [folder for folder in folders if not (folder / "__init__.py").exists() and folder.name != "versions"] == []
    assert (ROOT / "models" / "__init__.py").read_text(encoding="utf-8") == ""


def test_no_file_is_dead() -> None:
    everything = {
        path: text_of(path)
        for path in [*SOURCE, *python_files("tests"), *sorted((ROOT / "scripts").glob("*")), ROOT / "pyproject.toml"]
        if path.is_file()
    }
    dead = []
    for path in SOURCE:
        if path.name in {"__init__.py", "__main__.py", "env.py"} or path.parent.name == "versions":
            continue
        dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        package, _, name = dotted.rpartition(".")
        imported = rf"from {re.escape(package)} import [^#\n]*(\([^)]*)?\b{name}\b"
        pattern = re.compile(rf"{re.escape(dotted)}\b|{imported}|from \.+ ?import [^\n]*\b{name}\b")
        # Most files do not even name it: that is seen sooner than a pattern fails.
        if not any(name in text and pattern.search(text) for other, text in everything.items() if other != path):
            dead.append(dotted)
    assert dead == []


def test_what_shares_a_costly_fixture_stays_in_one_process(request: pytest.FixtureRequest) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("one process")
    assert request.node.nodeid.endswith("@tests/architecture/test_conventions.py"), "xdist lost the groups: no --dist?"


def test_import_contracts_hold() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kept, 0 broken" in done.stdout
