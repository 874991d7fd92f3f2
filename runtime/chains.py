"""A chain's file read, and the terminals that follow from it. chain_tables.py applies it."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path

from models.domain.errors import NeedsOperator
from models.domain.ids import StoreId, TerminalId
from runtime.chain_check import check_chain
from runtime.chain_documents import (
    ChainDoc,
    FacesDoc,
    LaneDoc,
    LivenessDoc,
    Name,
    StoreDoc,
    TerminalDoc,
    read_plan_document,
)

FINDINGS_SHOWN_MAX = 20

__all__ = [
    "ChainDoc",
    "DemoTerminal",
    "FacesDoc",
    "LaneDoc",
    "LivenessDoc",
    "Name",
    "StoreDoc",
    "TerminalDoc",
    "demo_secret",
    "provider_app_of",
    "read_chain",
    "read_plan_document",
    "secret_sha256",
    "terminals_of",
]


@dataclass(frozen=True, slots=True)
class DemoTerminal:
    """A terminal that the demonstration plays, with its secret."""

    terminal: TerminalId
    store: StoreId
    lane: str
    role: str
    profile: str
    secret: str


def read_chain(path: Path) -> ChainDoc:
    """The chain that a file describes. Raises NeedsOperator naming the file, the line and everything that is wrong."""
    checked = check_chain(path)
    if checked.doc is None or checked.findings:
        code = "chain_wrong" if checked.readable else "chain_unreadable"
        shown = "\n".join(str(one) for one in checked.findings[:FINDINGS_SHOWN_MAX])
        raise NeedsOperator(code, shown, "mend the file; `storeops config validate` shows all of it")
    return checked.doc


def provider_app_of(entity: str) -> str:
    """The merchant app id of a legal entity with the provider."""
    return f"storeops-{entity}"


def demo_secret(key: str, terminal: str) -> str:
    """A demonstration terminal's secret: derived, so that the player needs no list of secrets."""
    return hmac.new(key.encode(), terminal.encode(), hashlib.sha256).hexdigest()


def terminals_of(chain: ChainDoc, key: str) -> list[DemoTerminal]:
    """All terminals of the file, with their derived secrets."""
    return [
        DemoTerminal(
            TerminalId(f"{store.id}-{terminal.suffix}"),
            StoreId(store.id),
            lane.lane,
            terminal.role,
            chain.family(store, terminal),
            demo_secret(key, f"{store.id}-{terminal.suffix}"),
        )
        for store in chain.stores
        for lane in chain.lanes
        for terminal in lane.terminals
    ]


def secret_sha256(secret: str) -> str:
    """How the registry keeps a terminal's 256-bit secret."""
    return hashlib.sha256(secret.encode()).hexdigest()
