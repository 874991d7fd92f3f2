"""Messages that nobody keeps: what it costs to carry them to an entity in another process, alone and in batches.

The same handler three times: behind an asyncio queue in this process, behind a Ray actor that gets batches of 256,
and behind the same actor with one call for each message. In a process of its own: the engine is started for it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable

from models.domain.errors import NeedsOperator
from runtime.bench.form import Row, row

ROUNDS = 3
START_S_MAX = 180.0

PROGRAM = """
import asyncio, json, sys, time
import ray

MESSAGES, ALONE, BATCH, AT_ONCE = 100_000, 2_000, 256, 8
ROUNDS = int(sys.argv[2])

class Entities:
    def __init__(self):
        self.seen = {}
    def handle(self, message):
        entity, _, body = message.partition(b"/")
        self.seen[entity] = self.seen.get(entity, 0) + 1
        return body
    async def batch(self, messages):
        return [self.handle(one) for one in messages]
    async def one(self, message):
        return self.handle(message)

def made(count):
    return [b"lane-%d/%032d" % (n % 1000, n) for n in range(count)]

async def raw():
    queue, entities, messages = asyncio.Queue(BATCH), Entities(), made(MESSAGES)
    async def consume():
        for _ in range(MESSAGES):
            entities.handle(await queue.get())
    began = time.perf_counter()
    consumer = asyncio.create_task(consume())
    for one in messages:
        await queue.put(one)
    await consumer
    return MESSAGES / (time.perf_counter() - began)

async def through(actor, size, count):
    messages, open_calls = made(count), set()
    began = time.perf_counter()
    for first in range(0, count, size):
        part = messages[first : first + size]
        call = actor.batch.remote(part) if size > 1 else actor.one.remote(part[0])
        open_calls.add(asyncio.ensure_future(asyncio.wrap_future(call.future())))
        if len(open_calls) >= AT_ONCE:
            _, open_calls = await asyncio.wait(open_calls, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.gather(*open_calls)
    return count / (time.perf_counter() - began)

async def main():
    actor = ray.remote(Entities).options(num_cpus=0).remote()
    await through(actor, 1, 200)
    rounds = []
    for _ in range(ROUNDS):
        rounds.append([await raw(), await through(actor, BATCH, MESSAGES), await through(actor, 1, ALONE)])
    print(json.dumps(rounds), flush=True)

ray.init(address="local", include_dashboard=False, log_to_driver=False, _temp_dir=sys.argv[1])
asyncio.run(main())
ray.shutdown()
"""


def measure(seconds: float, advance: Callable[[str], None]) -> list[Row]:
    """Medians of three interleaved rounds. Raises NeedsOperator when the engine does not start."""
    del seconds  # counted in messages
    with tempfile.TemporaryDirectory(prefix="so-b-") as folder:
        done = subprocess.run(
            (sys.executable, "-c", PROGRAM, folder, str(ROUNDS)),
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"},
            capture_output=True,
            text=True,
            timeout=START_S_MAX,
            check=False,
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith("[[")]
    if not lines:
        raise NeedsOperator("bench_ray", f"no figures: {done.stderr[-500:]}", "run `storeops doctor`")
    raw, batches, alone = (statistics.median(part) for part in zip(*json.loads(lines[0]), strict=True))
    advance("messages through Ray")
    what = "messages, not durable, through Ray in batches of 256"
    return [
        row(what, batches, "/s", "asyncio queue in one process", raw, ">= 0.25 x"),
        row(f"{what}, by calls", batches, "/s", "one Ray call for each message", alone, ">= 25 x"),
    ]
