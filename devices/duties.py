"""What a terminal does for its operator: desired documents, software, commands, rotation, and its own watchdog."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import httpx
import msgspec

from devices import codec, wire
from devices.credentials import Credential, CredentialStore, rotate
from devices.link import Delivery, LinkError
from devices.outbox import Outbox
from devices.profiles import PROFILES
from devices.software import Software, SoftwareStore, in_window
from devices.told import Told, told
from devices.topics import Up
from devices.watchdog import last_restart, note_restart
from models.domain.errors import Refused, RetryLater, StoreOpsError
from models.domain.screen import ScreenState

if TYPE_CHECKING:
    from devices.terminal import TerminalAgent

RESPONSE_EXPIRY_S = 30
CONFIG_BYTES_MAX = 256 * 1024
COMMANDS_REMEMBERED_MAX = 64
FETCH_PAUSE_S_MAX = 600.0
ROTATED_S_MAX = 20.0
HTTP_TIMEOUT_S = 30.0
_QUIET = frozenset({ScreenState.CLOSED, ScreenState.PAID})

Act = Callable[[Mapping[str, str | int]], Awaitable[str]]


class Rejected(StoreOpsError):
    """The command cannot be done by this terminal; `code` is the answer's detail."""


class Twin:
    """The desired document that this terminal runs. One row, so that a power cut leaves the old or the new whole."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.config: Mapping[str, Any] = {}
        self.gen = 0
        self.config_hash = ""
        self.software: wire.SoftwareRelease | None = None
        self.told = Told()
        self.refused = ""
        """Why the newest document was not applied; empty when it was."""

    def load(self) -> None:
        """What an earlier process applied."""
        stored = self._outbox.setting("desired")
        if stored is not None:
            self._take(codec.decode_desired(stored.encode()))

    async def apply(self, desired: wire.DesiredDocument, payload: bytes) -> bool:
        """Apply a newer generation; on the disk when this returns. False: it is not newer, or cannot be run."""
        if desired.gen <= self.gen:
            return False
        if len(payload) > CONFIG_BYTES_MAX:
            self.refused = f"generation {desired.gen} has {len(payload)} bytes, {CONFIG_BYTES_MAX} at most"
            return False
        self._outbox.set_setting("desired", payload.decode())
        try:
            await self._outbox.flush()
        except sqlite3.Error as error:
            self.refused = f"generation {desired.gen} is not on the disk: {error}"[:200]
            return False
        self.refused = ""
        self._take(desired)
        return True

    def _take(self, desired: wire.DesiredDocument) -> None:
        self.config, self.gen, self.software = desired.config, desired.gen, desired.software
        self.told = told(desired.config)
        # Sorted keys, no spaces, UTF-8: the host hashes the same text.
        self.config_hash = sha256(msgspec.json.encode(desired.config, order="sorted")).hexdigest()


class Duties:
    """The operator's side of one agent. All calls on its event loop."""

    def __init__(self, agent: TerminalAgent, software: Software | None = None) -> None:
        """`software`: where releases are kept; None: in the agent's folder, or nowhere without one."""
        self._agent = agent
        self._config = agent.config
        self.twin = Twin(agent.outbox)
        folder = agent.config.folder
        self._store = software
        if software is None and folder is not None:
            self._store = SoftwareStore(folder / "software", agent.config.software)
        self._credentials = CredentialStore(folder) if folder is not None else None
        self._note = folder / "restart.json" if folder is not None else None
        self._commands: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._fetching: asyncio.Task[None] | None = None
        self._ended = False
        self._applying = asyncio.Lock()
        self.running = agent.config.software
        self.profile = agent.config.profile
        """The family that the running software makes of this device."""
        self.fell_back = ""
        """The version that failed its trial, and that is not activated again by itself."""
        self._trial = False
        self.fetched = ""
        self.fetch_error = ""
        self.restarted: dict[str, str] | None = None
        self.rotated_s_max = ROTATED_S_MAX
        """How long a new credential may take to be let in."""
        self.shown_text = ""
        """What the operator last asked to be shown (`show_text`)."""
        self._verbs: dict[str, Act] = {
            "resync": self._resync,
            "reboot": self._reboot,
            "activate": self._activate,
            "rotate": self._rotate,
            "show_text": self._show_text,
            "test_print": self._test_print,
        }

    # ------------------------------------------------------------ a boot begins

    async def boot(self) -> None:
        """Which version this boot runs, and why the one before it ended."""
        self._ended = False
        if self._store is not None:
            await asyncio.to_thread(self._begin, self._store)
        if self._note is not None:
            self.restarted = await asyncio.to_thread(last_restart, self._note)
        self.prefetch()

    def _begin(self, store: Software) -> None:
        """An image on trial that is not what was fetched is a boot that failed, at once."""
        running = store.begin()
        while running.trial and not store.intact():
            running = store.begin()
        self.running, self.profile = running.version, running.profile or self._config.profile
        self.fell_back, self._trial = store.fell_back, running.trial

    async def proved(self) -> None:
        """This boot is connected and has reported: what runs is healthy, and stays."""
        if self._store is not None and self._trial:
            self._trial = False
            try:
                await asyncio.to_thread(self._store.prove)
            except OSError as error:  # the next boot is one of the trial again
                self.fetch_error = f"disk: {error}"[:200]

    async def stop(self) -> None:
        """No download goes on, and none begins: the next process may already look at the same folder."""
        self._ended = True
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait({self._fetching})

    def health(self) -> dict[str, Any]:
        """What stands in `reported.health` beside the outbox."""
        health: dict[str, Any] = {}
        if self.restarted is not None:
            health["restarted"] = self.restarted
        if self.twin.refused:
            health["desired_refused"] = self.twin.refused
        wanted = self.twin.software
        if wanted is not None and wanted.version != self.running:
            health["software_next"] = wanted.version
            health["software_fetched"] = self.fetched == wanted.version
            if wanted.version == self.fell_back:
                health["fell_back"] = self.fell_back
        if self.fetch_error:
            health["fetch_error"] = self.fetch_error
        return health

    def sample(self) -> dict[str, Any]:
        """What this device measures of itself."""
        counts = self._agent.counts
        return {
            "v": wire.VERSION,
            "outbox_bytes": self._agent.outbox.bytes_stored,
            "outbox_events": len(self._agent.unanswered),
            "sent": counts.sent,
            "resent": counts.resent,
            "reboots": counts.reboots,
        }

    async def every(self) -> None:
        """Looked at each second: is the window open, is the server silent, is a sample due?"""
        sampled_s = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(self._config.duties_every_s)
            wanted, now_s = self.twin.told, asyncio.get_running_loop().time()
            if wanted.telemetry_every_s and now_s - sampled_s >= wanted.telemetry_every_s:
                sampled_s = now_s
                await self._agent.telemetry(self.sample())
            silent_s_max = self._config.silent_s_max if wanted.silent_s is None else wanted.silent_s
            if self._agent.online and self._agent.silent_s() > silent_s_max:
                await self._agent.reboot(f"no reply for {silent_s_max:.0f} s although connected")
            elif in_window(self.twin.config.get("software_window"), self._agent.now()) and self._idle():
                await self._switch_quietly()

    # ------------------------------------------------------------ desired and software

    async def desire(self, payload: bytes, desired: wire.DesiredDocument) -> None:
        """A document, not a difference: the newest generation counts, older ones are ignored."""
        async with self._applying:
            if await self.twin.apply(desired, payload):
                self._agent.configured()
                self.prefetch()
            elif not self.twin.refused:
                return
        await self._agent.report()

    def prefetch(self) -> None:
        """Fetch what is desired and does not run yet, in the background, until it is here."""
        wanted, before = self.twin.software, self._fetching
        if before is not None:
            before.cancel()
        if self._store is None or wanted is None or wanted.version == self.running or self._ended:
            return
        self._fetching = asyncio.get_running_loop().create_task(self._fetch(self._store, wanted, before))

    def _client(self) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        return httpx.AsyncClient(timeout=HTTP_TIMEOUT_S)

    async def _fetch(self, store: Software, wanted: wire.SoftwareRelease, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        pause_s = 1.0
        async with self._client() as http:
            while True:
                try:
                    await store.fetch(wanted, http)
                except (RetryLater, OSError) as error:
                    # A disk may have room again; and a download that was given up may still put its file in place.
                    said = f"{error.code}: {error.message}" if isinstance(error, RetryLater) else f"disk: {error}"
                    self.fetch_error = said[:200]
                    # Thousands lose the same gateway at the same moment; they must not come back together.
                    await asyncio.sleep(min(pause_s, FETCH_PAUSE_S_MAX) * random.uniform(0.5, 1.0))  # noqa: S311
                    pause_s *= 2
                except StoreOpsError as error:
                    self.fetch_error = str(error)[:200]
                    break
                else:
                    self.fetched, self.fetch_error = wanted.version, ""
                    break
        await self._agent.report()

    def _idle(self) -> bool:
        """Nobody is being served, and nothing waits for a reply."""
        screen = self._agent.screen
        return (screen is None or screen.state in _QUIET) and not self._agent.unanswered

    async def _switch_quietly(self) -> None:
        """In the window, again each second until it is done; a disk that refuses is reported."""
        try:
            await self._switch()
        except Rejected:
            pass
        except (StoreOpsError, OSError) as error:
            self.fetch_error = str(error)[:200]

    async def _ready(self, *, again: bool, version: object = None) -> tuple[Software, wire.SoftwareRelease]:
        """What may be activated now; `version`: what the command named. Raises Rejected."""
        wanted = self.twin.software
        if self._store is None or wanted is None or wanted.version == self.running:
            raise Rejected("nothing_to_activate")
        if version not in (None, wanted.version):
            raise Rejected("other_version")  # the document has changed since: what it says counts
        if not await asyncio.to_thread(self._store.ready, wanted):
            raise Rejected("not_fetched")
        if wanted.version == self.fell_back and not again:
            raise Rejected("fell_back")
        return self._store, wanted

    async def _switch(self, *, again: bool = False, version: object = None) -> None:
        """Run the fetched release from the next boot on, and boot. `again`: also one that failed its trial.

        A document that comes meanwhile waits for the boot: no report says that it is applied while this one still
        starts what the one before wanted. Raises Rejected, or Refused `fell_back` when the version before runs again.
        """
        async with self._applying:
            store, wanted = await self._ready(again=again, version=version)
            await asyncio.to_thread(store.activate, wanted)
            await self._agent.reboot(f"software {wanted.version}")
        if self.running != wanted.version:
            raise Refused("fell_back", f"{wanted.version} did not prove itself", "look at the image")

    # ------------------------------------------------------------ commands

    def command(self, delivery: Delivery) -> None:
        """Do a command once; the same one again gets the same answer."""
        command = codec.decode_command(delivery.payload)
        known = self._commands.get(command.id)
        if known is None:
            self._commands[command.id] = ("running", "")
            while len(self._commands) > COMMANDS_REMEMBERED_MAX:
                self._commands.popitem(last=False)
            self._agent.spawn(self._do(command, delivery.correlation))
        else:
            self._agent.spawn(self._respond(delivery.correlation, *known))

    async def _do(self, command: wire.CommandDocument, correlation: bytes | None) -> None:
        act = self._verbs.get(command.verb)
        try:
            if act is None:
                raise Rejected("unknown_verb")  # noqa: TRY301 - one place answers
            if command.verb in ("reboot", "activate", "rotate"):
                await self._respond(correlation, "accepted", "")
            if command.verb == "activate":
                await self._may_activate(command.args)
                await self._respond(correlation, "running", "")
            status, detail = "done", await act(command.args)
        except Rejected as rejected:
            status, detail = "rejected", rejected.code
        except StoreOpsError as error:
            status, detail = "failed", f"{error.code}: {error.message}"[:200]
        except OSError as error:
            status, detail = "failed", f"disk: {error}"[:200]
        self._commands[command.id] = (status, detail)
        await self._respond(correlation, status, detail)

    async def _respond(self, correlation: bytes | None, status: str, detail: str) -> None:
        response = msgspec.json.encode({"v": wire.VERSION, "status": status, "detail": detail})
        await self._agent.connected_within(RESPONSE_EXPIRY_S)
        with contextlib.suppress(LinkError):
            await self._agent.publish(Up.RESPONSE, response, expiry_s=RESPONSE_EXPIRY_S, correlation=correlation)

    async def _resync(self, _: Mapping[str, str | int]) -> str:
        self._agent.present()
        return ""

    async def _reboot(self, _: Mapping[str, str | int]) -> str:
        await self._agent.reboot("asked by command")
        return self._agent.boot

    async def _may_activate(self, args: Mapping[str, str | int]) -> None:
        if not self._idle() and args.get("now") != 1:
            raise Rejected("busy")
        await self._ready(again=args.get("again") == 1, version=args.get("version"))

    async def _activate(self, args: Mapping[str, str | int]) -> str:
        await self._switch(again=args.get("again") == 1, version=args.get("version"))
        return self.running

    async def _show_text(self, args: Mapping[str, str | int]) -> str:
        self.shown_text = str(args.get("text", ""))[:512]
        self._agent.say(self.shown_text)
        return ""

    async def _test_print(self, _: Mapping[str, str | int]) -> str:
        family = PROFILES.get(self._config.profile)
        if family is None or not family.has_printer:
            raise Rejected("no_printer")
        self._agent.say(f"--- {self._config.terminal} {datetime.now(UTC):%Y-%m-%d %H:%M} ---")
        return ""

    async def _rotate(self, args: Mapping[str, str | int]) -> str:
        """Fetch the next credential, connect with it, keep it; when it does not connect, the present one stays."""
        if self._credentials is None:
            raise Rejected("no_folder")
        present = await asyncio.to_thread(self._credentials.load)
        url, code = str(args.get("url", "")), str(args.get("code", ""))
        if present is None or not url or not code:
            raise Rejected("not_enrolled" if present is None else "bad_args")
        async with httpx.AsyncClient(timeout=HTTP_TIMEOUT_S) as http:
            fresh = await rotate(url, code, http, present)
        await self._try(self._credentials, fresh, present)
        return ""

    async def _try(self, store: CredentialStore, fresh: Credential, present: Credential) -> None:
        connected = await self._agent.reconnect(await asyncio.to_thread(store.config, fresh), self.rotated_s_max)
        if connected:
            await asyncio.to_thread(store.save, fresh)
            return
        await self._agent.reconnect(await asyncio.to_thread(store.config, present), self.rotated_s_max)
        raise RetryLater("not_let_in", "the broker does not take the new credential", "rotate again")

    async def note(self, reason: str) -> None:
        """Leave the reason of a restart for the next boot."""
        if self._note is not None:
            with contextlib.suppress(OSError):  # a full disk must not keep a stuck terminal stuck
                await asyncio.to_thread(note_restart, self._note, reason)
        else:
            self.restarted = {"reason": reason[:200], "at": datetime.now(UTC).isoformat(timespec="seconds")}
