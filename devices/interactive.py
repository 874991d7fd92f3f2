"""One terminal on a laptop: each folder of photographs is a customer, a line typed is what that customer does."""

from __future__ import annotations

import asyncio
import re
import shlex
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TextIO

import httpx
from rich.console import Console
from rich.table import Table

from devices.agent_config import AgentConfig
from devices.outbox import OutboxFull
from devices.simulator import ProviderUsers, SimulatedTerminal
from devices.terminal import NoReply, TerminalAgent
from models.domain.errors import StoreOpsError
from models.domain.screen import Screen

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg"})
CUSTOMERS_MAX = 1000
_USER_UNFIT = re.compile(r"[^A-Za-z0-9_.-]")

HELP = """\
who            the customers           who NAME     the next customer
open           a customer steps up     look         agree, and look into the camera
scan CODE [N]  scan a barcode          remove LINE  take a line out
enrol PLAN     become a member         digits 1234  the phone's last four digits
pay cash [FEN] | pay face | pay qr     cancel       stop
void RECEIPT   undo a sale             drop, back   pull the cable, plug it in
quit           or Ctrl-C"""


@dataclass
class Customers:
    """The photographs of each customer, shown one after the other, from the first again at the end."""

    photos: dict[str, list[bytes]]
    now: str = ""

    def __post_init__(self) -> None:
        self._turns = {name: cycle(pictures) for name, pictures in self.photos.items()}
        self.now = self.now or next(iter(self.photos), "")

    def choose(self, beginning: str) -> None:
        """The customer whose name begins so. Raises LookupError."""
        for name in self.photos:
            if name.lower().startswith(beginning.lower()):
                self.now = name
                return
        raise LookupError(f"nobody is called {beginning}")

    def photo(self) -> bytes:
        """The present customer's next photograph. Raises LookupError when there is no customer."""
        return next(self._turns[self.now])

    def shots(self) -> list[bytes]:
        """All photographs of the present customer, for an enrolment."""
        return self.photos[self.now]


def load_customers(folder: Path) -> Customers:
    """A folder per customer, JPEG files inside. Raises StoreOpsError when there is none."""
    photos: dict[str, list[bytes]] = {}
    for place in sorted(path for path in folder.iterdir() if path.is_dir())[:CUSTOMERS_MAX]:
        pictures = [p.read_bytes() for p in sorted(place.iterdir()) if p.suffix.lower() in PHOTO_SUFFIXES]
        if pictures:
            photos[place.name] = pictures
    if not photos:
        raise StoreOpsError("no_photos", f"{folder} has no folders with JPEG files", "make one folder per customer")
    return Customers(photos)


async def run_terminal(
    config: AgentConfig,
    photos: Path,
    *,
    provider_url: str | None = None,
    console: Console | None = None,
    commands: TextIO | None = None,
) -> None:
    """Run one terminal until `quit`, the end of `commands` (default: standard input) or cancellation.

    Shows on `console` (default: standard error) what the terminal's screen shows. Raises TimeoutError when the
    broker cannot be reached within 10 s.
    """
    console = console or Console(stderr=True)
    customers = load_customers(photos)
    async with httpx.AsyncClient(timeout=10.0) as http:
        provider = None if provider_url is None else ProviderUsers(http, provider_url)
        agent = TerminalAgent(config)
        agent.on_screen = lambda screen: console.print(picture(screen))
        terminal = SimulatedTerminal(agent, provider)
        try:
            await agent.start(connect_timeout_s=10.0)
            console.print(f"[bold]{config.terminal}[/] at {config.store}, {len(customers.photos)} customers")
            console.print(HELP, style="dim", markup=False)
            async for line in _lines(commands or sys.stdin):
                if line.strip() == "quit":
                    break
                await _do(terminal, customers, console, line)
        finally:
            await agent.stop()


async def _do(terminal: SimulatedTerminal, customers: Customers, console: Console, line: str) -> None:
    try:
        words = shlex.split(line)
        if words:
            await _verb(terminal, customers, console, words[0], words[1:])
    except (NoReply, OutboxFull, TimeoutError) as error:
        console.print(f"no answer yet: {error}", style="yellow", markup=False)
    except StoreOpsError as error:
        console.print(f"{error.code}: {error.message} - {error.do}", style="red", markup=False)
    except (LookupError, ValueError) as error:
        console.print(f"not understood: {error}", style="red", markup=False)


async def _verb(
    terminal: SimulatedTerminal, customers: Customers, console: Console, verb: str, words: list[str]
) -> None:
    async def look() -> None:
        await terminal.consent("recognise")
        await terminal.show(customers.photo())

    async def enrol() -> None:
        await terminal.consent("membership")
        user = _USER_UNFIT.sub("-", customers.now)[:64]
        await terminal.enrol(words[0], user=user, shots=customers.shots())

    async def who() -> None:
        if words:
            customers.choose(words[0])
        console.print(", ".join(customers.photos), f"-> {customers.now}", markup=False)

    async def pay() -> None:
        user = _USER_UNFIT.sub("-", customers.now)[:64]
        if words[0] == "cash":
            await terminal.pay_cash(int(words[1]) if len(words) > 1 else None)
        elif words[0] == "face":
            await terminal.pay_face(user)
        else:
            await terminal.pay_qr(user)

    async def drop() -> None:
        terminal.agent.drop()

    async def back() -> None:
        terminal.agent.restore()

    async def show_help() -> None:
        console.print(HELP, style="dim", markup=False)

    verbs: dict[str, Callable[[], Awaitable[object]]] = {
        "who": who,
        "open": terminal.open_session,
        "look": look,
        "enrol": enrol,
        "scan": lambda: terminal.scan(words[0], int(words[1]) if len(words) > 1 else 1),
        "remove": lambda: terminal.remove(int(words[0])),
        "digits": lambda: terminal.digits(words[0]),
        "pay": pay,
        "cancel": terminal.cancel,
        "void": lambda: terminal.void(words[0]),
        "drop": drop,
        "back": back,
    }
    await verbs.get(verb, show_help)()


def picture(screen: Screen) -> Table:
    """The screen document as a small table."""
    who = f" {screen.member.name}" if screen.member else ""
    table = Table(title=f"{screen.state}{who} (rev {screen.rev})", title_justify="left", min_width=48)
    table.add_column("item")
    table.add_column("n", justify="right")
    table.add_column("fen", justify="right")
    for line in screen.lines:
        table.add_row(f"{line.name} {line.why}".strip(), str(line.quantity), str(line.net_fen))
    if screen.discount_fen:
        table.add_row("discount", "", str(-screen.discount_fen))
    table.add_row("due", "", str(screen.due_fen), style="bold")
    if screen.prompt is not None:
        params = " ".join(f"{name}={value}" for name, value in screen.prompt.params.items())
        table.caption = f"{screen.prompt.text or screen.prompt.code} {params}".strip()
    if screen.receipt is not None:
        table.add_row(f"receipt {screen.receipt.no}", "", "")
    return table


async def _lines(stream: TextIO) -> AsyncIterator[str]:
    """Lines of a terminal, pipe or file. A daemon thread reads, so that Ctrl-C need not wait for a key."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[str | None] = asyncio.Queue(maxsize=1000)

    def read() -> None:
        for line in stream:
            if loop.is_closed():
                return
            asyncio.run_coroutine_threadsafe(queue.put(line), loop).result()
        asyncio.run_coroutine_threadsafe(queue.put(None), loop)

    threading.Thread(target=read, name="terminal input", daemon=True).start()
    while (line := await queue.get()) is not None:
        yield line
