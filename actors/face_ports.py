"""What a face worker needs: eyes, a gallery per chain, a vault. Bound by the runtime to models.faces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from models.domain.face_quality import FaceKind, LookPurpose, QualityPolicy
from models.domain.gallery import NewRow, Where
from models.domain.ids import MemberId
from models.domain.messages import KeyRow, SealedTemplate, TemplateKind, TemplateRow
from models.domain.recognition import Embedding, SearchResult, Seen, Unseen


class Eyes(Protocol):
    """Detector, aligner and net in one."""

    net_sha256: str

    def look(self, jpeg: bytes, *, kind: FaceKind, purpose: LookPurpose, policy: QualityPolicy) -> Seen | Unseen:
        """A face or the reason; never raises on any bytes."""

    def combine(self, shots: list[Embedding], agreement_min: float) -> Embedding | tuple[int, ...]:
        """The mean of shots that agree, else the positions of those that do."""


class SearchableGallery(Protocol):
    """Templates of one chain and region. A process that may only search ignores what would change it."""

    @property
    def version(self) -> int:
        """The change up to which it is searchable; 0: it was never loaded."""

    @property
    def whole(self) -> bool:
        """All templates that were committed at its load are inside."""

    def __len__(self) -> int: ...
    def __contains__(self, member: object) -> bool: ...

    def begin_load(self, expected: int = 0) -> None:
        """Empty it; searches are partial until `end_load`."""

    def end_load(self, version: int) -> None:
        """All of it is there, as committed up to `version`."""

    def advance(self, version: int) -> None:
        """Changes up to `version` are inside."""

    def add_many(self, rows: Sequence[NewRow]) -> int:
        """Searchable on return, a member's template of the same id replaced; how many were no unit vectors."""

    def remove(self, member: MemberId) -> int:
        """Gone on return; how many templates."""

    def search(self, probe: Embedding, where: Where = None) -> tuple[SearchResult, bool]:
        """Best, best of another member, templates compared; False when a part was missing."""

    def score(self, rows: Sequence[NewRow], probe: Embedding) -> SearchResult:
        """The same for rows that are not inside, and do not enter."""


class Vault(Protocol):
    """Keys."""

    def make_template(
        self,
        member: MemberId,
        template_id: str,
        net_sha256: str,
        policy: str,
        embedding: Embedding,
        kind: TemplateKind = TemplateKind.ENROLMENT,
    ) -> SealedTemplate:
        """A row that may rest in a database, and its key for another table."""

    def open_template(self, row: TemplateRow, key: KeyRow) -> Embedding:
        """Raises NeedsOperator when it does not open."""

    def open_many(self, rows: Iterable[tuple[TemplateRow, KeyRow]]) -> Iterator[memoryview | None]:
        """Embeddings in their order, None for one that does not open; each view holds until the next is taken."""

    def seal(self, visit_key: bytes, session: str, kind: str, payload: bytes) -> bytes:
        """For this visit only."""

    def open(self, visit_key: bytes, session: str, kind: str, blob: bytes) -> bytes:
        """Raises Refused when it does not open."""
