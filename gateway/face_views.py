"""What the HTTP API shows of face decisions: counts and score bins, never a member or a frame."""

from __future__ import annotations

from gateway.views import View


class DecisionCountView(View):
    """Decisions of one day (the store's zone) that ended alike. `scope` empty: only daily counts are left of them."""

    day: str
    outcome: str
    reason: str
    scope: str
    digits_given: bool
    count: int


class ScoreBinView(View):
    """Decisions whose best cosine lies in [from_ppm, from_ppm + 20,000), in millionths."""

    from_ppm: int
    outcome: str
    count: int


class GallerySizeView(View):
    """Stored templates of one region."""

    region: str
    templates: int
    members: int


class FacesView(View):
    """Face decisions of a window of days. Scores are of first looks, before any digits."""

    days: list[str]
    decisions: list[DecisionCountView]
    scores: list[ScoreBinView]
    threshold_ppm_min: int | None
    threshold_ppm_max: int | None
    galleries: list[GallerySizeView]
