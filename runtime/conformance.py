"""`storeops conformance`: a broker for the run, the address for the device, the examiner, and the table at the end."""

from __future__ import annotations

import secrets
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from devices.agent_config import AgentConfig
from devices.conformance.examiner import Examined, Examiner, Pace
from devices.conformance.operators import Operator, Person, Script
from devices.conformance.rules import Finding, Verdict
from devices.conformance.tap import Tap
from devices.liveness import LivenessKey, read_public_key
from devices.mqtt import LinkConfig
from devices.terminal import TerminalAgent
from devices.topics import prefix
from models.domain.errors import Refused
from models.domain.ids import RegionId, StoreId, TerminalId, is_topic_level
from runtime.broker import EmbeddedBroker, check_login, parse_url, read_ca

_MARKS = {Verdict.PASSED: "[green]✓[/]", Verdict.FAILED: "[red]✗[/]", Verdict.SKIPPED: "[yellow]–[/]"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for on the command line."""

    terminal: str
    store: str = "conformance"
    region: str = "lab"
    listen: str = "127.0.0.1:0"
    broker: str | None = None
    broker_ca: Path | None = None
    """PEM file of the authority that signed an mqtts:// broker's certificate; None: the system's authorities."""
    secret: str | None = None
    camera: bool = True
    rehearse: bool = False
    """Our own agent takes the device's place."""
    liveness_key: str | None = None
    """The device's public key, as it would be registered."""


@dataclass(frozen=True, slots=True)
class _Server:
    """The examiner's own connection, and what the device logs in with."""

    link: LinkConfig
    secret: str | None


async def conformance(wanted: Wanted, err: Console) -> list[Finding]:
    """One run, from the device's first connect to the findings. Raises Refused, NeedsOperator (broker)."""
    for level in (wanted.terminal, wanted.store, wanted.region):
        if not is_topic_level(level):
            raise Refused("bad_name", f"{level!r} cannot stand in a topic", "use a-z, 0-9 and -, 48 at most")
    host, _, port = wanted.listen.rpartition(":")
    if not port.isdigit():
        raise Refused("bad_address", f"--listen {wanted.listen}", "host:port, e.g. 0.0.0.0:18950")
    region, store, terminal = RegionId(wanted.region), StoreId(wanted.store), TerminalId(wanted.terminal)
    async with _broker(wanted) as server:
        tap = Tap(server.link.host, server.link.port, tls=server.link.tls)
        listening = await tap.start(host or "127.0.0.1", int(port))
        rehearsed = LivenessKey.make() if wanted.rehearse else None
        key = None if wanted.liveness_key is None else read_public_key(wanted.liveness_key)
        public = key if rehearsed is None else rehearsed.public
        device = Examined(prefix(region, store, terminal), terminal, server.secret, public)
        _say_where(err, device, host or "127.0.0.1", listening, wanted)
        script: Script | None = None
        operator: Operator = Person(lambda text: err.print(text, markup=False), _ask, has_camera=wanted.camera)
        if wanted.rehearse:
            config = AgentConfig(
                "127.0.0.1",
                listening,
                region,
                store,
                terminal,
                "dragonfly-2",
                device.secret,
                reconnect_s_max=5.0,
                liveness_key=rehearsed,
            )
            operator = script = Script(TerminalAgent(config))
        try:
            with err.status("") as status:
                examiner = Examiner(tap, server.link, device, operator, Pace(), lambda step: status.update(f"{step} …"))
                return await examiner.run()
        finally:
            if script is not None:
                await script.close()
            await tap.stop()


@asynccontextmanager
async def _broker(wanted: Wanted) -> AsyncIterator[_Server]:
    """The named broker, or one of our own for the time of the run."""
    if wanted.broker is not None:
        yield _Server(link_to(wanted.broker, wanted.broker_ca), wanted.secret)
        return
    folder = Path(tempfile.mkdtemp(prefix="so-conformance-"))
    broker = EmbeddedBroker(folder)
    secret = wanted.secret or secrets.token_hex(16)
    try:
        broker.start()
        broker.add_user(wanted.terminal, secret)
        info = broker.info
        link = LinkConfig(info.host, info.port, "conformance", username=info.username, password=info.password)
        yield _Server(link, secret)
    finally:
        broker.stop()
        shutil.rmtree(folder, ignore_errors=True)


def link_to(url: str, ca: Path | None) -> LinkConfig:
    """The examiner's connection to a broker by URL. Raises NeedsOperator when it does not let us in."""
    info = parse_url(url, read_ca(ca))
    check_login(info)
    return LinkConfig(
        info.host,
        info.port,
        f"conformance-{secrets.token_hex(3)}",
        username=info.username,
        password=info.password,
        tls=info.tls_context(),
    )


def _say_where(err: Console, device: Examined, host: str, port: int, wanted: Wanted) -> None:
    if wanted.rehearse:
        return
    rows = {
        "broker": f"mqtt://{host}:{port}",
        "user name": device.terminal,
        "client id": device.terminal,
        "password": device.secret or "(the one that your broker knows)",
        "topic prefix": device.prefix,
    }
    for name, value in rows.items():
        err.print(f"{name:<13} {value}", markup=False)


def _ask(question: str) -> bool | None:
    """Yes, no, or nothing: then the rule is left out."""
    if not sys.stdin.isatty():
        return None
    answer = Console(stderr=True).input(f"{question}  [y/n/–] ").strip().lower()
    return {"y": True, "n": False}.get(answer[:1])


def as_document(wanted: Wanted, findings: Sequence[Finding]) -> dict[str, Any]:
    """The machine-readable result."""
    counts = Counter(finding.verdict.value for finding in findings)
    return {
        "terminal": wanted.terminal,
        "protocol": 1,
        "ok": passed(findings),
        "counts": {verdict.value: counts[verdict.value] for verdict in Verdict},
        "rules": [
            {"rule": one.rule.key, "verdict": one.verdict.value, "detail": one.detail, "what": one.rule.en}
            for one in findings
        ],
    }


def as_table(findings: Sequence[Finding]) -> Table:
    """For people, in both languages."""
    table = Table("", "rule", "规则", "what", "detail", box=None, pad_edge=False)
    for one in findings:
        table.add_row(_MARKS[one.verdict], one.rule.key, one.rule.zh, one.rule.en, one.detail)
    return table


def passed(findings: Sequence[Finding]) -> bool:
    """No rule failed. What was skipped was not examined."""
    return not any(finding.verdict is Verdict.FAILED for finding in findings)
