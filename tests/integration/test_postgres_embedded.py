"""The embedded PostgreSQL as a stranger finds it: who gets in, what survives, what is left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from models.domain.errors import NeedsOperator
from runtime import postgres as module
from runtime.datadir import SOCKET_PATH_BYTES_MAX, DataDir, ServiceUser, closed_to, open_data_dir
from runtime.postgres import EmbeddedPostgres, check_url, sqlalchemy_url
from runtime.processes import has_ended, wait_ended
from tests.conftest import scratch_data_dir, within

pytestmark = pytest.mark.integration
COLD_START_S_MAX = 10.0
STOP_S_MAX = 2.0
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the servers as another user")


@pytest.fixture
def server(embedded_postgres: EmbeddedPostgres) -> EmbeddedPostgres:
    """The run's shared server, for tests that only look."""
    return embedded_postgres


def modes(*paths: Path) -> list[int]:
    return [path.stat().st_mode & 0o777 for path in paths]


def test_cold_start_and_stop_are_quick_and_leave_no_process() -> None:
    folders, servers = contextlib.ExitStack(), list[EmbeddedPostgres]()

    def start() -> float:
        servers.append(EmbeddedPostgres(folders.enter_context(scratch_data_dir())))
        began = time.monotonic()
        servers[-1].start()
        return time.monotonic() - began

    def stop() -> float:
        server = servers[-1]
        server.start()  # when the stop before this one was too slow
        assert server.pid is not None
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        busy = psycopg.connect(server.url)  # an open transaction does not hold the stop up
        busy.execute("CREATE TABLE IF NOT EXISTS t AS SELECT generate_series(1, 100000)")
        stopping = time.monotonic()
        graceful = server.stop()
        took = time.monotonic() - stopping
        busy.close()
        assert graceful
        assert all(has_ended(process) for process in family)
        return took

    with folders:
        try:
            within(COLD_START_S_MAX, start)
            within(STOP_S_MAX, stop)
            assert servers[-1].stop(), "a second stop does nothing"
        finally:
            for server in servers:
                server.stop()


def test_what_was_committed_is_there_after_a_kill(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    first = server.start()
    with psycopg.connect(first) as connection:
        connection.execute("CREATE TABLE t AS SELECT 42 AS answer")
    assert server.pid is not None
    postmaster = psutil.Process(server.pid)
    family = postmaster.children(recursive=True)
    postmaster.kill()
    assert wait_ended([postmaster, *family], 10)
    try:
        assert server.start() == first
        assert not server.adopted
        with psycopg.connect(first) as connection:
            assert connection.execute("SELECT answer FROM t").fetchone() == (42,)
            assert connection.execute("SHOW fsync").fetchone() == ("on",)
    finally:
        server.stop()


def test_a_start_adopts_the_server_of_a_killed_parent(data_dir: Path) -> None:
    script = (
        "import sys, pathlib, signal; from runtime.postgres import EmbeddedPostgres\n"
        "s = EmbeddedPostgres(pathlib.Path(sys.argv[1])); s.start(); print(s.pid, flush=True); signal.pause()"
    )

    def adopted_and_stopped() -> float:
        command = [sys.executable, "-c", script, str(data_dir)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            parent.kill()
        server = EmbeddedPostgres(data_dir)
        try:
            url = server.start()
            assert (server.pid, server.adopted) == (pid, True)
            postmaster = psutil.Process(pid)
            assert check_url(url) >= 180_000
            began = time.monotonic()
            graceful = server.stop()
            took = time.monotonic() - began
            assert graceful
            assert has_ended(postmaster)
        finally:
            server.stop()
        return took

    within(STOP_S_MAX, adopted_and_stopped)


def test_a_found_server_that_recovers_is_waited_for_and_a_stuck_one_is_named(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = EmbeddedPostgres(data_dir), EmbeddedPostgres(data_dir)
    first.start()
    pid_file = first._cluster / "postmaster.pid"
    looked = threading.Event()
    state_of = EmbeddedPostgres._postmaster

    def says(state: str) -> None:
        lines = pid_file.read_text(encoding="utf-8").splitlines()
        with pid_file.open("r+", encoding="utf-8") as file:  # in place, as the server does: it is never empty
            file.write("\n".join([*lines[:7], state.ljust(8)]) + "\n")

    def looking(server: EmbeddedPostgres) -> object:
        looked.set()
        return state_of(server)

    monkeypatch.setattr(module, "STUCK_AFTER_S", 0.0)
    monkeypatch.setattr(EmbeddedPostgres, "_postmaster", looking)
    try:
        says("starting")
        adopting = threading.Thread(target=second.start)
        adopting.start()
        for _ in range(2):  # the second look comes after the first was no reason to give up
            assert looked.wait(30)
            looked.clear()
        says("ready")
        adopting.join(30)
        assert (second.adopted, second.pid) == (True, first.pid)
        says("stopping")
        with pytest.raises(NeedsOperator, match="not ready") as refused:
            EmbeddedPostgres(data_dir).start()
        assert refused.value.code == "postgres_stuck"
    finally:
        says("ready")
        first.stop()


def test_nobody_gets_in_without_the_password(server: EmbeddedPostgres) -> None:
    assert check_url(server.url) >= 180_000
    for wrong in [{"password": "wrong"}, {"password": ""}, {"user": "postgres"}, {"user": "postgres", "password": ""}]:
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(make_conninfo(server.url, **wrong))
    for database in ("storeops", "postgres", "template1"):
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(make_conninfo(server.url, dbname=database, password="wrong"))
    hba = (server._cluster / "pg_hba.conf").read_text(encoding="utf-8")
    assert "trust" not in hba
    assert "peer" not in hba


def test_the_application_is_no_superuser_but_owns_its_database(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.url) as connection:
        row = connection.execute(
            "SELECT rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
        assert row == (False, True, False)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("COPY (SELECT 1) TO PROGRAM 'cat'")


def connections(process: psutil.Process) -> list[object]:
    """Of a process that is still there: a vacuum's worker comes and goes."""
    try:
        return list(process.net_connections("inet"))
    except psutil.NoSuchProcess:
        return []


def test_there_is_no_port_and_every_file_is_private(server: EmbeddedPostgres) -> None:
    assert server.pid is not None
    data_dir = server.url_file.parent.parent
    processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children()]
    assert [c for process in processes for c in connections(process)] == []
    secrets = data_dir / "secrets"
    assert modes(server.url_file, secrets / "postgres-owner", secrets / "postgres-admin") == [0o600] * 3
    assert modes(secrets, data_dir / "postgres", data_dir / "logs") == [0o700] * 3
    socket_folder = Path(str(conninfo_to_dict(server.url)["host"]))
    assert modes(socket_folder) == [0o700]
    assert server.url_file.read_text(encoding="utf-8").strip() == server.url
    assert not (data_dir / "postgres" / "initdb.password").exists()
    for line in psutil.Process(server.pid).cmdline():
        assert str(conninfo_to_dict(server.url)["password"]) not in line


@as_root
def test_root_hands_the_server_to_another_user(server: EmbeddedPostgres) -> None:
    assert server.pid is not None
    data_dir = server.url_file.parent.parent
    uids = psutil.Process(server.pid).uids()
    assert 0 not in uids
    assert (data_dir.stat().st_uid, data_dir.stat().st_mode & 0o777) == (0, 0o710)


@as_root
def test_a_closed_home_of_root_is_refused_not_opened() -> None:
    with scratch_data_dir() as home:
        home.chmod(0o700)
        with pytest.raises(NeedsOperator) as refused:
            open_data_dir(home / "share" / "storeops")
        assert refused.value.code == "data_dir_closed"
        assert str(home) in refused.value.message
        assert "--data" in refused.value.do
        assert modes(home) == [0o700]
        assert list(home.iterdir()) == []


@as_root
def test_programs_in_a_closed_folder_are_copied_not_opened(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_readable_for", lambda _installed, _user: False)
    server = EmbeddedPostgres(data_dir)
    try:
        check_url(server.start())
        assert server.pid is not None
        assert Path(psutil.Process(server.pid).exe()).is_relative_to(data_dir)
    finally:
        server.stop()


def test_closed_folders_are_found(tmp_path: Path) -> None:
    stranger = ServiceUser("stranger", 54_321, 54_321)
    tmp_path.chmod(0o755)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    found = closed_to(closed / "not" / "there", stranger)
    assert found is not None
    assert closed.is_relative_to(found), "the first closed folder on the way"
    assert closed_to(Path("/"), stranger) is None


def test_a_long_path_does_not_break_the_socket() -> None:
    with scratch_data_dir() as folder:
        folder.chmod(0o711)
        data = folder / ("x" * SOCKET_PATH_BYTES_MAX)
        data.mkdir(mode=0o700)
        server = EmbeddedPostgres(data)
        socket_folder = server._sockets
        try:
            check_url(server.start())
            assert len(str(socket_folder)) < SOCKET_PATH_BYTES_MAX
            assert modes(socket_folder) == [0o700]
        finally:
            server.stop()
            shutil.rmtree(socket_folder, ignore_errors=True)


def test_a_half_made_cluster_is_made_again(data_dir: Path) -> None:
    half = EmbeddedPostgres(data_dir)
    (data_dir / "postgres" / "cluster.new").mkdir()
    (data_dir / "postgres" / "cluster.new" / "PG_VERSION").write_text("18\n", encoding="ascii")
    try:
        check_url(half.start())
    finally:
        half.stop()


def test_another_major_version_is_refused_with_a_way_out(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    (data_dir / "postgres" / "cluster").mkdir()
    (data_dir / "postgres" / "cluster" / "PG_VERSION").write_text("16\n", encoding="ascii")
    with pytest.raises(NeedsOperator) as refused:
        server.start()
    assert refused.value.code == "postgres_major"


def test_a_lost_owner_secret_is_replaced(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    try:
        before = server.start()
        (data_dir / "secrets" / "postgres-owner").unlink()
        after = server.start()
        assert after != before
        check_url(after)
        with pytest.raises(NeedsOperator) as refused:
            check_url(before)
        assert refused.value.code == "database_unreachable"
        assert server.url_file.read_text(encoding="utf-8").strip() == after
    finally:
        server.stop()


def test_one_process_holds_a_data_folder(data_dir: Path) -> None:
    data: DataDir = open_data_dir(data_dir)
    script = (
        "import sys, pathlib, signal; from runtime.datadir import open_data_dir\n"
        "with open_data_dir(pathlib.Path(sys.argv[1])).held(): print('held', flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(data_dir)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(NeedsOperator) as refused, data.held():
            pass
        assert refused.value.code == "data_dir_in_use"
        assert str(holder.pid) in refused.value.message
        holder.send_signal(signal.SIGKILL)
    with data.held():
        pass


def test_others_may_not_write_into_the_data_folder(data_dir: Path) -> None:
    data_dir.chmod(0o777)
    with pytest.raises(NeedsOperator) as refused:
        open_data_dir(data_dir)
    assert refused.value.code == "data_dir_foreign"


def test_it_starts_from_a_thread_that_ends(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    try:
        check_url(server.url)
    finally:
        server.stop()


def test_a_fresh_database_each(database_url: str, module_database_url: str) -> None:
    assert database_url != module_database_url
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE TABLE t (id int)")
    with psycopg.connect(module_database_url) as connection:
        assert connection.execute("SELECT to_regclass('t')").fetchone() == (None,)
    assert sqlalchemy_url(database_url).startswith("postgresql+psycopg://storeops:")
