"""All tables in one place, for migrations: importing this module fills `metadata`."""

from __future__ import annotations

from sqlmodel import SQLModel

from models.tables import books, credentials, entities, keys, members, privacy, registry, sales, twins

metadata = SQLModel.metadata

__all__ = ["books", "credentials", "entities", "keys", "members", "metadata", "privacy", "registry", "sales", "twins"]
