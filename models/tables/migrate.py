"""Brings a database to the schema of this version: `upgrade` once per start, before anybody else connects.

A new revision: change the tables, run `python -m models.tables.migrate DATABASE_URL "what changes"` against a
database that is at the head, read the file that appears in migrations/versions, complete it by hand.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from models.domain.errors import NeedsOperator
from models.tables import schema

MIGRATIONS = Path(__file__).resolve().parent / "migrations"
LOCK_KEY = 0x53544F5245  # "STORE"
LOCK_TIMEOUT_MS = 60_000


def upgrade(database_url: str) -> str:
    """Apply every revision that is missing, in one transaction, and return the head. Repeating it is cheap.

    Processes that start together wait for one another on an advisory lock, 60 s at most. Raises NeedsOperator
    `database_newer` when the database was written by a later version of this software.
    """
    with _connection(database_url) as connection:
        connection.execute(text(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
        config = _config(connection)
        head = ScriptDirectory.from_config(config).get_current_head()
        assert head is not None
        current = MigrationContext.configure(connection).get_current_revision()
        if current == head:
            return head
        if current is not None and current not in _known(config):
            raise NeedsOperator(
                "database_newer",
                f"the database is at revision {current}, which this version does not know",
                "start the version that wrote it, or a later one",
            )
        command.upgrade(config, "head")
        return head


def drift(database_url: str) -> list[Any]:
    """What the tables in the code and in the database disagree about; empty when a revision is complete."""
    with _connection(database_url) as connection:
        found = compare_metadata(
            MigrationContext.configure(connection, opts={"include_name": schema.is_no_part}), schema.metadata
        )
        connection.rollback()
        return list(found)


def revise(database_url: str, message: str) -> None:
    """Write the next revision from the difference between code and database. For developers."""
    with _connection(database_url) as connection:
        config = _config(connection)
        count = len(_known(config)) + 1
        command.revision(config, message=message, autogenerate=True, rev_id=f"{count:04d}")


@contextmanager
def _connection(database_url: str) -> Iterator[Connection]:
    _, _, rest = database_url.partition("://")
    engine = create_engine(f"postgresql+psycopg://{rest}", poolclass=NullPool)
    with engine.begin() as connection:
        yield connection


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _known(config: Config) -> set[str]:
    return {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}


if __name__ == "__main__":
    revise(sys.argv[1], sys.argv[2])
