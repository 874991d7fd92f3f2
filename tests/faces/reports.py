"""Embeddings of people that do not exist, and what an evaluation makes of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.domain.face_quality import PRODUCTION, QualityReport
from models.domain.recognition import THRESHOLDS, Embedding
from models.faces.calibration import Points, Report
from models.faces.evaluation import evaluate
from models.faces.survey import Shot, Survey

QUALITY = QualityReport(1, 0.93, 55.0, 150.0, 2.0, 0.1, 120.0)


def made_up_survey(people: int = 12, photographs: int = 6, likeness: float = 0.85, seed: int = 5) -> Survey:
    """Persons are random directions; a photograph lies at cosine `likeness` from its person."""
    rng = np.random.default_rng(seed)
    shots = []
    for person in range(people):
        middle = direction(rng)
        for _ in range(photographs):
            aside = direction(rng)
            aside -= (aside @ middle) * middle
            aside /= np.linalg.norm(aside)
            vector = likeness * middle + np.sqrt(1 - likeness**2) * aside
            embedding = Embedding(vector.astype("<f4").tobytes())
            shots.append(Shot(person, embedding, embedding, QUALITY))
    names = tuple(f"person-{n}" for n in range(people))
    return Survey("made-up", "0" * 64, PRODUCTION, names, tuple(shots), {}, {}, {})


def direction(rng: np.random.Generator) -> NDArray[np.float64]:
    """Uniform on the sphere of 128 dimensions."""
    vector = rng.normal(size=128)
    return np.asarray(vector / np.linalg.norm(vector))


def made_up_report(configured: Points = THRESHOLDS, **more: float) -> Report:
    """A report of a made-up survey."""
    return evaluate(made_up_survey(**more), configured, net="made-up", date="2026-11-22", rounds_max=100)  # type: ignore[arg-type]
