"""Which nets the templates of a chain are of, and which templates give way to newer ones."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection, Connection

from models.domain.messages import TemplateKind, TemplateRow
from models.domain.nets import ADAPTIVE_MAX


@dataclass(frozen=True, slots=True)
class NetUse:
    """Templates of one net in one chain, by kind; `migrated_at`: when the last one came by a change of nets."""

    chain: str
    net_sha256: str
    enrolled: int
    migrated: int
    adaptive: int
    members: int
    migrated_at: datetime | None

    @property
    def templates(self) -> int:
        """All of them."""
        return self.enrolled + self.migrated + self.adaptive


async def retire_templates(conn: AsyncConnection[Any], template: TemplateRow, chain: str) -> None:
    """What gives way to a template that was just stored, with its keys.

    The member's templates of every other net, and of adaptive ones of this net the oldest beyond ADAPTIVE_MAX. If
    the template was not stored, nothing does. Statements only.
    """
    await conn.execute(
        """WITH gone AS (
             DELETE FROM face_template WHERE member = %(member)s AND chain = %(chain)s AND net_sha256 <> %(net)s
               AND EXISTS (SELECT 1 FROM face_template WHERE member = %(member)s AND id = %(id)s) RETURNING key_id)
           DELETE FROM face_key k USING gone WHERE k.id = gone.key_id""",
        {"id": template.id, "member": template.member, "chain": chain, "net": template.net_sha256},
    )
    if template.kind is TemplateKind.ADAPTIVE:
        await conn.execute(
            """WITH gone AS (
                 DELETE FROM face_template WHERE member = %s AND id IN (
                   SELECT id FROM face_template
                   WHERE member = %s AND chain = %s AND net_sha256 = %s AND kind = 'adaptive'
                   ORDER BY n DESC OFFSET %s) RETURNING key_id)
               DELETE FROM face_key k USING gone WHERE k.id = gone.key_id""",
            (template.member, template.member, chain, template.net_sha256, ADAPTIVE_MAX),
        )


def nets_in_use(conn: Connection[Any], chain: str | None = None) -> list[NetUse]:
    """Every net that templates are of, by chain, the most used first."""
    rows = conn.execute(
        """SELECT chain, net_sha256, count(*) FILTER (WHERE kind = 'enrolment'),
             count(*) FILTER (WHERE kind = 'migrated'), count(*) FILTER (WHERE kind = 'adaptive'),
             count(DISTINCT member), max(at) FILTER (WHERE kind = 'migrated')
           FROM face_template WHERE %(chain)s::text IS NULL OR chain = %(chain)s
           GROUP BY chain, net_sha256 ORDER BY chain, count(*) DESC, net_sha256""",
        {"chain": chain},
    ).fetchall()
    return [NetUse(*row) for row in rows]


def digests_in_use(conn: Connection[Any], chain: str) -> set[str]:
    """The nets that templates of this chain are of; a step through an index for each net, however many templates."""
    rows = conn.execute(
        """WITH RECURSIVE nets AS (
             SELECT min(net_sha256) AS net FROM face_template WHERE chain = %(chain)s
             UNION ALL
             SELECT (SELECT min(net_sha256) FROM face_template WHERE chain = %(chain)s AND net_sha256 > nets.net)
             FROM nets WHERE nets.net IS NOT NULL)
           SELECT net FROM nets WHERE net IS NOT NULL""",
        {"chain": chain},
    ).fetchall()
    return {str(row[0]) for row in rows}
