"""One terminal on a laptop: photographs or a camera are its customers, a line typed is what somebody does.

The keys shown are those that the screen's actions allow; with the cable pulled it sells alone.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import httpx
from rich.console import Console

from devices.agent_config import AgentConfig
from devices.customers import Faces, faces_from
from devices.keys import KEYS, keys_for, text_of, word
from devices.offline_desk import OfflineDesk
from devices.outbox import OutboxFull
from devices.pictures import basket_picture, pictures
from devices.profiles import Role, TerminalProfile, profile_of
from devices.simulator import ProviderUsers, SimulatedTerminal, till_line
from devices.terminal import NoReply, TerminalAgent
from devices.watchdog import LoopWatch
from models.domain.errors import StoreOpsError
from models.domain.screen import Screen, ScreenState

_USER_UNFIT = re.compile(r"[^A-Za-z0-9_.-]")
CONNECT_S_MAX = 10.0

Act = Callable[[list[str]], Awaitable[object]]


async def run_terminal(
    config: AgentConfig,
    photos: Path | None = None,
    *,
    camera: str | None = None,
    language: str | None = None,
    provider_url: str | None = None,
    console: Console | None = None,
    commands: TextIO | None = None,
    restart: Callable[[str], None] | None = None,
) -> None:
    """Run one terminal until `quit`, the end of `commands` (default: standard input) or cancellation.

    Shows on `console` (default: standard error) what the terminal's screens show, in `language` (default: the chain's).
    `restart` is what a watchdog does when the program is stuck. Without a broker within 10 s it sells alone, or raises
    TimeoutError when it has no prices; StoreOpsError for photographs or a camera that are not there.
    """
    profile = profile_of(config.profile)
    faces = await asyncio.to_thread(faces_from, photos, camera)
    watch = LoopWatch(config.folder / "restart.json", restart) if restart is not None and config.folder else None
    try:
        async with httpx.AsyncClient(timeout=10.0) as http:
            provider = None if provider_url is None else ProviderUsers(http, provider_url)
            counter = Counter(config, profile, faces, provider, console or Console(stderr=True), language)
            if watch is not None:
                watch.start()
            await counter.run(commands or sys.stdin)
    finally:
        if watch is not None:
            watch.stop()
        faces.close()


class Counter:
    """One terminal, whoever stands before it, and the person who types."""

    def __init__(
        self,
        config: AgentConfig,
        profile: TerminalProfile,
        faces: Faces,
        provider: ProviderUsers | None,
        console: Console,
        language: str | None,
    ) -> None:
        self._profile = profile
        self._faces = faces
        self._console = console
        self._language = language
        self._agent = TerminalAgent(config)
        self._terminal = SimulatedTerminal(self._agent, provider)
        self._desk = OfflineDesk(self._agent)
        self._rung: str | None = None
        """The prompt that the bell rang for."""
        self._verbs = self._all_verbs()
        self._offline_verbs = self._verbs | self._offline()

    @property
    def language(self) -> str:
        """zh or en."""
        return self._language or str(self._agent.desired.get("language", "zh"))

    async def run(self, commands: TextIO) -> None:
        """Until `quit` or the end of the commands."""
        agent, config = self._agent, self._agent.config
        agent.on_screen = self._shown
        agent.on_text = lambda text: self._console.print(f"★ {text}", markup=False)
        agent.on_desired = self._configured
        try:
            await agent.start()
            self._desk.load()
            await self._desk.take_prices(agent.desired)
            if not await agent.connected_within(CONNECT_S_MAX) and not self._desk.till.prices.items:
                raise TimeoutError("the broker cannot be reached")
            title = self._profile.title_zh if self.language == "zh" else self._profile.title_en
            people = f"{len(self._faces.names)} {word('customers', self.language)}"
            self._console.print(f"[bold]{config.terminal}[/] · {title} · {config.store} · {people}")
            self._show_idle()
            self._show_keys()
            async for line in _lines(commands):
                if line.strip() == "quit":
                    break
                await self._do(line)
        finally:
            await agent.stop()

    # ------------------------------------------------------------ what is shown

    def _shown(self, screen: Screen) -> None:
        wanted = self._agent.duties.twin.told
        for table in pictures(screen, self._profile, self.language):
            self._console.print(table, style="dim" if wanted.dim else None)
        prompt = None if screen.prompt is None else screen.prompt.code
        if prompt is not None and prompt != self._rung and wanted.volume_percent:
            self._console.bell()
        self._rung = prompt
        if screen.state is ScreenState.CLOSED:
            self._show_idle()
        self._show_keys()

    def _configured(self, desired: Mapping[str, Any]) -> None:
        self._agent.spawn(self._desk.take_prices(desired))
        if self._agent.screen is None or self._agent.screen.state is ScreenState.CLOSED:
            self._show_idle()

    def _show_idle(self) -> None:
        """The slogan, for who passes by; how bright and how loud, for who stands behind."""
        wanted = self._agent.duties.twin.told
        if Role.CUSTOMER not in self._profile.screens:
            return
        levels = f"☀ {wanted.brightness_percent} %  ♪ {wanted.volume_percent} %"
        slogan = wanted.slogan(self.language)
        self._console.print(f"{slogan}  {levels}".strip(), style="dim" if wanted.dim else "bold", markup=False)

    def _show_keys(self) -> None:
        keys = keys_for(self._profile, self._agent.screen, offline=self._desk.open)
        usages = " | ".join(key.usage for key in keys)
        self._console.print(f"{word('keys', self.language)}: {usages}", style="dim", markup=False)

    def _show_desk(self) -> None:
        self._console.print(basket_picture(self._desk.till, self.language))
        self._show_keys()

    # ------------------------------------------------------------ what is typed

    async def _do(self, line: str) -> None:
        try:
            words = shlex.split(line)
            if words:
                verbs = self._offline_verbs if self._desk.open else self._verbs
                await verbs.get(words[0], self._help)(words[1:])
        except (NoReply, OutboxFull, TimeoutError) as error:
            self._console.print(f"{word('no answer yet', self.language)}: {error}", style="yellow", markup=False)
        except StoreOpsError as error:
            self._console.print(f"{error.code}: {error.message} - {error.do}", style="red", markup=False)
        except (LookupError, ValueError) as error:
            self._console.print(f"{word('not understood', self.language)}: {error}", style="red", markup=False)

    async def _help(self, _: list[str]) -> None:
        for key in KEYS:
            self._console.print(text_of(key, self.language), style="dim", markup=False)

    async def _who(self, words: list[str]) -> None:
        if words:
            self._faces.choose(words[0])
        self._console.print(", ".join(self._faces.names), f"-> {self._faces.now}", markup=False)

    async def _look(self, _: list[str]) -> None:
        screen = self._agent.screen
        enrolling = screen is not None and screen.state == "enrolling"
        if not enrolling:
            await self._terminal.consent("recognise")
        await self._terminal.show(await asyncio.to_thread(self._faces.photo))

    async def _alive(self, words: list[str]) -> None:
        score = None if words[0] == "off" else float(words[0])
        if score is not None and not 0 <= score <= 1:
            raise ValueError(words[0])
        self._terminal.liveness = score
        signed = word("signed" if self._agent.config.liveness_key is not None else "not signed", self.language)
        self._console.print(words[0] if score is None else f"{score:g}, {signed}", markup=False)

    async def _enrol(self, words: list[str]) -> None:
        await self._terminal.consent("membership")
        await self._terminal.enrol(words[0], user=self._user(), shots=self._faces.shots())

    async def _pay(self, words: list[str]) -> None:
        match words[0]:
            case "cash":
                await self._terminal.pay_cash(int(words[1]) if len(words) > 1 else None)
            case "face":
                await self._terminal.pay_face(self._user())
            case "code":
                await self._terminal.pay_code(self._user())
            case "qr":
                await self._terminal.pay_qr(self._user())
            case other:
                raise ValueError(other)

    async def _basket(self, words: list[str]) -> None:
        pairs = list(zip(words[::2], words[1::2], strict=True))
        lines = [till_line(n, code, code, int(fen)) for n, (code, fen) in enumerate(pairs, 1)]
        await self._terminal.basket(lines)

    async def _amount(self, words: list[str]) -> None:
        await self._terminal.amount(int(words[0]), till_txn=words[1] if len(words) > 1 else None)

    async def _lease(self, words: list[str]) -> None:
        screen = self._agent.screen
        name = screen.member.name if screen is not None and screen.member is not None else ""
        uses = int(words[1]) if len(words) > 1 else 1
        held = await self._desk.lease(words[0], uses, self._terminal.session, name)
        self._console.print(f"{held.id} {held.member} {held.benefit} x{held.uses} -> {held.until:%H:%M}", markup=False)

    async def _give_back(self, _: list[str]) -> None:
        self._console.print(f"{len(await self._desk.give_back())} {word('leases', self.language)}", markup=False)

    async def _drop(self, _: list[str]) -> None:
        self._agent.drop()
        await self._agent.gone()
        self._show_desk()

    async def _back(self, _: list[str]) -> None:
        self._agent.restore()
        if await self._agent.connected_within(CONNECT_S_MAX):
            self._desk.reconnected()
        self._show_keys()

    def _user(self) -> str:
        return _USER_UNFIT.sub("-", self._faces.now)[:64]

    def _all_verbs(self) -> dict[str, Act]:
        terminal = self._terminal
        return {
            "who": self._who,
            "open": lambda words: terminal.open_session(*words[:1]),
            "look": self._look,
            "alive": self._alive,
            "enrol": self._enrol,
            "scan": lambda words: terminal.scan(words[0], int(words[1]) if len(words) > 1 else 1),
            "remove": lambda words: terminal.remove(int(words[0])),
            "digits": lambda words: terminal.digits(words[0]),
            "identify": lambda words: terminal.identify(words[0], words[1]),
            "amount": self._amount,
            "basket": self._basket,
            "age": lambda words: terminal.age_check(words[0]),
            "voucher": lambda words: terminal.voucher(words[0]),
            "pay": self._pay,
            "collect": lambda _: terminal.confirm(collect="till"),
            "paid": lambda words: terminal.paid([{"kind": words[0], "fen": int(words[1])}]),
            "cancel": lambda _: terminal.cancel(),
            "void": lambda words: terminal.void(words[0]),
            "complain": lambda _: terminal.complain(),
            "lease": self._lease,
            "giveback": self._give_back,
            "drop": self._drop,
            "back": self._back,
        }

    # ------------------------------------------------------------ with the cable pulled

    def _offline(self) -> dict[str, Act]:
        desk = self._desk

        async def change(make: Callable[[], object]) -> None:
            make()
            self._show_desk()

        def basket(verb: Callable[[list[str]], object]) -> Act:
            return lambda words: change(lambda: verb(words))

        def scan(words: list[str]) -> None:
            desk.till = desk.till.scan(words[0], int(words[1]) if len(words) > 1 else 1)

        def remove(words: list[str]) -> None:
            desk.till = desk.till.remove(int(words[0]))

        def give(words: list[str]) -> None:
            desk.till = desk.till.give(words[0], self._agent.now())

        def age(words: list[str]) -> None:
            desk.till = desk.till.age_checked(ok=words[0] == "ok")

        def cancel(_: list[str]) -> None:
            desk.till = desk.till.cancel()

        async def pay(words: list[str]) -> None:
            await desk.sell(words[0], tendered_fen=int(words[1]) if len(words) > 1 else None)
            self._console.print(word("stored", self.language), markup=False)
            self._show_desk()

        verbs = {"scan": scan, "remove": remove, "give": give, "age": age, "cancel": cancel}
        return {name: basket(verb) for name, verb in verbs.items()} | {"pay": pay}


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
