"""Templates as a gallery reads them: which there are that it has not read, whoever wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import Connection

from models.domain.ids import ChainId, MemberId, StoreId
from models.domain.messages import KeyRow, TemplateKind, TemplateRow
from models.domain.recognition import GalleryRow

WINDOW_TEMPLATES = 4_096
"""Serial numbers are taken before the commit, so a lower one may become visible after a higher one. A transaction of a
host lasts two seconds at most: none that is still open holds a number so many templates back."""


def count_after(conn: Connection[Any], chain: ChainId, low: int) -> int:
    """How many templates of the chain have a serial number above `low`."""
    row = conn.execute("SELECT count(*) FROM face_template WHERE chain = %s AND n > %s", (chain, low)).fetchone()
    assert row is not None
    return int(row[0])


def numbers_after(conn: Connection[Any], chain: ChainId, low: int) -> list[int]:
    """Their serial numbers, rising."""
    rows = conn.execute("SELECT n FROM face_template WHERE chain = %s AND n > %s ORDER BY n", (chain, low)).fetchall()
    return [row[0] for row in rows]


def load_templates(conn: Connection[Any], chain: ChainId, numbers: Sequence[int]) -> tuple[GalleryRow, ...]:
    """The templates of these serial numbers."""
    rows = conn.execute(
        """SELECT t.id, t.member, t.store, t.net_sha256, t.policy, t.ciphertext, t.key_id, m.phone_tail,
             k.epoch, k.wrapped
           FROM face_template t JOIN member m ON m.id = t.member JOIN face_key k ON k.id = t.key_id
           WHERE t.n = ANY(%s::int[]) ORDER BY t.n""",
        (list(numbers),),
    ).fetchall()
    return tuple(
        GalleryRow(
            TemplateRow(row[0], MemberId(row[1]), row[3], bytes(row[5]), row[6], row[4]),
            KeyRow(row[6], MemberId(row[1]), row[8], bytes(row[9])),
            chain,
            StoreId(row[2]),
            row[7],
        )
        for row in rows
    )
