"""A lane that looks at faces has a way to pay without one, or the chain does not load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from devices.profiles import PROFILES, ways_without_face
from models.domain.errors import NeedsOperator
from models.domain.events import TenderKind
from runtime.chains import read_chain
from runtime.settings import CONFIGS


@pytest.mark.parametrize(
    ("lane", "tenders", "ways"),
    [
        (["dragonfly-2"], set(TenderKind), {TenderKind.QR, TenderKind.CODE}),
        (["dragonfly-2"], {TenderKind.FACE}, set()),
        (["dragonfly-2"], {TenderKind.FACE, TenderKind.COUPON, TenderKind.AGREEMENT}, set()),
        (["dragonfly-2"], {TenderKind.FACE, TenderKind.CASH}, set()),
        (["dragonfly-2", "till"], {TenderKind.FACE, TenderKind.CASH}, {TenderKind.CASH}),
        (["dragonfly-2", "till"], {TenderKind.FACE, TenderKind.CARD}, {TenderKind.CARD}),
        ([], set(TenderKind), set()),
    ],
)
def test_what_a_lane_takes_without_a_face(lane: list[str], tenders: set[TenderKind], ways: set[TenderKind]) -> None:
    assert ways_without_face([PROFILES[name] for name in lane], tenders) == ways


def chain_file(folder: Path, **changes: Any) -> Path:
    document = yaml.safe_load((CONFIGS / "chains" / "harbour.yaml").read_text(encoding="utf-8"))
    path = folder / "chain.yaml"
    path.write_text(yaml.safe_dump(document | changes, allow_unicode=True), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["demo", "harbour"])
def test_the_shipped_chains_take_money_without_a_face(name: str) -> None:
    assert set(read_chain(CONFIGS / "chains" / f"{name}.yaml").tenders) == set(TenderKind)


def test_a_chain_that_takes_faces_alone_does_not_load_and_says_what_to_add(tmp_path: Path) -> None:
    with pytest.raises(NeedsOperator) as refused:
        read_chain(chain_file(tmp_path, tenders=["face"]))
    assert refused.value.code == "chain_wrong"
    for said in ("lane-1", "no way to pay", "qr, code, cash or card"):
        assert said in refused.value.message
    assert read_chain(chain_file(tmp_path, tenders=["face", "cash"])).tenders == (TenderKind.FACE, TenderKind.CASH)


def test_where_nobody_looks_at_faces_any_tender_will_do(tmp_path: Path) -> None:
    lanes = [{"lane": "lane-1", "terminals": [{"suffix": "t1", "role": "till", "profile": "till"}]}]
    assert read_chain(chain_file(tmp_path, lanes=lanes, tenders=["coupon"])).tenders == (TenderKind.COUPON,)


@pytest.mark.parametrize("tender", ["cheque", {"kind": "qr", "surcharge_fen": 50}])
def test_no_tender_has_a_price_of_its_own(tmp_path: Path, tender: object) -> None:
    with pytest.raises(NeedsOperator, match="tenders"):
        read_chain(chain_file(tmp_path, tenders=["face", tender]))
