"""Looking for planted bytes: in files, in shared memory, in a process; and the process that keeps a gallery.

Run as a program it is a face worker without eyes: it holds the keys, seals a member's template, keeps the gallery and
searches it. What it is told comes on standard input, a verb a line; it answers a line of JSON each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.domain.ids import ChainId, MemberId, RegionId
from models.domain.recognition import Embedding
from models.faces.templates import TemplateVault
from runtime import gallery_keeper
from runtime.gallery_keeper import GalleryKeeper, GallerySpec
from runtime.keyring import open_vault
from runtime.telemetry import configure_logs
from runtime.wash import Washing, wash

CHAIN, REGION = ChainId("sunrise"), RegionId("south")
NET, DIMENSION = "net", 128
SHM_FOLDER = Path("/dev/shm")
BLOCK_BYTES = 1 << 20
NEAR = 1e-5
WASH_EVERY_S = 0.2
_OVERLAP = 1024
_ZEROS = bytes(BLOCK_BYTES + _OVERLAP)

Patterns = Mapping[str, bytes]


def face(seed: int) -> Embedding:
    """Somebody's template, the same in every process."""
    vector = np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
    return Embedding((vector / np.linalg.norm(vector)).tobytes())


def spec(data: Path) -> GallerySpec:
    """The gallery of the deployment in this folder."""
    return GallerySpec(str(data), CHAIN, REGION, NET, DIMENSION)


# ---------------------------------------------------------------- looking


def found_in(chunks: Iterable[bytes], patterns: Patterns) -> set[str]:
    """Names of the patterns that occur; the chunks overlap or are whole."""
    found: set[str] = set()
    for chunk in chunks:
        if chunk == _ZEROS[: len(chunk)]:  # most of a process
            continue
        found |= {name for name, pattern in patterns.items() if name not in found and pattern in chunk}
    return found


def in_files(folders: Iterable[Path], patterns: Patterns) -> dict[str, set[str]]:
    """Which files hold which patterns, by path."""
    hits = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            try:
                if path.is_file() and (found := found_in([path.read_bytes()], patterns)):
                    hits[str(path)] = found
            except FileNotFoundError:  # a segment or a temporary file that went meanwhile
                continue
    return hits


def in_shared_memory(patterns: Patterns) -> set[str]:
    """In the galleries of every deployment on this machine."""
    return found_in((path.read_bytes() for path in SHM_FOLDER.glob("storeops-*")), patterns)


def row_like(vector: NDArray[np.float32]) -> bytes:
    """The bytes of the row in shared memory that is this unit vector, to the last bit as they lie there; or none.

    A vector that is rotated alone differs from one that was rotated among others in its last bits.
    """
    for path in SHM_FOLDER.glob("storeops-*"):
        words = np.nan_to_num(np.frombuffer(path.read_bytes(), np.float32).astype(np.float64))
        if words.size > DIMENSION:
            rows = np.lib.stride_tricks.sliding_window_view(np.clip(words, -2, 2), DIMENSION)[::16]
            near = np.flatnonzero(np.abs(rows - vector).max(axis=1) < NEAR)
            if near.size:
                return bytes(rows[near[0]].astype(np.float32).tobytes())
    return b""


def in_process(pid: int, patterns: Patterns) -> set[str]:
    """In everything that the process can write, shared memory included."""
    return found_in(_memory(pid), patterns)


def _memory(pid: int) -> Iterable[bytes]:
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            if not rights.startswith("rw"):
                continue
            at, end = (int(one, 16) for one in span.split("-"))
            while at < end:
                memory.seek(at)
                try:
                    yield memory.read(min(BLOCK_BYTES + _OVERLAP, end - at))
                except OSError:  # a mapping without pages behind it
                    break
                at += BLOCK_BYTES


# ---------------------------------------------------------------- the process


class KeeperProcess:
    """A gallery's keeper in a process of its own, on this folder's keys and this database."""

    def __init__(self, data: Path, database_url: str) -> None:
        command = [sys.executable, "-m", "tests.integration.planted", str(data), database_url]
        slim = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # its buffers are most of what there is to look through
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=slim, text=True)
        self.pid = self._process.pid

    def ask(self, verb: str, *arguments: object) -> Any:
        """One verb, its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([verb, *arguments]), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, f"the keeper ended with {self._process.wait()}"
        return json.loads(answer)

    def end(self) -> None:
        """End it, collect it, and remove the shared memory that it had."""
        maps = Path(f"/proc/{self.pid}/maps").read_text().splitlines()
        shared = {Path(line.split()[-1]) for line in maps if f" {SHM_FOLDER}/storeops-" in line}
        self._process.kill()
        self._process.communicate()
        for path in shared:
            path.unlink(missing_ok=True)


def main(data: Path, database_url: str) -> None:
    """The process: `seal seed member template`, `search seed`, `health`."""
    configure_logs(data, "keeper")
    setattr(gallery_keeper, "Washing", partial(Washing, WASH_EVERY_S))  # noqa: B010  # a test does not wait 5 s
    vault = open_vault(data / "secrets")
    keeper = GalleryKeeper(spec(data), vault, database_url)
    keeper.watch()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answered(keeper, vault, *json.loads(line))) + "\n")
        sys.stdout.flush()
        wash()  # as a worker does after an enrolment; here the probes are templates, too


def answered(keeper: GalleryKeeper, vault: TemplateVault, verb: str, *arguments: Any) -> Any:
    """What the process says to a verb."""
    if verb == "seal":
        seed, member, template = arguments
        made = vault.make_template(MemberId(member), template, NET, "production", face(seed))
        return {"ciphertext": made.template.ciphertext.hex(), "wrapped": made.key.wrapped.hex()}
    if verb == "search":
        best = keeper.galleries.in_region(CHAIN, face(*arguments)).result.best
        return best and [best.member, best.score]
    return keeper.health()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
