"""What a terminal asks and is answered when it enrols or rotates, and who answers: docs/terminal-protocol.md."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated, Protocol, TypedDict

from msgspec import Meta, Struct


class EnrolRequest(Struct, frozen=True):
    """A one-time code, and a certificate request when the code is for a certificate. `terminal`: of a rotation."""

    code: Annotated[str, Meta(min_length=8, max_length=128)]
    terminal: Annotated[str, Meta(max_length=48)] | None = None
    csr: Annotated[str, Meta(max_length=8_192)] | None = None


class BrokerPlace(TypedDict):
    """Where the broker is; `ca` null: the system's authorities signed its certificate."""

    host: str
    port: int
    tls: bool
    ca: str | None


class Enrolment(Struct, frozen=True):
    """The answer; exactly one of `secret` and `certificate`."""

    terminal: str
    region: str
    store: str
    profile: str
    topic_prefix: str
    broker: BrokerPlace
    secret: str | None
    certificate: str | None


class Enrols(Protocol):
    """Who trades codes for credentials. Raises Refused as docs/terminal-protocol.md names the codes."""

    async def redeem(self, request: EnrolRequest, address: str, *, rotates: bool) -> Enrolment: ...


class GuessLimit:
    """How many wrong codes an address may send, and how many requests there may be in all; refusals cost nothing."""

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        *,
        wrong_max: int = 20,
        wrong_within_s: float = 600.0,
        requests_per_s_max: int = 50,
        addresses_max: int = 10_000,
    ) -> None:
        self._now = now
        self._wrong_max, self._wrong_within_s = wrong_max, wrong_within_s
        self._requests_per_s_max = requests_per_s_max
        self._addresses_max = addresses_max
        self._wrong: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._second, self._requests = 0, 0

    def full(self) -> bool:
        """Count a request; True when this second has had enough of them."""
        second = int(self._now())
        if second != self._second:
            self._second, self._requests = second, 0
        self._requests += 1
        return self._requests > self._requests_per_s_max

    def barred_s(self, address: str) -> float:
        """How long this address has to wait; 0: it may ask."""
        began, wrong = self._wrong.get(address, (0.0, 0))
        left = began + self._wrong_within_s - self._now()
        return left if wrong >= self._wrong_max and left > 0 else 0.0

    def wrong(self, address: str) -> None:
        """That was no code of ours."""
        began, wrong = self._wrong.get(address, (self._now(), 0))
        if self._now() - began >= self._wrong_within_s:
            began, wrong = self._now(), 0
        self._wrong[address] = (began, wrong + 1)
        self._wrong.move_to_end(address)
        if len(self._wrong) > self._addresses_max:
            self._wrong.popitem(last=False)
