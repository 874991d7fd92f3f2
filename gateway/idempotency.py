"""The same key asks for the same effect: one effect, one answer (draft-ietf-httpapi-idempotency-key-header)."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.errors import Problem
from models.domain.errors import RetryLater


@dataclass(slots=True)
class _Call:
    digest: bytes
    answer: bytes | None = None


class IdempotentCalls:
    """Answers of this process by key, at most `keys_max`; the oldest finished one makes room.

    Kept in memory: each effect behind it is safe to repeat by its own unique numbers, so a key that was lost
    in a restart costs a repeated look, never a second effect.
    """

    def __init__(self, keys_max: int) -> None:
        self._keys_max = keys_max
        self._calls: OrderedDict[str, _Call] = OrderedDict()

    async def run(self, key: str, body: bytes, effect: Callable[[], Awaitable[bytes]]) -> bytes:
        """The answer to `body` under `key`, from the first time on; an effect that raised may be tried again.

        Raises Problem 409 while the first call runs, 422 for another body under the same key.
        """
        digest = hashlib.sha256(body).digest()
        known = self._calls.get(key)
        if known is not None:
            if known.digest != digest:
                raise Problem(422, "idempotency_key_reused", "the key was used with another body", "use a new key")
            if known.answer is None:
                raise Problem(409, "in_flight", "the first call still runs", "ask again with the same key")
            return known.answer
        self._make_room()
        call = self._calls[key] = _Call(digest)
        try:
            call.answer = await effect()
        finally:
            if call.answer is None:
                del self._calls[key]
        return call.answer

    def _make_room(self) -> None:
        if len(self._calls) < self._keys_max:
            return
        oldest = next((key for key, call in self._calls.items() if call.answer is not None), None)
        if oldest is None:
            raise RetryLater("busy", "too many calls are in flight", "try again in a moment", after_s=1)
        del self._calls[oldest]
