from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.domain.errors import RetryLater
from models.domain.ids import MemberId
from models.domain.recognition import Embedding
from models.faces.embed import combine, to_embedding, to_vector, unit
from models.faces.gallery import Gallery, rotation_from

ROTATION = rotation_from(b"r" * 32)
RNG = np.random.default_rng(11)
VECTORS = [to_embedding(unit(RNG.normal(size=128).astype(np.float32))) for _ in range(64)]


def member(n: int) -> MemberId:
    return MemberId(f"m{n}")


def test_the_rotation_is_orthogonal_secret_and_repeatable() -> None:
    assert np.allclose(ROTATION @ ROTATION.T, np.eye(128), atol=1e-5)
    assert np.array_equal(ROTATION, rotation_from(b"r" * 32))
    assert not np.allclose(ROTATION, rotation_from(b"s" * 32), atol=0.05)
    with pytest.raises(ValueError, match="32 bytes"):
        rotation_from(b"short")
    with pytest.raises(ValueError, match="orthogonal"):
        Gallery(128, np.ones((128, 128), np.float32))


def test_scores_are_the_cosines_and_rows_are_not_the_templates() -> None:
    gallery = Gallery(128, ROTATION)
    for n, vector in enumerate(VECTORS[:10]):
        gallery.add(member(n), "t", vector)
    probe = VECTORS[20]
    cosines = sorted((float(to_vector(v) @ to_vector(probe)) for v in VECTORS[:10]), reverse=True)
    result = gallery.search(probe)
    assert result.best is not None
    assert result.second is not None
    assert result.best.score == pytest.approx(cosines[0], abs=1e-5)
    assert result.second.score == pytest.approx(cosines[1], abs=1e-5)
    assert result.searched == 10
    assert not any(gallery._rows.tobytes().count(vector) for vector in VECTORS[:10])


def test_second_is_another_member_whatever_the_first_one_s_templates() -> None:
    gallery = Gallery(128, ROTATION)
    gallery.add(member(0), "a", VECTORS[0])
    near = unit((to_vector(VECTORS[0]) + 0.1 * to_vector(VECTORS[1])).astype(np.float32))
    gallery.add(member(0), "b", to_embedding(near))
    alone = gallery.search(VECTORS[0])
    assert alone.best is not None
    assert (alone.best.member, alone.second, alone.searched) == (member(0), None, 2)
    gallery.add(member(1), "a", VECTORS[2])
    for subset in (None, {member(0), member(1)}):
        both = gallery.search(VECTORS[0], subset)
        assert both.second is not None
        assert both.second.member == member(1)
    bucket = gallery.search(VECTORS[0], {member(1), member(99)})
    assert bucket.best is not None
    assert (bucket.best.member, bucket.searched) == (member(1), 1)
    assert gallery.search(VECTORS[0], set()).best is None


def test_erasure_leaves_no_byte_of_the_vector() -> None:
    gallery = Gallery(128, ROTATION)
    for n in range(40):
        gallery.add(member(n % 20), f"t{n}", VECTORS[n])
    rotated = [(ROTATION @ to_vector(VECTORS[n])).tobytes() for n in (3, 23)]
    assert all(row in gallery._rows.tobytes() for row in rotated)
    assert gallery.remove(member(3)) == 2
    assert gallery.remove(member(3)) == 0
    assert not any(row in gallery._rows.tobytes() for row in rotated)
    assert len(gallery) == 38
    assert member(3) not in gallery
    last = (ROTATION @ to_vector(VECTORS[39])).tobytes()
    assert last in gallery._rows.tobytes()
    assert gallery.remove(member(19)) == 2
    assert last not in gallery._rows.tobytes(), "also when nothing is swapped into its place"


def test_growth_leaves_no_copy_behind_and_keeps_every_row() -> None:
    gallery = Gallery(128, ROTATION, templates_max=300)
    first = gallery._rows
    for n in range(300):
        gallery.add(member(n), "t", VECTORS[n % 64])
    assert not first.any(), "the old rows were overwritten"
    assert gallery.search(VECTORS[5]).searched == 300
    with pytest.raises(RetryLater) as full:
        gallery.add(member(300), "t", VECTORS[0])
    assert full.value.code == "gallery_full"
    gallery.add(member(7), "t", VECTORS[0])


def test_every_block_of_rows_is_searched() -> None:
    gallery = Gallery(128, ROTATION)
    many = RNG.normal(size=(2100, 128)).astype(np.float32)
    many /= np.linalg.norm(many, axis=1, keepdims=True)
    for n, vector in enumerate(many):
        gallery.add(member(n), "t", to_embedding(vector))
    for n in (0, 1023, 1024, 2047, 2048, 2099):
        result = gallery.search(to_embedding(many[n]))
        assert result.best is not None
        assert (result.best.member, result.searched) == (member(n), 2100)
        assert result.second is not None
        assert result.second.score == pytest.approx(float(np.sort(many @ many[n])[-2]), abs=1e-5)


@pytest.mark.parametrize(
    "bad",
    [b"", VECTORS[0][:-4], to_embedding(2 * to_vector(VECTORS[0])), to_embedding(np.full(128, np.nan, np.float32))],
)
def test_only_unit_vectors_of_the_dimension_enter(bad: bytes) -> None:
    gallery = Gallery(128, ROTATION)
    with pytest.raises(ValueError, match=r"unit|float32"):
        gallery.add(member(0), "t", Embedding(bad))
    assert len(gallery) == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 7), st.integers(0, 2), st.integers(0, 63)), max_size=60))
def test_it_is_a_dictionary_with_search(steps: list[tuple[bool, int, int, int]]) -> None:
    gallery = Gallery(128, ROTATION)
    truth: dict[MemberId, dict[str, Embedding]] = {}
    for adding, who, which, vector in steps:
        if adding:
            gallery.add(member(who), f"t{which}", VECTORS[vector])
            truth.setdefault(member(who), {})[f"t{which}"] = VECTORS[vector]
        else:
            assert gallery.remove(member(who)) == len(truth.pop(member(who), {}))
    assert len(gallery) == sum(len(templates) for templates in truth.values())
    probe = to_vector(VECTORS[0])
    scores = {who: max(float(to_vector(v) @ probe) for v in templates.values()) for who, templates in truth.items()}
    ranked = sorted(scores.values(), reverse=True)
    for subset in (None, set(truth)):
        result = gallery.search(VECTORS[0], subset)
        assert (result.best is None) == (not ranked)
        if result.best is not None:
            assert result.best.score == pytest.approx(ranked[0], abs=1e-5)
            assert scores[result.best.member] == pytest.approx(ranked[0], abs=1e-5)
        if len(ranked) > 1:
            assert result.second is not None
            assert result.second.score == pytest.approx(ranked[1], abs=1e-5)


def test_shots_combine_only_when_all_agree() -> None:
    base = to_vector(VECTORS[0])
    close = [to_embedding(unit((base + 0.3 * to_vector(VECTORS[n])).astype(np.float32))) for n in (1, 2, 3)]
    mean = combine(close, 0.60)
    assert isinstance(mean, bytes)
    assert float(to_vector(mean) @ base) > max(float(to_vector(shot) @ base) for shot in close)
    assert combine([close[0], VECTORS[9], close[2]], 0.60) == (0, 2)
    assert combine([VECTORS[7], VECTORS[8], VECTORS[9]], 0.60) == ()
