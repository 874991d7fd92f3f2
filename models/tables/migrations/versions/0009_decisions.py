"""What a face decision weighed, whole: an auditor decides again from the row alone."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

NEW: tuple[tuple[str, Any, str], ...] = (
    ("scope", sa.String(), "'chain'"),
    ("looks", sa.Integer(), "1"),
    ("floor_ppm", sa.Integer(), "360000"),
    ("margin_ppm", sa.Integer(), "80000"),
    ("liveness", sa.String(), "'not_checked'"),
    ("partial", sa.Boolean(), "reason = 'partial'"),
    ("digits_given", sa.Boolean(), "reason LIKE 'digits_%'"),
    ("digits_required", sa.Boolean(), "reason = 'required'"),
    ("amount_limited", sa.Boolean(), "false"),
    ("elsewhere", sa.Boolean(), "false"),
    ("calibration", sa.String(), "'table'"),
)
"""Column, type, and what an older row says of it: the figures in force then, and what its reason tells."""


def upgrade() -> None:
    """Forward only."""
    for name, kind, _ in NEW:
        op.add_column("face_decision", sa.Column(name, kind, nullable=True))
    op.execute("UPDATE face_decision SET " + ", ".join(f"{name} = {value}" for name, _, value in NEW))
    # Until now 0 stood for nobody, or nobody else, to compare with.
    op.execute("UPDATE face_decision SET best_ppm = -1000000 WHERE templates_searched = 0")
    op.execute("UPDATE face_decision SET second_ppm = -1000000 WHERE second_ppm = 0")
    for name, _, _ in NEW:
        op.alter_column("face_decision", name, nullable=False)
    op.create_index("face_decision_at", "face_decision", ["at"])
    op.create_index("face_decision_session", "face_decision", ["session"])
