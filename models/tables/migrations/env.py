"""Alembic's entry point. It only ever runs on a connection handed in by `models.tables.migrate`."""

from __future__ import annotations

from alembic import context

from models.tables import schema

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=schema.metadata,
    compare_type=True,
    transaction_per_migration=False,
    include_name=schema.is_no_part,
)
with context.begin_transaction():
    context.run_migrations()
