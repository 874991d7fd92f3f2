"""What a face worker needs: eyes, a gallery per chain, a vault. Bound by the runtime to models.faces."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from models.domain.face_quality import FaceKind, LookPurpose, QualityPolicy
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
    """Templates of one chain."""

    version: int

    def __len__(self) -> int: ...
    def __contains__(self, member: object) -> bool: ...
    def add(self, member: MemberId, template_id: str, embedding: Embedding) -> None:
        """Searchable on return."""

    def remove(self, member: MemberId) -> int:
        """Gone on return; how many templates."""

    def search(self, embedding: Embedding, members: Collection[MemberId] | None = None) -> SearchResult:
        """Best, best of another member, templates compared."""


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

    def seal(self, visit_key: bytes, session: str, kind: str, payload: bytes) -> bytes:
        """For this visit only."""

    def open(self, visit_key: bytes, session: str, kind: str, blob: bytes) -> bytes:
        """Raises Refused when it does not open."""
