"""Simulated terminals of a chain for a rehearsal: good ones, and each kind of bad one, on a clock that is handed in.

Seeded: the same seed makes the same chain, the same faults and the same delays. Shares of faults are shares of stores;
in a faulty store one terminal has the fault (offline: the whole store).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from heapq import heappop, heappush

from actors.rollout_effects import Activate, SetDesired
from actors.rollout_work import Order
from devices.fleet.orders import Fault
from models.domain.ids import RegionId, StoreId, TerminalId
from models.domain.rollout import (
    Artefact,
    ArtefactKey,
    ArtefactKind,
    Device,
    Observed,
    Reason,
    Site,
    digest_of,
    version_in,
)
from models.domain.rollout_plan import draw

BUSY_PER_MILLE, BUSY_ANSWERS = 100, 2
"""Terminals that serve somebody when they are told to start, and how often each says so."""
LOST_PER_MILLE = 30
"""Terminals to which the first command does not come."""
COMMAND_S = 30
REGIONS = ("guangzhou", "shenzhen", "foshan", "dongguan", "zhuhai")
FORMATS = ("street", "office", "station")
ROLES = (("till", "till"), ("face", "dragonfly-1"), ("screen", "dragonfly-extension"))
ZONE = "Asia/Shanghai"
OLD, NEW = "1.0", "2.0"


@dataclass(frozen=True, slots=True)
class Shares:
    """Faulty stores in per mille of all."""

    failing: int = 30
    offline: int = 50
    lying: int = 10
    flapping: int = 10


BAD = Shares()
GOOD = Shares(failing=0, lying=0, flapping=0)


def chain_of(stores: int, terminals: int = 3) -> tuple[Site, ...]:
    """A chain of so many stores with 1..3 terminals each, in five regions and three formats."""
    return tuple(_site(number, terminals) for number in range(1, stores + 1))


def _site(number: int, terminals: int) -> Site:
    store = StoreId(f"s-{number:05d}")
    devices = tuple(Device(TerminalId(f"{store}-{role}"), role, profile) for role, profile in ROLES[:terminals])
    return Site(store, RegionId(REGIONS[number % 5]), ZONE, devices, {"format": FORMATS[number // 5 % len(FORMATS)]})


def faults_of(sites: Iterable[Site], shares: Shares, seed: int) -> dict[TerminalId, Fault]:
    """The fault of each terminal that has one."""
    found: dict[TerminalId, Fault] = {}
    order = sorted(sites, key=lambda site: draw(seed, "fault", site.store))
    bad = iter(order)
    for share, faults in (
        (shares.offline, (Fault.OFFLINE,)),
        (shares.failing, (Fault.REFUSES, Fault.SILENT, Fault.UNWELL)),
        (shares.lying, (Fault.SAYS_DONE, Fault.OLD_BOOT)),
        (shares.flapping, (Fault.FLAPS,)),
    ):
        for n in range(round(len(order) * share / 1000)):
            site = next(bad)
            if faults[0] is Fault.OFFLINE:
                found.update((one.terminal, Fault.OFFLINE) for one in site.terminals)
            else:
                victim = site.terminals[draw(seed, "victim", site.store) % min(2, len(site.terminals))]
                found[victim.terminal] = faults[n % len(faults)]
    return found


@dataclass(slots=True)
class _Device:
    """The truth of one terminal, as against what it says."""

    runs: str
    fault: Fault
    wants: str
    """The version in the document that it applied; "": none."""
    boots: int = 1
    busy: int = 0
    """How often it will say so."""
    deaf: bool = False
    """The next command is lost."""


class World:
    """All terminals: takes orders, and shows what their desired documents and reports say at `now`."""

    def __init__(self, sites: Iterable[Site], artefact: Artefact, shares: Shares, seed: int) -> None:
        self.sites = tuple(sites)
        self.artefact = artefact
        self.seed = seed
        self.faults = faults_of(self.sites, shares, seed)
        self.seen: dict[TerminalId, Observed] = {}
        self._devices: dict[TerminalId, _Device] = {}
        self._due: list[tuple[datetime, int, TerminalId, str, str]] = []
        self._count = 0
        self._before = _payload(artefact.kind, OLD)
        for site in self.sites:
            for one in site.terminals:
                fault = self.faults.get(one.terminal, Fault.NONE)
                # A fifth of the chain was delivered with its software and never told to run any.
                bare = artefact.kind.boots and draw(seed, "bare", one.terminal) % 5 == 0
                part = "" if bare else self._before
                busy = BUSY_ANSWERS if draw(seed, "busy", one.terminal) % 1000 < BUSY_PER_MILLE else 0
                deaf = draw(seed, "deaf", one.terminal) % 1000 < LOST_PER_MILLE
                wants = version_in(artefact.kind, part)
                self._devices[one.terminal] = _Device(OLD, fault, wants, busy=busy, deaf=deaf)
                self.seen[one.terminal] = Observed(
                    gen=1,
                    part=part,
                    config_hash=digest_of(part),
                    online=fault is not Fault.OFFLINE,
                    applied_gen=1,
                    reported_hash=digest_of(part),
                    software=OLD,
                    boot=f"{one.terminal}/1",
                )

    # ------------------------------------------------------------ orders

    def take(self, order: Order, now: datetime) -> None:
        """Carry one order out, as the hosts do: a desired document by compare-and-set, a command to who is there."""
        sight = self.seen[order.target]
        if isinstance(order, Activate):
            # A command of its own: what was said to the one before counts no more.
            self.seen[order.target] = replace(sight, refused="", said_done_at=None, not_yet=Reason.NONE)
            self._later(order.target, now, 1, 3, "activate", order.version)
            return
        if order.expected_gen != sight.gen:
            return
        if isinstance(order, SetDesired) and order.part == sight.part:
            return
        self.seen[order.target] = replace(
            sight, gen=sight.gen + 1, part=order.part, config_hash=digest_of(order.part), refused="", said_done_at=None
        )
        if not sight.online:
            return
        self._later(order.target, now, 1, 10, "document" if self.artefact.kind.boots else "apply", "")

    def _later(self, target: TerminalId, now: datetime, low_s: int, high_s: int, what: str, about: str) -> None:
        self._count += 1
        wait = low_s + draw(self.seed, what, target, str(self._count)) % (high_s - low_s + 1)
        heappush(self._due, (now + timedelta(seconds=wait), self._count, target, what, about))

    # ------------------------------------------------------------ time

    @property
    def next_due(self) -> datetime | None:
        """When something happens next."""
        return self._due[0][0] if self._due else None

    def advance(self, now: datetime) -> None:
        """Let everything happen that is due."""
        while self._due and self._due[0][0] <= now:
            at, _, target, what, about = heappop(self._due)
            self._happens(target, what, about, at)

    def _happens(self, target: TerminalId, what: str, about: str, at: datetime) -> None:
        device, sight = self._devices[target], self.seen[target]
        match what:
            case "document" if sight.online:  # else the boot applies it
                self._document(target, device, sight, at)
            case "fetch" if about == device.wants:
                self.seen[target] = replace(sight, fetched=about)
            case "apply":
                self._apply(target, device, sight, at)
            case "activate" if not sight.online or device.deaf:
                device.deaf = False
                self._later(target, at, COMMAND_S, COMMAND_S, "expired", "")
            case "activate":
                not_yet = self._not_yet(device, sight, about)
                if not_yet is Reason.NONE:
                    self._activate(target, device, sight, about, at)
                else:
                    self.seen[target] = replace(sight, not_yet=not_yet)
            case "expired" if sight.online:
                self.seen[target] = replace(sight, not_yet=Reason.NO_ANSWER)
            case "up":
                device.runs = about
                self._boot(target, device)
                well = device.fault is not Fault.UNWELL or not self._new(about)
                self.seen[target] = replace(
                    self.seen[target], online=True, software=about, healthy=well, said_done_at=None
                )
                self._document(target, device, self.seen[target], at)
                if device.fault is Fault.FLAPS and self._new(about):
                    self._later(target, at, 300, 900, "flap", about)
            case "flap" if device.runs == about:
                self._boot(target, device)
                self._later(target, at, 300, 900, "flap", about)
            case "well" if not sight.healthy:
                self.seen[target] = replace(sight, healthy=True)
                self._later(target, at, 300, 900, "unwell", about)
            case "unwell" if sight.part == self.artefact.payload:
                self.seen[target] = replace(sight, healthy=False)
                self._later(target, at, 60, 120, "well", about)
            case _:
                pass

    def _document(self, target: TerminalId, device: _Device, sight: Observed, at: datetime) -> None:
        """The newest document is applied; what it wants and does not run is fetched."""
        device.wants = version_in(self.artefact.kind, sight.part)
        fetched = sight.fetched if sight.fetched == device.wants else ""
        self.seen[target] = replace(sight, fetched=fetched, applied_gen=sight.gen, reported_hash=sight.config_hash)
        if device.wants not in ("", sight.software, fetched):
            self._later(target, at, 60, 1200, "fetch", device.wants)

    @staticmethod
    def _not_yet(device: _Device, sight: Observed, version: str) -> Reason:
        """What a terminal answers that does not start now: its document decides, whenever a command comes."""
        if device.wants in ("", sight.software):
            return Reason.NOTHING_TO_ACTIVATE
        if device.wants != version:
            return Reason.OTHER_VERSION
        if sight.fetched != version:
            return Reason.NOT_FETCHED
        if device.busy:
            device.busy -= 1
            return Reason.BUSY
        return Reason.NONE

    def _new(self, version: str) -> bool:
        return version == self.artefact.version

    def _boot(self, target: TerminalId, device: _Device) -> None:
        device.boots += 1
        self.seen[target] = replace(self.seen[target], boot=f"{target}/{device.boots}")

    def _activate(self, target: TerminalId, device: _Device, sight: Observed, version: str, at: datetime) -> None:
        fault = device.fault if self._new(version) else Fault.NONE
        match fault:
            case Fault.REFUSES:
                self.seen[target] = replace(sight, refused="self test failed")
            case Fault.SILENT:
                self._later(target, at, COMMAND_S, COMMAND_S, "expired", "")
            case Fault.SAYS_DONE:
                self.seen[target] = replace(sight, said_done_at=at)
            case Fault.OLD_BOOT:
                self.seen[target] = replace(sight, software=version)
            case _:
                if sight.software == version:
                    return
                self.seen[target] = replace(sight, online=False, said_done_at=at)
                self._later(target, at, 30, 120, "up", version)

    def _apply(self, target: TerminalId, device: _Device, sight: Observed, at: datetime) -> None:
        """Configuration and books: the document is taken over without a new start."""
        ours = sight.part == self.artefact.payload
        fault = device.fault if ours else Fault.NONE
        wanted = self.artefact.version if ours else OLD
        done = replace(sight, applied_gen=sight.gen, reported_hash=sight.config_hash, healthy=True)
        match fault:
            case Fault.SILENT:
                return
            case Fault.REFUSES:
                done = replace(sight, refused="cannot do that")
            case Fault.UNWELL:
                device.runs, done = wanted, replace(done, healthy=False)
            case Fault.SAYS_DONE | Fault.OLD_BOOT:
                done = replace(done, reported_hash=sight.reported_hash)
            case Fault.FLAPS:
                device.runs = wanted
                self._later(target, at, 300, 900, "unwell", "")
            case _:
                device.runs = wanted
        self.seen[target] = done

    # ------------------------------------------------------------ the truth

    def between_versions(self) -> Iterator[TerminalId]:
        """Terminals whose document, report and truth are not of one version."""
        for target, device in self._devices.items():
            sight = self.seen[target]
            new = sight.part == self.artefact.payload
            right = self.artefact.version if new else OLD
            told = not self.artefact.kind.boots or sight.software == right
            if device.runs != right or not told:
                yield target

    def runs_new(self, target: TerminalId) -> bool:
        """True when it really runs the new version."""
        return self._devices[target].runs == self.artefact.version


def artefact_for(kind: ArtefactKind) -> Artefact:
    """What a rehearsal rolls out, of a kind that the policy is for: 1.0 becomes 2.0."""
    payload, fallback = _payload(kind, NEW), _payload(kind, OLD) if kind.boots else ""
    return Artefact(kind, ArtefactKey(f"{kind}/rehearsal"), NEW, payload, digest_of(payload), fallback)


def _payload(kind: ArtefactKind, version: str) -> str:
    if kind.boots:
        document = {
            "version": version,
            "url": f"http://127.0.0.1/images/{version}",
            "sha256": digest_of(version),
            "size_bytes": 1_000_000,
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":"))
    if kind in (ArtefactKind.CONFIG, ArtefactKind.FLAG):
        return json.dumps({"volume": version}, separators=(",", ":"))
    return f"rehearsal-{version}"
