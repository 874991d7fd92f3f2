"""Puts a face worker together: nets, vault, a rotated gallery per chain. The runtime makes it an actor."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path

from actors.face_worker import FaceWorker
from actors.galleries import Galleries
from actors.several_nets import OneNet
from models.domain.errors import NeedsOperator
from models.domain.face_quality import POLICIES
from models.domain.ids import ChainId
from models.domain.liveness import LivenessPolicy
from models.domain.recognition import RecognitionPolicy
from models.faces.catalogue import NetEntry, load_catalogue
from models.faces.gallery import Gallery
from models.faces.liveness import AntiSpoofing
from models.faces.nets import Nets, build_nets
from models.faces.pipeline import FacePipeline
from models.faces.rotation import rotation_from
from models.faces.templates import TemplateVault
from runtime.face_nets import older_recognisers


def build_face_worker(
    cache_dir: Path,
    vault: TemplateVault,
    *,
    policy: str = "production",
    liveness: LivenessPolicy | None = None,
    galleries: Callable[[Nets], Galleries] | None = None,
    recogniser: str = "",
    in_use: Collection[str] = (),
    adaptive: bool = False,
    catalogue: tuple[NetEntry, ...] | None = None,
) -> FaceWorker:
    """A worker ready to see. About 0.3 s with a built cache, 1.5 s without.

    `policy`: `production` or `demo` (models.domain.face_quality). `galleries`: those of the node; without, it has its
    own, and they are empty. `recogniser`: by its name in the catalogue; `in_use`: the nets that templates are of, by
    which members are recognised too; `adaptive`: see models.domain.nets. Raises NeedsOperator when the nets are
    missing, altered or not in parity, or when the policy or the recogniser is unknown.
    """
    if policy not in POLICIES:
        raise NeedsOperator("quality_policy", f"no quality policy {policy!r}", f"one of {', '.join(POLICIES)}")
    entries = load_catalogue() if catalogue is None else catalogue
    nets = build_nets(cache_dir, entries, recogniser)
    older = [
        replace(nets, recogniser=one) for one in older_recognisers(cache_dir, entries, nets.recogniser_sha256, in_use)
    ]
    eyes = FacePipeline(nets, [one.recogniser for one in older], AntiSpoofing.of_catalogue(entries))
    eyes.warm_up()

    def own(nets: Nets) -> Galleries:
        def new_gallery(chain: ChainId) -> Gallery:
            return Gallery(nets.dimension, rotation_from(vault.rotation_secret(chain), nets.dimension))

        return Galleries(vault, nets.recogniser_sha256, new_gallery)

    def judged(nets: Nets) -> RecognitionPolicy:
        return RecognitionPolicy(
            thresholds=nets.thresholds,
            liveness=liveness or LivenessPolicy(),
            calibration=nets.recogniser.calibration,
        )

    opened = galleries or own
    return FaceWorker(
        eyes,
        vault,
        opened(nets),
        quality=POLICIES[policy],
        recognition=judged(nets),
        older=[OneNet(opened(one), judged(one), partial(eyes.retire, one.recogniser_sha256)) for one in older],
        adaptive=adaptive,
    )
