"""Tables of a chain's configuration; config_layers.py writes and reads them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint
from sqlmodel import Field, SQLModel

from models.tables.base import document, instant


class ConfigLayerRow(SQLModel, table=True):
    """One layer: what the chain's file says of a scope, or what was changed there since.

    `scope`: the chain's, region's, store's or terminal's id. `source`: file, or live, which is laid over it.
    `region` is empty for the chain's own. `places`: dotted path -> where it was written; "" of all others.
    """

    __tablename__ = "config_layer"
    __table_args__ = (
        CheckConstraint(
            "level IN ('chain', 'region', 'store', 'terminal') AND source IN ('file', 'live') AND version > 0"
            " AND (level = 'chain') = (region = '')",
            name="config_layer_formed",
        ),
    )
    chain: str = Field(primary_key=True)
    level: str = Field(primary_key=True)
    scope: str = Field(primary_key=True)
    source: str = Field(primary_key=True)
    region: str
    patch: dict[str, object] = document()
    places: dict[str, str] = document()
    version: int
    changed_at: datetime = instant()


class ConfigChangeRow(SQLModel, table=True):
    """A change of a live layer: who, when, why, and the layer as it was then. Appended only."""

    __tablename__ = "config_change"
    chain: str = Field(primary_key=True)
    level: str = Field(primary_key=True)
    scope: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    change: dict[str, object] = document()
    """The merge patch that was asked for."""
    layer: dict[str, object] = document()
    """The live layer with it."""
    by: str
    reason: str
    at: datetime = instant()
