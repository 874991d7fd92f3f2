"""The data folder: where it lies, who may enter it, and the one process that holds it.

Layout: `postgres/` and `broker/` belong to the user that runs the embedded servers; everything else,
secrets above all, belongs to the user that runs `storeops`. As root the servers run as the system user
`storeops` (PostgreSQL refuses root), who may walk through the data folder but not list it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import secrets
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from models.domain.errors import NeedsOperator
from models.faces.segments import scope_of, wipe_abandoned, wipe_scope

SERVICE_USER = "storeops"
ROOT_DATA_DIR = Path("/var/lib/storeops")
PLANT_FILE = "plant.json"
HELD_LOCK = "held.lock"
"""In the secrets folder, 0600, while the house runs: how the gateway and the command line find everything."""
SOCKET_PATH_BYTES_MAX = 100
"""sun_path holds 107 bytes on Linux and 103 on macOS, the terminating zero not counted."""


@dataclass(frozen=True, slots=True)
class ServiceUser:
    """Whom the embedded servers run as when `storeops` runs as root."""

    name: str
    uid: int
    gid: int


def default_data_dir() -> Path:
    """/var/lib/storeops for root, else the user's own data home (XDG on Linux, Library on macOS)."""
    if os.geteuid() == 0:
        return ROOT_DATA_DIR
    return Path(platformdirs.user_data_dir("storeops", appauthor=False))


def ray_token_path(data_dir: Path | None, address: str = "local") -> Path:
    """Where Ray's token lies: RAY_AUTH_TOKEN_PATH; a cluster's where `ray` itself looks; else `secrets/ray-token`."""
    configured = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if configured:
        return Path(configured)
    own = (data_dir or default_data_dir()) / "secrets" / "ray-token"
    clusters = Path.home() / ".ray" / "auth_token"
    return clusters if address != "local" and not own.exists() and clusters.exists() else own


def write_private(path: Path, text: str, owner: ServiceUser | None = None) -> None:
    """Writes `text` so that a reader sees the old or the new content, never a part; mode 0600 from the start."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            if owner is not None:
                os.fchown(file.fileno(), owner.uid, owner.gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def closed_to(path: Path, user: ServiceUser) -> Path | None:
    """The first folder on the way to `path` (itself included) that `user` may not enter; None when all is open."""
    resolved = path.resolve()
    for folder in [*reversed(resolved.parents), resolved]:
        if not folder.exists():
            return None  # what is still to be made will be made open to the user
        status = folder.stat()
        if status.st_uid == user.uid:
            allowed = status.st_mode & stat.S_IXUSR
        elif status.st_gid == user.gid:
            allowed = status.st_mode & stat.S_IXGRP
        else:
            allowed = status.st_mode & stat.S_IXOTH
        if not allowed:
            return folder
    return None


def find_service_user(create: bool) -> ServiceUser | None:
    """The system user for embedded servers; None when not root (then they run as ourselves) or not there.

    With `create` it is made by `useradd --system`, without home or login shell.
    Raises NeedsOperator (`service_user_missing`) when that fails.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(SERVICE_USER)
    except KeyError:
        if not create:
            return None
        useradd = shutil.which("useradd") or "/usr/sbin/useradd"
        command = [useradd, "--system", "--user-group", "--no-create-home"]
        command += ["--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", SERVICE_USER]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)
            entry = pwd.getpwnam(SERVICE_USER)
        except (OSError, subprocess.SubprocessError, KeyError) as error:
            detail = getattr(error, "stderr", "") or str(error)
            raise NeedsOperator(
                "service_user_missing",
                f"PostgreSQL does not run as root, and the system user {SERVICE_USER!r} could not be made: {detail}",
                f"make it (useradd --system {SERVICE_USER}), start storeops as an ordinary user, "
                "or name a server in database.url",
            ) from error
    if entry.pw_uid == 0:
        raise NeedsOperator("service_user_is_root", f"the user {SERVICE_USER!r} has uid 0", "give it a uid of its own")
    return ServiceUser(SERVICE_USER, entry.pw_uid, entry.pw_gid)


@dataclass(frozen=True, slots=True)
class DataDir:
    """A checked data folder. Made by `open_data_dir`."""

    root: Path
    service_user: ServiceUser | None

    @property
    def logs(self) -> Path:
        """Folder of the parts' own chatter, 0700."""
        return self._own_folder("logs")

    @property
    def secrets(self) -> Path:
        """Folder of keys and passwords, 0700; its files are 0600."""
        return self._own_folder("secrets")

    def server_folder(self, name: str) -> Path:
        """A folder for an embedded server: 0700, owned by whom it runs as."""
        folder = self._own_folder(name)
        if self.service_user is not None:
            os.chown(folder, self.service_user.uid, self.service_user.gid)
        return folder

    def socket_folder(self, name: str, socket_name: str) -> Path:
        """A 0700 folder whose path with `socket_name` fits into a socket address.

        `root/run-{name}` when short enough, else a folder of ours under the runtime folder or /tmp, named by
        a digest of the data folder. Raises NeedsOperator (`socket_folder_foreign`) when another user made it.
        """
        folder = self.root / f"run-{name}"
        if len(os.fsencode(folder / socket_name)) > SOCKET_PATH_BYTES_MAX:
            digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
            base = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", "/tmp")  # noqa: S108
            folder = Path(base if Path(base).is_dir() else "/tmp") / f"so-{digest}-{name}"  # noqa: S108
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        allowed = {os.geteuid()} | ({self.service_user.uid} if self.service_user else set())
        if not stat.S_ISDIR(status.st_mode) or status.st_uid not in allowed:
            raise NeedsOperator(
                "socket_folder_foreign", f"{folder} belongs to somebody else", f"remove {folder}, then start again"
            )
        folder.chmod(0o700)
        if self.service_user is not None:
            os.chown(folder, self.service_user.uid, self.service_user.gid)
        return folder

    def secret(self, name: str) -> str:
        """The secret `name`, made once with 256 random bits and kept in a 0600 file."""
        path = self.secrets / name
        try:
            return path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            value = secrets.token_urlsafe(32)
            write_private(path, value + "\n")
            return value

    @contextmanager
    def held(self) -> Iterator[None]:
        """Holds the folder for this process alone; a killed holder lets go by itself.

        What face workers shared in this machine's memory outlives them: it is overwritten before and after; before,
        also what other deployments left that were killed and are not running.

        Raises NeedsOperator (`data_dir_in_use`) when another process holds it.
        """
        handle = os.open(self.root / HELD_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
                raise NeedsOperator(
                    "data_dir_in_use",
                    f"{self.root} is in use by process {holder or '?'}",
                    "stop that storeops first, or start this one with another --data folder",
                ) from None
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode("ascii"), 0)
            try:
                wipe_scope(scope_of(str(self.root)))
                wipe_abandoned(is_held)
                yield
            finally:
                wipe_scope(scope_of(str(self.root)))
        finally:
            os.close(handle)

    def _own_folder(self, name: str) -> Path:
        folder = self.root / name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder


def is_held(root: str) -> bool:
    """Does a process hold this data folder? Not when there is none (any more)."""
    try:
        handle = os.open(Path(root) / HELD_LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:  # somebody else's: it may well be
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def open_data_dir(configured: Path | None = None, *, create: bool = True) -> DataDir:
    """Checks the data folder (default: `default_data_dir()`) and, with `create`, makes it.

    Raises NeedsOperator: `data_dir_closed` when it lies where the servers' user cannot go (a closed home of
    root: we never open one), `data_dir_foreign` when it is another user's or open for others to write,
    `data_dir_missing` without `create`, `data_dir_unwritable` when it cannot be made.
    """
    root = Path(os.path.abspath((configured or default_data_dir()).expanduser()))
    elsewhere = f"use another folder, for example --data {ROOT_DATA_DIR if os.geteuid() == 0 else '~/storeops'}"
    # Before the user is made: a refusal changes nothing. Until then it is a stranger like any other.
    walker = find_service_user(create=False) or ServiceUser(SERVICE_USER, -1, -1)
    if os.geteuid() == 0 and (closed := closed_to(root.parent, walker)) is not None:
        raise NeedsOperator(
            "data_dir_closed",
            f"{root} lies under {closed}, which is closed to the user {walker.name!r} that runs the database",
            elsewhere,
        )
    user = find_service_user(create)
    if not root.exists():
        if not create:
            raise NeedsOperator("data_dir_missing", f"{root} does not exist", "run `storeops up` once")
        try:
            root.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise NeedsOperator("data_dir_unwritable", f"{root}: {error.strerror}", elsewhere) from error
    status = root.stat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise NeedsOperator("data_dir_foreign", f"{root} is not a folder of this user", elsewhere)
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise NeedsOperator("data_dir_foreign", f"others may write to {root}", f"chmod go-w {root}, or {elsewhere}")
    if create and user is None:
        root.chmod(0o700)
    elif create and user is not None:
        os.chown(root, 0, user.gid)
        root.chmod(0o710)
    return DataDir(root, user)
