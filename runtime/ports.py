"""Free ports on the loopback: asked for before anything is started, so that a refusal names the port."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from pathlib import Path

import psutil

from models.domain.errors import NeedsOperator

LOOPBACK = "127.0.0.1"
_claims: dict[int, int] = {}
"""Ports of this process, each with its open lock file."""


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """True when a listener could bind `host:port` at this moment (somebody else may still win the race)."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        # A port in TIME_WAIT after a restart of ours counts as free: servers bind with SO_REUSEADDR too.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)  # on Linux two sockets may bind with SO_REUSEADDR; only one may listen
        except OSError:
            return False
    return True


def free_port(host: str = LOOPBACK) -> int:
    """A port that the kernel says is free now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def preferred_or_free(preferred: int, host: str = LOOPBACK, tries: int = 20) -> int:
    """`preferred` or the next free port above it; 0 asks the kernel for any.

    It is this process's while it lives: its server starts seconds later, and another house on this machine looks for
    a port meanwhile. Raises NeedsOperator (`no_free_port`) when none of `tries` ports is free.
    """
    if preferred == 0:
        return free_port(host)
    for port in range(preferred, min(preferred + tries, 65_536)):
        if _claim(port) and is_free(port, host):
            return port
    raise NeedsOperator(
        "no_free_port",
        f"no free port on {host} from {preferred} to {min(preferred + tries, 65_536) - 1}",
        "stop what listens there, or name another port in the settings",
    )


def _claim(port: int) -> bool:
    """False while another process of this user has it. A lock ends with its process, however that ends."""
    if port in _claims:
        return True
    folder = Path(tempfile.gettempdir()) / f"storeops-ports-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat(follow_symlinks=False).st_uid != os.getuid():
            return True  # somebody else's folder in a place that is everybody's: no claims, as if nobody looked
        lock = os.open(folder / str(port), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:  # a full or read-only disk is no reason not to listen
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    _claims[port] = lock
    return True


def accepts(port: int, host: str = LOOPBACK, timeout_s: float = 0.2) -> bool:
    """True when something accepts TCP connections on `host:port`."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return True
    except OSError:
        return False


def listens(pid: int, port: int) -> bool:
    """True when it is this process that listens on `port`: a stranger who took the port must not pass for it."""
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.AccessDenied:  # a system that does not tell: believe it
        return True
    except psutil.NoSuchProcess:
        return False
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections)
