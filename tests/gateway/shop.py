"""A small shop that really runs: the port `Hosts` in memory, one host, one basket per lane, cash only."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from actors.hosts import COMMAND_CHANNEL, DESIRED_CHANNEL, Delivered, Delivery
from models.domain.errors import RetryLater
from models.domain.ids import LaneId, MessageId, RegionId, SessionId, StoreId, TerminalId
from models.domain.live import Changes, StoreTile, TerminalTile
from models.domain.screen import (
    Prompt,
    Receipt,
    ReceiptTender,
    ReplyBody,
    ReplyError,
    Screen,
    ScreenLine,
    ScreenMember,
    ScreenPaid,
    ScreenState,
)
from models.domain.twin import OrderResult

SHELF = {"6901234567892": ("矿泉水", 200), "6901234567908": ("三明治", 1250), "6901234567915": ("咖啡", 1800)}
POLL_S = 20.0


@dataclass(slots=True)
class _Lane:
    screen: Screen | None = None
    consented: bool = False
    replies: dict[str, Delivered] = field(default_factory=dict)


class SmallShop:
    """Every terminal is a lane of its own. A face is always that of one member, once consent was given."""

    def __init__(self, terminals: Sequence[TerminalTile]) -> None:
        self.tiles = {tile.terminal: tile for tile in terminals}
        self.stores = {tile.store: StoreTile(tile.store, 0, 0, 0, 0) for tile in terminals}
        self.away = False
        self.slots_now = 1
        self.epoch = 1
        self.version = 1
        self.changes_asked = 0
        self.orders: list[Delivery] = []
        self.order_result = OrderResult(True, gen=3)
        self.figures: dict[str, object] = {}
        self.turns = 0
        self._lanes: dict[TerminalId, _Lane] = {}
        self._moved: dict[TerminalId | StoreId, int] = {}
        self._news = asyncio.Condition()

    # ------------------------------------------------------------ the port

    async def deliver(self, region: RegionId, batch: Sequence[Delivery]) -> list[Delivered]:
        self._require_here()
        delivered = [self._handle(delivery) for delivery in batch]
        async with self._news:
            self._news.notify_all()
        return delivered

    async def changes(self, region: RegionId, slot: int, epoch: int, since: int) -> Changes:
        self._require_here()
        self.changes_asked += 1
        if epoch != self.epoch:
            return self._tell(True, tuple(self.tiles.values()), tuple(self.stores.values()))
        await self._wait(lambda: self.version > since or self.away)
        self._require_here()
        moved = {key for key, version in self._moved.items() if version > since}
        return self._tell(
            False,
            tuple(tile for tile in self.tiles.values() if tile.terminal in moved),
            tuple(tile for tile in self.stores.values() if tile.store in moved),
        )

    async def slots(self, region: RegionId) -> int:
        self._require_here()
        return self.slots_now

    async def health(self, region: RegionId, slot: int) -> Mapping[str, object]:
        self._require_here()
        return self.figures

    async def screen(self, region: RegionId, terminal: TerminalId, session: str, rev: int) -> bytes:
        self._require_here()

        def newer() -> bool:
            shown = self._lane(terminal).screen
            return shown is not None and (shown.session != session or shown.rev > rev)

        await self._wait(newer)
        shown = self._lane(terminal).screen
        return msgspec.json.encode(shown) if shown is not None else b""

    # ------------------------------------------------------------ hands for tests

    async def change(self, terminal: str, **values: Any) -> None:
        """Something happened at a terminal."""
        tile = self.tiles[TerminalId(terminal)]
        self._move(tile.terminal)
        self.tiles[tile.terminal] = replace(tile, **values)
        async with self._news:
            self._news.notify_all()

    async def go_away(self) -> None:
        """The host dies: every call is refused until `come_back`."""
        self.away = True
        async with self._news:
            self._news.notify_all()

    def come_back(self) -> None:
        """A new host in a new epoch."""
        self.away = False
        self.epoch += 1

    # ------------------------------------------------------------ inside

    def _require_here(self) -> None:
        if self.away:
            raise RetryLater("host_restarting", "the host restarts", "send the same again", after_s=1)

    def _lane(self, terminal: TerminalId) -> _Lane:
        return self._lanes.setdefault(terminal, _Lane())

    async def _wait(self, ready: Any) -> None:
        try:
            async with asyncio.timeout(POLL_S), self._news:
                await self._news.wait_for(ready)
        except TimeoutError:
            pass

    def _tell(self, full: bool, terminals: tuple[TerminalTile, ...], stores: tuple[StoreTile, ...]) -> Changes:
        return Changes(self.epoch, self.version, full, terminals, stores, datetime.now(UTC).isoformat())

    def _move(self, key: TerminalId | StoreId) -> None:
        self.version += 1
        self._moved[key] = self.version

    def _handle(self, delivery: Delivery) -> Delivered:
        if delivery.channel in (COMMAND_CHANNEL, DESIRED_CHANNEL):
            self.orders.append(delivery)
            return Delivered(msgspec.json.encode(self.order_result), b"")
        lane = self._lane(delivery.terminal)
        if delivery.channel == "face":
            message, kind, body = delivery.properties["id"], "face", {}
        else:
            try:
                event = msgspec.json.decode(delivery.payload)
                message, kind, body = event["id"], event["type"], event["body"]
            except (msgspec.DecodeError, KeyError, TypeError):
                reply = ReplyBody(None, False, error=ReplyError("bad_message", "cannot be decoded", "mend it"))
                return Delivered(msgspec.json.encode(reply), b"")
        if message in lane.replies:
            return lane.replies[message]
        self.turns += 1
        error = self._turn(delivery.terminal, lane, kind, body)
        session = lane.screen.session if lane.screen else None
        reply = ReplyBody(MessageId(message), error is None, session=session, error=error)
        screen = msgspec.json.encode(lane.screen) if lane.screen else b""
        lane.replies[message] = Delivered(msgspec.json.encode(reply), screen)
        return lane.replies[message]

    def _turn(self, terminal: TerminalId, lane: _Lane, kind: str, body: dict[str, Any]) -> ReplyError | None:
        live = lane.screen is not None and lane.screen.state not in (ScreenState.CLOSED, ScreenState.PAID)
        if kind == "session.open" or (kind == "scan" and not live):
            lane.consented = False
            lane.screen = Screen(
                SessionId(str(uuid.uuid4())),
                1,
                ScreenState.OPEN,
                prompt=Prompt("welcome", {}, "欢迎光临"),
                actions=("consent", "cancel"),
            )
        elif not live:
            return ReplyError("no_session", "没有进行中的顾客", "发送 session.open")
        assert lane.screen is not None
        match kind:
            case "scan":
                if body["code"] not in SHELF:
                    return ReplyError("unknown_item", "没有该商品", "检查条码")
                self._scan(lane, lane.screen, body["code"])
            case "consent":
                lane.consented = lane.consented or body["granted"]
                self._show(lane, prompt=Prompt("look_at_camera", {"shot": 1, "of": 1}, "请正视摄像头"))
            case "face":
                if not lane.consented:
                    return ReplyError("consent_missing", "尚未取得同意", "先征求同意")
                state = ScreenState.QUOTED if lane.screen.lines else ScreenState.IDENTIFIED
                self._show(lane, state=state, member=ScreenMember("张*"), prompt=None)
            case "confirm":
                if body["rev"] != lane.screen.rev:
                    return ReplyError("stale_rev", "屏幕已更新", "按新屏幕确认")
                self._pay(terminal, lane, lane.screen)
            case "cancel":
                self._show(lane, state=ScreenState.CLOSED, prompt=None, actions=("session.open",))
            case _:
                pass
        self._tile(terminal, lane.screen)
        return None

    def _show(self, lane: _Lane, **values: Any) -> None:
        assert lane.screen is not None
        lane.screen = replace(lane.screen, rev=lane.screen.rev + 1, **values)

    def _scan(self, lane: _Lane, screen: Screen, code: str) -> None:
        name, fen = SHELF[code]
        lines = (*screen.lines, ScreenLine(len(screen.lines) + 1, code, name, 1, fen, 0, fen))
        due = sum(line.net_fen for line in lines)
        self._show(
            lane,
            state=ScreenState.QUOTED,
            lines=lines,
            gross_fen=due,
            due_fen=due,
            cash_due_fen=due // 10 * 10,
            prompt=None,
            actions=("confirm", "consent", "cancel"),
        )

    def _pay(self, terminal: TerminalId, lane: _Lane, screen: Screen) -> None:
        fen = screen.cash_due_fen
        receipt = Receipt("R-1", screen.lines, (ReceiptTender("cash", fen),), "谢谢惠顾\n现金 ¥" + f"{fen / 100:.2f}")
        self._show(
            lane,
            state=ScreenState.PAID,
            paid=(ScreenPaid("cash", fen, fen),),
            receipt=receipt,
            prompt=Prompt("thank_you", {}, "谢谢惠顾"),
            actions=("session.open",),
        )
        store = self.stores[self.tiles[terminal].store]
        self.stores[store.store] = replace(store, sales=store.sales + 1, takings_fen=store.takings_fen + fen)
        self._move(store.store)

    def _tile(self, terminal: TerminalId, _before: Screen) -> None:
        screen = self._lane(terminal).screen
        assert screen is not None
        self._move(terminal)
        self.tiles[terminal] = replace(
            self.tiles[terminal],
            state=str(screen.state),
            prompt=screen.prompt.code if screen.prompt else "",
            member=screen.member.name if screen.member else "",
            due_fen=screen.due_fen if screen.state in (ScreenState.QUOTED, ScreenState.PAYING) else 0,
            changed_ms=int(time.time() * 1000),
        )


def tiles(stores: int, per_store: int = 3) -> list[TerminalTile]:
    """Idle terminals `t-001-1` and so on, in stores `s-001` and so on."""
    return [
        TerminalTile(
            TerminalId(f"t-{store:03}-{n}"),
            StoreId(f"s-{store:03}"),
            LaneId(f"lane-{n}"),
            "face",
            "dragonfly-2",
            online=True,
        )
        for store in range(1, stores + 1)
        for n in range(1, per_store + 1)
    ]
