"""Topics of the terminal protocol: `so/1/{region}/{shard}/{store}/{terminal}/{up|down}/{channel}`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from devices.refusals import Undecodable, WireCode
from models.domain.ids import SHARDS_TOTAL, RegionId, StoreId, TerminalId, is_topic_level, shard_of
from models.domain.registry import RegisteredTerminal

ROOT = "so/1"


class Up(StrEnum):
    """Channels that a terminal writes."""

    PRESENCE = "presence"
    REPORTED = "reported"
    EVENT = "event"
    FACE = "face"
    TELEMETRY = "telemetry"
    RESPONSE = "response"


class Down(StrEnum):
    """Channels that a terminal reads."""

    DESIRED = "desired"
    SCREEN = "screen"
    REPLY = "reply"
    COMMAND = "command"


_CHANNELS: dict[tuple[str, str], Up | Down] = {
    **{("up", channel.value): channel for channel in Up},
    **{("down", channel.value): channel for channel in Down},
}


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic, taken apart and checked: its levels are well-formed and the shard is the store's."""

    region: RegionId
    store: StoreId
    terminal: TerminalId
    channel: Up | Down

    @property
    def shard(self) -> int:
        """The store's shard, 0..255."""
        return shard_of(self.store)

    def __str__(self) -> str:
        way = "up" if isinstance(self.channel, Up) else "down"
        return f"{prefix(self.region, self.store, self.terminal)}/{way}/{self.channel.value}"


def prefix(region: RegionId, store: StoreId, terminal: TerminalId) -> str:
    """The part of a terminal's topics before `/up` and `/down`: its address on the wire."""
    return f"{ROOT}/{region}/{shard_of(store):02x}/{store}/{terminal}"


def topic_of(terminal: RegisteredTerminal, channel: Up | Down) -> Topic:
    """A topic of a registered terminal."""
    return Topic(terminal.region, terminal.store, terminal.terminal, channel)


@lru_cache(maxsize=65_536)
def parse(text: str) -> Topic:
    """Take a topic apart.

    Raises Undecodable: `bad_topic` when a level is missing, unknown or not `[a-z0-9-]{1,48}`, `wrong_shard` when
    the shard is not the first byte of sha256(store id).
    """
    levels = text.split("/")
    if len(levels) != 8 or levels[0] != "so" or levels[1] != "1":
        raise _bad(f"{_shown(text)} is not so/1/{{region}}/{{shard}}/{{store}}/{{terminal}}/{{way}}/{{channel}}")
    for level in levels:
        if not is_topic_level(level):
            raise _bad(f"level {_shown(level)} of the topic is not [a-z0-9-]{{1,48}}")
    _, _, region, shard, store, terminal, way, name = levels
    channel = _CHANNELS.get((way, name))
    if channel is None:
        raise _bad(f"there is no channel {way}/{name}")
    if shard != f"{shard_of(StoreId(store)):02x}":
        raise Undecodable(
            WireCode.WRONG_SHARD,
            f"shard {shard} is not the shard of store {store}: it is {shard_of(StoreId(store)):02x}",
            "take the shard from the topic prefix that was given at registration",
        )
    return Topic(RegionId(region), StoreId(store), TerminalId(terminal), channel)


def require_registered(topic: Topic, terminal: RegisteredTerminal) -> None:
    """Hold a topic against the registry, because a broker's access list is not always there.

    Raises Undecodable `wrong_store` unless region, store and terminal are the registered ones.
    """
    if (topic.region, topic.store, topic.terminal) != (terminal.region, terminal.store, terminal.terminal):
        raise Undecodable(
            WireCode.WRONG_STORE,
            f"terminal {terminal.terminal} is registered at {terminal.region}/{terminal.store}",
            "use the topic prefix that was given at registration, or register the terminal anew",
        )


def host_filters(region: RegionId, shards: Iterable[int]) -> tuple[str, ...]:
    """What a host subscribes: each channel of each of its shards, or of all 256 of them at once.

    Never a shared subscription: a persistent offline member of a share parks a part of the messages.
    """
    owned = sorted(set(shards))
    if not is_topic_level(region):
        raise ValueError(f"{region!r} cannot be a region: not [a-z0-9-]{{1,48}}")
    if not owned or owned[0] < 0 or owned[-1] >= SHARDS_TOTAL:
        raise ValueError(f"shards are 0..{SHARDS_TOTAL - 1}, at least one")
    if len(owned) == SHARDS_TOTAL:
        return up_filters(f"{ROOT}/{region}/+/+/+")
    return tuple(text for shard in owned for text in up_filters(f"{ROOT}/{region}/{shard:02x}/+/+"))


def up_filters(prefix: str) -> tuple[str, ...]:
    """Every channel that a terminal writes, one by one: their QoS differs."""
    return tuple(f"{prefix}/up/{channel.value}" for channel in Up)


def qos_of(text: str) -> int:
    """Of a subscription. Faces are taken with QoS 0: what a broker may have to send again it keeps, and a broker that
    persists writes it to a disk. A face that came to nobody is sent again by its terminal."""
    return 0 if text.endswith(f"/up/{Up.FACE.value}") else 1


def filters_before(filters: Iterable[str]) -> list[str]:
    """What earlier versions subscribed in place of these, all channels with QoS 1: a session would keep both."""
    return sorted({text.removesuffix(Up.FACE.value) + "#" for text in filters if not qos_of(text)})


def _bad(message: str) -> Undecodable:
    return Undecodable(WireCode.BAD_TOPIC, message, "use the topics of the terminal protocol, version 1")


def _shown(text: str) -> str:
    """A foreign text as it may stand in a message: short, quoted, printable."""
    return ascii(text if len(text) <= 60 else text[:60] + "...")
