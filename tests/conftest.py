"""Fixtures for all tests: one embedded PostgreSQL for the run, a fresh database each; a broker of its own."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import shutil
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import hypothesis
import psutil
import psycopg
import pytest
from psycopg import sql

from models.tables import plans
from models.tables.migrate import upgrade
from runtime.broker import EmbeddedBroker
from runtime.postgres import EmbeddedPostgres

# Its assertions are read by people too.
pytest.register_assert_rewrite("tests.integration.house")

# How fast a busy machine draws its examples and runs them is no property of what is tested.
hypothesis.settings.register_profile("storeops", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("storeops")

# Ray reads this once, when it is first imported, and some test of this process may join a house's engine later.
os.environ["RAY_AUTH_MODE"] = "token"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """What is collected stays to the end: the collector of cycles neither searches it meanwhile nor ever after."""
    gc.disable()
    try:
        _import_in_turn(session.config)
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def _import_in_turn(config: pytest.Config) -> None:
    """Import the test modules, each worker another part first: in a fresh clone it finds the others' compiled.

    Compiling them takes as long as everything else that collecting does, and each worker collects all of them.
    """
    number = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if not number or [config.rootpath / arg for arg in config.args] != [config.rootpath / "tests"]:
        return
    modules = sorted((config.rootpath / "tests").rglob("test_*.py"))
    begin = len(modules) * int(number) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    for path in modules[begin:] + modules[:begin]:
        with warnings.catch_warnings(), contextlib.suppress(Exception):  # collecting imports it again, and tells
            warnings.simplefilter("error")
            importlib.import_module(".".join(path.relative_to(config.rootpath).with_suffix("").parts))


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Which tests stay in one process when several run side by side (`make test`): what shares a costly fixture.

    The running house is one, Chromium's console another; else a file. Simulation slices are spread one by one.
    """
    for item in items:
        folder = item.path.parent.name
        if "_house" in getattr(item, "fixturenames", ()):
            group = "house"
        elif folder == "browser":
            group = "browser"
        elif folder == "simulation":
            continue
        else:
            group = str(item.path.relative_to(item.config.rootpath))
        item.add_marker(pytest.mark.xdist_group(group))
    # The longest group begins first, not to run alone at the end; --no-loadscope-reorder keeps this order.
    items.sort(key=lambda item: "_house" not in getattr(item, "fixturenames", ()))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """`-n auto`: one more than there are cores, four at most. Half of a run is waiting for other processes."""
    return min(4, (os.cpu_count() or 1) + 1)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Long texts are no names of tests: some hold fresh ids and signatures, and processes must agree on the names."""
    return argname if isinstance(val, str | bytes) and len(val) > 60 else None


MEMORY = Path("/dev/shm")
MEMORY_BYTES_MIN = 2 * 1024**3
"""A run's server takes a quarter of a GiB, and several run side by side."""


@contextmanager
def memory_dir() -> Iterator[Path]:
    """A folder in memory where the system has one with room, else one like any other: for what no crash outlives.

    A copy of the template is a thousand files: a tenth of the processor time there, and no disk to wait for. Folders
    that killed runs left are removed.
    """
    for left in MEMORY.glob("so-test-*"):
        if not psutil.pid_exists(int(left.name.split("-")[2])):
            shutil.rmtree(left, ignore_errors=True)
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES_MIN
    roomy = roomy and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC  # root's server is a copy beside its data
    folder = Path(tempfile.mkdtemp(prefix=f"so-test-{os.getpid()}-", dir=MEMORY if roomy else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def scratch_data_dir() -> Iterator[Path]:
    """A data folder that the servers' user may enter; pytest's own tmp_path is closed to it under root.

    A database server that was killed removes its segment of shared memory (/dev/shm/PostgreSQL.*) at its next start on
    the same folder. A folder that is deleted has none: a test that kills a server starts and stops it once more, or
    the segment stays until the machine restarts.
    """
    folder = Path(tempfile.mkdtemp(prefix="so-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_broker(
    kind: Literal["auto", "mosquitto", "iotcore"] = "auto", users: Mapping[str, str] | None = None
) -> Iterator[EmbeddedBroker]:
    """A broker in a folder of its own, with these users and secrets; gone with the block."""
    with scratch_data_dir() as folder:
        server = EmbeddedBroker(folder, kind)
        server.add_users(users or {})
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def fresh_database(server: EmbeddedPostgres, template: str = "template1") -> Iterator[str]:
    """The URL of a database of its own that is dropped at the end, whoever is still connected."""
    plans._cache.clear()  # a plan's version never changes, but another database may have another one
    name = f"t_{uuid.uuid4().hex[:16]}"
    with psycopg.connect(server.url, autocommit=True) as owner:
        # Copied as files: through the log, as is usual, the log would grow by the database's size each time.
        copy = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
        owner.execute(copy.format(sql.Identifier(name), sql.Identifier(template)))
    try:
        yield server.url_for(name)
    finally:
        with psycopg.connect(server.url, autocommit=True) as owner:
            _drop(owner, name)


def _drop(owner: psycopg.Connection, name: str) -> None:
    """FORCE ends clients, but not an autovacuum worker that looks in: that one is waited for, 30 s at most."""
    deadline = time.monotonic() + 30
    while True:
        try:
            owner.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        except psycopg.errors.InsufficientPrivilege:
            if time.monotonic() > deadline:
                raise
            owner.execute("SELECT pg_sleep(0.05)")
        else:
            return


def within(limit_s: float, act: Callable[[], float], tries: int = 3) -> float:
    """The seconds of the first of `tries` acts that kept within the limit; fails when none did.

    For a promise in seconds where the machine may stall (a disk, other tests): what is too slow is so each time.
    """
    took = [act()]
    while took[-1] > limit_s and len(took) < tries:
        took.append(act())
    assert took[-1] <= limit_s, f"{took} s, and {limit_s} s is the promise"
    return took[-1]


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A scratch data folder for embedded servers."""
    with scratch_data_dir() as folder:
        yield folder


@pytest.fixture(scope="session")
def embedded_postgres() -> Iterator[EmbeddedPostgres]:
    """One running server for the whole test run."""
    with memory_dir() as folder:
        server = EmbeddedPostgres(folder, survives_power_cuts=False)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def database_url(embedded_postgres: EmbeddedPostgres) -> Iterator[str]:
    """An empty database for one test: `postgresql://…` for psycopg (see runtime.postgres.sqlalchemy_url)."""
    with fresh_database(embedded_postgres) as url:
        yield url


@pytest.fixture(scope="session")
def migrated_template(embedded_postgres: EmbeddedPostgres) -> Iterator[str]:
    """The name of a database at the head of the migrations, to copy from: a copy takes a tenth of a migration."""
    with fresh_database(embedded_postgres) as url:
        upgrade(url)
        yield urlsplit(url).path.lstrip("/")


@pytest.fixture
def migrated_database_url(embedded_postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    """A database at the head of the migrations, for one test."""
    with fresh_database(embedded_postgres, migrated_template) as url:
        yield url


@pytest.fixture(scope="module")
def module_database_url(embedded_postgres: EmbeddedPostgres) -> Iterator[str]:
    """An empty database shared by the tests of one module."""
    with fresh_database(embedded_postgres) as url:
        yield url


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    """A running broker of its own for one test: `broker.info` is the host user, `broker.add_user` a terminal's."""
    with running_broker() as server:
        yield server


@pytest.fixture(scope="session")
def shared_broker() -> Iterator[EmbeddedBroker]:
    """One running broker for the whole run; tests that use it pick topics and user names of their own."""
    with running_broker() as server:
        yield server
