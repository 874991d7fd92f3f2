"""Sales of the past, a row for each line, for whoever replays them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg

from models.domain.money import format_yuan

ROWS_AT_ONCE = 2_000

# The flags are the last that the article had: a line keeps its code, and what the law says of it seldom changes.
_LINES = """
WITH flag AS MATERIALIZED (
    SELECT DISTINCT ON (chain, code) chain, code, doc -> 'flags' AS flags
    FROM item WHERE doc IS NOT NULL ORDER BY chain, code, version DESC
)
SELECT s.receipt, s.at, s.store, coalesce(s.member, ''), l.line ->> 'code', l.line ->> 'name',
       (l.line ->> 'quantity')::bigint, (l.line ->> 'unit_fen')::bigint,
       (l.line ->> 'net_fen')::bigint + (l.line ->> 'discount_fen')::bigint, s.entity, coalesce(f.flags, '[]'::jsonb)
FROM sale s JOIN store st ON st.id = s.store CROSS JOIN LATERAL jsonb_array_elements(s.lines) AS l(line)
LEFT JOIN flag f ON f.chain = st.chain AND f.code = l.line ->> 'code'
WHERE s.voided_at IS NULL ORDER BY s.at, s.store, s.receipt, (l.line ->> 'line')::bigint
"""


def sold_lines(url: str) -> Iterator[dict[str, Any]]:
    """Every line of every sale that stands, in the order of time; streamed, whatever their number."""
    with psycopg.connect(url) as conn, conn.cursor("sold_lines") as cur:
        cur.itersize = ROWS_AT_ONCE
        cur.execute(_LINES)
        for number, at, store, member, code, name, quantity, unit_fen, gross_fen, entity, flags in cur:
            weighed = quantity * unit_fen != gross_fen  # the till's own price of the line
            yield {
                "receipt": number,
                "at": at.isoformat(),
                "store": store,
                "customer": member,
                "code": code,
                "quantity": 1 if weighed else quantity,
                "unit_price": format_yuan(gross_fen if weighed else unit_fen),
                "name": name,
                "flags": " ".join(sorted(flags)),
                "entity": entity,
            }
