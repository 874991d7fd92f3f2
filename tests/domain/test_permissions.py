"""A permission holds at its scope and below, for its person alone; what is missing is said with the scope."""

from __future__ import annotations

import pytest

from models.domain.ids import ChainId, RegionId, StoreId
from models.domain.kill_switch import Place, Scope, ScopeKind
from models.domain.permissions import Grant, Permission, may, missing

HERE = Place(ChainId("sun"), RegionId("south"), StoreId("s-1"))


@pytest.mark.parametrize(
    ("person", "kind", "name", "expected"),
    [
        ("ann", ScopeKind.STORE, "s-1", True),
        ("ann", ScopeKind.REGION, "south", True),
        ("ann", ScopeKind.CHAIN, "sun", True),
        ("ann", ScopeKind.STORE, "s-2", False),
        ("ann", ScopeKind.REGION, "s-1", False),
        ("ann", ScopeKind.CHAIN, "moon", False),
        ("bob", ScopeKind.CHAIN, "sun", False),
        ("", ScopeKind.CHAIN, "sun", False),
    ],
)
def test_scopes(person: str, kind: ScopeKind, name: str, expected: bool) -> None:
    grants = [
        Grant("ann", Permission.RETURN_CASH, Scope(kind, name)),
        Grant("", Permission.RETURN_CASH, Scope(kind, name)),
    ]
    assert may(grants, person, Permission.RETURN_CASH, HERE) is expected


def test_what_is_missing_is_said_where() -> None:
    said = missing("ann", Permission.RETURN_CASH, HERE)
    assert said.message == "ann has no permission return.cash at store:s-1, region:south or chain:sun"
    assert "grant ann return.cash --store s-1" in said.do
    assert "login --as" in missing("", Permission.RETURN_CASH, HERE).do
