"""Whose database this is: each deployment leaves its name in it, so that no other takes it for its own.

The name is the comment of `alembic_version`: it can be read before anything is migrated, by any version of this
software, and travels with a dump.
"""

from __future__ import annotations

from typing import Any

from psycopg import AsyncConnection, Connection, sql

from models.domain.errors import NeedsOperator

PREFIX = "storeops deployment "


def identity(conn: Connection[Any]) -> str:
    """The same for two URLs of one database of one running server."""
    row = conn.execute(
        "SELECT pg_postmaster_start_time()::text, oid::text FROM pg_database WHERE datname = current_database()"
    ).fetchone()
    assert row is not None
    return "/".join(row)


def require_ours(conn: Connection[Any], deployment: str) -> None:
    """Raises NeedsOperator `foreign_database` when another deployment keeps its books there. Changes nothing."""
    row = conn.execute("SELECT obj_description(to_regclass('alembic_version'), 'pg_class')").fetchone()
    found = str(row[0]) if row is not None and row[0] else ""
    if found.startswith(PREFIX) and found != PREFIX + deployment:
        raise NeedsOperator(
            "foreign_database",
            f"database {conn.info.dbname!r} is of deployment {found.removeprefix(PREFIX)}, this is {deployment}",
            "name another database, or start with the data folder (its secrets/ above all) of that deployment",
        )


def mark_ours(conn: Connection[Any], deployment: str) -> None:
    """Leave the deployment's name, once the schema is there. Repeating it changes nothing."""
    comment = sql.Literal(PREFIX + deployment)
    conn.execute(sql.SQL("COMMENT ON TABLE alembic_version IS {}").format(comment))


async def stores_of(conn: AsyncConnection[Any]) -> dict[str, tuple[str, str]]:
    """Every store of a database: id -> (region, chain)."""
    cursor = await conn.execute("SELECT id, region, chain FROM store")
    return {store: (region, chain) for store, region, chain in await cursor.fetchall()}
