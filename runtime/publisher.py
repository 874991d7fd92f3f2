"""What a host publishes after its commit: replies and screens. Also who waits for them on this side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from actors.screens import render
from actors.visit import Session
from devices import codec
from devices.bridge import Bridge
from devices.link import Outgoing
from devices.profiles import PROFILES
from devices.profiles.fitting import fit
from models.domain.ids import LaneId, StoreId, TerminalId
from models.domain.registry import RegisteredTerminal
from models.domain.screen import ReplyBody, Screen
from runtime.directory import Directory
from runtime.telemetry import HostCounts

PUBLISH_S_MAX = 1.0
"""How long a batch waits for the broker; what it was asked to publish stays on its way."""
UNACKNOWLEDGED_MESSAGES_MAX = 16_384
"""On their way at the same time; beyond it nothing is sent until the broker has caught up."""
SCREEN_POLL_S = 20.0
SHOWN_AGAIN_AT_ONCE = 256

LaneKey = tuple[StoreId, LaneId]


class LaneScreen:
    """One lane's screen for each of its members: fitted to family and role, encoded once for all who show the same."""

    def __init__(self, screen: Screen, members: Sequence[RegisteredTerminal]) -> None:
        self._screen = screen
        self._families = [PROFILES[one.profile] for one in members if one.profile in PROFILES]
        self._whole: bytes | None = None
        self._fitted: dict[tuple[str, str], bytes] = {}

    def bytes_for(self, member: RegisteredTerminal) -> bytes:
        """Wire JSON. A family that this release does not know gets everything."""
        profile = PROFILES.get(member.profile)
        key = (member.profile, member.role)
        found = self._fitted.get(key)
        if found is not None:
            return found
        fitted = self._screen if profile is None else fit(self._screen, profile, member.role, self._families)
        if fitted is not self._screen:
            encoded = codec.encode_screen(fitted)
        else:
            encoded = self._whole = self._whole or codec.encode_screen(self._screen)
        self._fitted[key] = encoded
        return encoded


class Publisher:
    """The newest screen of a lane, and the way out to its terminals."""

    def __init__(
        self, directory: Directory, counts: HostCounts, visit: Callable[[StoreId, LaneId], Session | None]
    ) -> None:
        """`visit`: the lane's session as committed, if the host holds it."""
        self._directory = directory
        self._counts = counts
        self._visit = visit
        self._owed: set[LaneKey] = set()
        self._moved = asyncio.Event()
        self._on_the_way: dict[asyncio.Task[int], int] = {}
        self._replies: set[tuple[bytes, bytes]] = set()
        self._waiting: dict[tuple[TerminalId, str], list[asyncio.Future[ReplyBody]]] = {}

    def screen(self, store: StoreId, lane: LaneId) -> Screen | None:
        """The lane's newest screen, drawn from its visit: it is not kept."""
        visit = self._visit(store, lane)
        if visit is None or visit.id is None:
            return None
        return render(visit, self._directory.book_of(store, visit.book_version if visit.live else 0))

    def screen_bytes(self, record: RegisteredTerminal) -> bytes:
        """The same as wire JSON, as this terminal shows it; empty before the first."""
        screen = self.screen(record.store, record.lane)
        return LaneScreen(screen, self._directory.lane(record.store, record.lane)).bytes_for(record) if screen else b""

    async def publish(
        self, bridge: Bridge, screens: Mapping[LaneKey, Screen], replies: Sequence[tuple[TerminalId, ReplyBody]]
    ) -> None:
        """Publish a batch's screens and replies; returns at the broker's PUBACKs, a second later at most.

        A reply that is on its way already is not sent a second time: it answers the repeat too. What is lost here is
        not lost: a terminal asks again until its reply, and a screen is shown again.
        """
        messages: list[Outgoing] = []
        for (store, lane), screen in screens.items():
            members = self._directory.lane(store, lane)
            shown = LaneScreen(screen, members)
            messages += [bridge.screen_message(one, shown.bytes_for(one)) for one in members]
        answers: list[Outgoing] = []
        for terminal, reply in replies:
            record = self._directory.terminal(terminal)
            if record is None:
                continue
            answer = bridge.reply_message(record, reply)
            if _same(answer) not in self._replies:
                self._replies.add(_same(answer))
                answers.append(answer)

        def ended(failed: int) -> None:
            self._replies.difference_update([_same(one) for one in answers])
            if failed:
                self._owed.update(screens)

        await self._send(bridge, [*messages, *answers], ended)
        self._tell_waiters(screens, replies)

    async def stop(self) -> None:
        """Give up what is still on its way."""
        sending = list(self._on_the_way)
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)

    async def show_owed(self, bridge: Bridge) -> None:
        """The screens that the broker did not take in time, as they are now."""
        owed, self._owed = self._owed, set()
        lanes = [self._directory.lane(store, lane) for store, lane in sorted(owed)]
        await self.show_again(bridge, [one for members in lanes for one in members])

    async def show_again(self, bridge: Bridge, records: Sequence[RegisteredTerminal]) -> None:
        """The newest screens once more, for terminals that were born again or a broker that forgot."""
        for first in range(0, len(records), SHOWN_AGAIN_AT_ONCE):
            some = [(record, self.screen_bytes(record)) for record in records[first : first + SHOWN_AGAIN_AT_ONCE]]
            await self._send(bridge, [bridge.screen_message(record, encoded) for record, encoded in some if encoded])

    async def _send(
        self, bridge: Bridge, messages: Sequence[Outgoing], ended: Callable[[int], None] = lambda _: None
    ) -> None:
        """Send them all and wait, a second at most. `ended` hears how many the broker did not take, once it is known.

        Giving up would be worse than late: the terminals would ask again, and a slow broker would get twice as much.
        """
        if not messages:
            return
        if sum(self._on_the_way.values()) + len(messages) > UNACKNOWLEDGED_MESSAGES_MAX:
            self._counts.publish_failures += len(messages)
            ended(len(messages))
            return

        def done(task: asyncio.Task[int]) -> None:
            del self._on_the_way[task]
            failed = len(messages) if task.cancelled() or task.exception() is not None else task.result()
            self._counts.publish_failures += failed
            ended(failed)

        task = asyncio.create_task(bridge.publish_all(messages), name="publish")
        self._on_the_way[task] = len(messages)
        task.add_done_callback(done)
        await asyncio.wait({task}, timeout=PUBLISH_S_MAX)
        if task.done():
            task.result()  # a bug's exception goes on to the caller

    # ------------------------------------------------------------ who waits on this side

    def wait_reply(self, terminal: TerminalId, message: str) -> asyncio.Future[ReplyBody]:
        """A future of the reply to one message."""
        waiter: asyncio.Future[ReplyBody] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault((terminal, message), []).append(waiter)
        return waiter

    def forget(self, terminal: TerminalId, message: str) -> None:
        """Nobody waits for that reply any more."""
        self._waiting.pop((terminal, message), None)

    def _tell_waiters(self, screens: Mapping[LaneKey, Screen], replies: Sequence[tuple[TerminalId, ReplyBody]]) -> None:
        for terminal, reply in replies:
            for waiter in self._waiting.pop((terminal, reply.id or ""), []):
                if not waiter.done():
                    waiter.set_result(reply)
        if screens:
            self._moved.set()
            self._moved = asyncio.Event()

    async def newer_screen(self, record: RegisteredTerminal, session: str, rev: int) -> bytes:
        """The lane's screen once it is newer than (session, rev); after 20 s whatever there is."""
        try:
            async with asyncio.timeout(SCREEN_POLL_S):
                while True:
                    visit = self._visit(record.store, record.lane)
                    if visit is not None and visit.id is not None and (visit.id != session or visit.rev > rev):
                        break
                    await self._moved.wait()
        except TimeoutError:
            pass
        return self.screen_bytes(record)


def _same(reply: Outgoing) -> tuple[bytes, bytes]:
    """What makes two replies one: where they go, and every byte."""
    return reply.topic, reply.payload
