from __future__ import annotations

from pathlib import Path

import pytest

from models.faces.nets import Nets, build_nets
from models.faces.pipeline import FacePipeline

LFW10 = Path(__file__).resolve().parents[3] / "shared" / "faces" / "lfw10"


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nets")


@pytest.fixture(scope="session")
def nets(cache_dir: Path) -> Nets:
    return build_nets(cache_dir)


@pytest.fixture(scope="session")
def pipeline(nets: Nets) -> FacePipeline:
    return FacePipeline(nets)


@pytest.fixture(scope="session")
def lfw10() -> Path:
    if not LFW10.is_dir():
        pytest.skip("needs real photographs: ../shared/faces/lfw10 beside the project is absent")
    return LFW10


@pytest.fixture(scope="session")
def portrait(lfw10: Path) -> bytes:
    """One clear face."""
    return (lfw10 / "Gerhard_Schroeder" / "Gerhard_Schroeder_0001.jpg").read_bytes()
