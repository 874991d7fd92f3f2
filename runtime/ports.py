"""Free ports on the loopback: asked for before anything is started, so that a refusal names the port."""

from __future__ import annotations

import socket

import psutil

from models.domain.errors import NeedsOperator

LOOPBACK = "127.0.0.1"


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

    Raises NeedsOperator (`no_free_port`) when none of `tries` ports is free.
    """
    if preferred == 0:
        return free_port(host)
    for port in range(preferred, min(preferred + tries, 65_536)):
        if is_free(port, host):
            return port
    raise NeedsOperator(
        "no_free_port",
        f"no free port on {host} from {preferred} to {min(preferred + tries, 65_536) - 1}",
        "stop what listens there, or name another port in the settings",
    )


def accepts(port: int, host: str = LOOPBACK, timeout_s: float = 0.2) -> bool:
    """True when something accepts TCP connections on `host:port`."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return True
    except OSError:
        return False


def hold_port(preferred: int, host: str = LOOPBACK) -> tuple[int, socket.socket]:
    """As `preferred_or_free`, and nobody else of ours takes it until the socket is closed. Raises NeedsOperator."""
    while True:
        port = preferred_or_free(preferred, host)
        held = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind((host, port))
            held.listen(1)
        except OSError:  # somebody was faster: look again
            held.close()
            continue
        return port, held


def listens(pid: int, port: int) -> bool:
    """True when it is this process that listens on `port`: a stranger who took the port must not pass for it."""
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.AccessDenied:  # a system that does not tell: believe it
        return True
    except psutil.NoSuchProcess:
        return False
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections)
