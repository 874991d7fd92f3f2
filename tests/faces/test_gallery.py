from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.domain.errors import RetryLater
from models.domain.gallery import InStore, InTail, NewRow, merged
from models.domain.ids import MemberId, StoreId
from models.domain.recognition import Candidate, Embedding, SearchResult
from models.faces import columns, gallery, scan
from models.faces.columns import Kind
from models.faces.embed import combine, to_embedding, to_vector, unit
from models.faces.gallery import CAPACITY_MIN, Gallery, PrivateMemory
from models.faces.rotation import rotation_from

ROTATION = rotation_from(b"r" * 32)
RNG = np.random.default_rng(11)
VECTORS = [to_embedding(unit(RNG.normal(size=128).astype(np.float32))) for _ in range(64)]
TOLERANCE = {Kind.FLOAT32: 1e-5, Kind.HALF: 5e-4, Kind.SIGNS: 5e-4}


def member(n: int) -> MemberId:
    return MemberId(f"m{n}")


def new(n: int, template: str, vector: bytes, store: str = "s1", tail: str = "0000") -> NewRow:
    return NewRow(member(n), template, Embedding(vector), StoreId(store), tail)


def loaded(*rows: NewRow, templates_max: int = 5_000) -> Gallery:
    made = Gallery(128, ROTATION, templates_max)
    made.begin_load(len(rows))
    assert made.add_many(rows) == 0
    made.end_load(1)
    return made


def bytes_inside(one: Gallery) -> bytes:
    assert one._columns is not None
    return b"".join(column.tobytes() for column in one._columns.every())


@contextmanager
def small_kinds() -> Iterator[None]:
    """Every kind within a few rows: float32 to 8, float16 to 16, signs beyond; reranking 12."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "FLOAT32_TEMPLATES_MAX", 8)
        patch.setattr(columns, "HALF_TEMPLATES_MAX", 16)
        patch.setattr(gallery, "CAPACITY_MIN", 4)
        patch.setattr(scan, "RERANKED", 12)
        patch.setattr(scan, "HEAP", 3)
        patch.setattr(scan, "GATHERED_MAX", 2)
        yield


def test_the_rotation_is_orthogonal_secret_and_repeatable() -> None:
    assert np.allclose(ROTATION @ ROTATION.T, np.eye(128), atol=1e-5)
    assert np.array_equal(ROTATION, rotation_from(b"r" * 32))
    assert not np.allclose(ROTATION, rotation_from(b"s" * 32), atol=0.05)
    with pytest.raises(ValueError, match="32 bytes"):
        rotation_from(b"short")
    with pytest.raises(ValueError, match="orthogonal"):
        Gallery(128, np.ones((128, 128), np.float32))


def test_scores_are_the_cosines_and_rows_are_not_the_templates() -> None:
    one = loaded(*(new(n, "t", vector) for n, vector in enumerate(VECTORS[:10])))
    probe = VECTORS[20]
    cosines = sorted((float(to_vector(v) @ to_vector(probe)) for v in VECTORS[:10]), reverse=True)
    result, whole = one.search(probe)
    assert whole
    assert result.best is not None
    assert result.second is not None
    assert result.best.score == pytest.approx(cosines[0], abs=1e-5)
    assert result.second.score == pytest.approx(cosines[1], abs=1e-5)
    assert result.searched == 10
    inside = bytes_inside(one)
    assert not any(inside.count(vector) for vector in VECTORS[:10])


def test_nothing_was_loaded_yet_is_no_answer() -> None:
    one = Gallery(128, ROTATION)
    assert one.search(VECTORS[0]) == (SearchResult(None, None, 0), False)
    one.begin_load(3)
    one.add(new(0, "t", VECTORS[0]))
    result, whole = one.search(VECTORS[0])
    assert (result.searched, whole) == (1, False)
    one.end_load(7)
    assert (one.search(VECTORS[0])[1], one.version) == (True, 7)


@pytest.mark.parametrize("others", [1, 10, 40])
def test_second_is_another_member_whatever_the_first_one_s_templates(others: int) -> None:
    near = [to_embedding(unit(to_vector(VECTORS[0]) + 0.01 * n * to_vector(VECTORS[1]))) for n in range(20)]
    with small_kinds():
        one = loaded(*(new(0, f"t{n}", vector) for n, vector in enumerate(near)))
        alone, _ = one.search(VECTORS[0])
        assert alone.best is not None
        assert (alone.best.member, alone.second, alone.searched) == (member(0), None, 20)
        one.add_many([new(1 + n, "t", VECTORS[2 + n], tail="1234") for n in range(others)])
        for where in (None, InStore(StoreId("s1"))):
            both, _ = one.search(VECTORS[0], where)
            assert both.best is not None
            assert both.second is not None
            assert (both.best.member, both.searched) == (member(0), 20 + others)
            others_best = max(float(to_vector(VECTORS[2 + n]) @ to_vector(VECTORS[0])) for n in range(others))
            assert both.second.score == pytest.approx(others_best, abs=5e-4)
        bucket, _ = one.search(VECTORS[0], InTail("1234"))
        assert bucket.searched == others
        assert one.search(VECTORS[0], InTail("9999"))[0].best is None


def test_a_store_has_its_members_and_its_visitors() -> None:
    one = loaded(*(new(n, "t", VECTORS[n], f"s{n % 4}") for n in range(40)))
    assert one.search(VECTORS[0], InStore(StoreId("s0")))[0].searched == 10
    visitors = (member(1), member(2), member(4), MemberId("left"))
    for _ in range(2):
        assert one.search(VECTORS[1], InStore(StoreId("s0"), visitors))[0].searched == 12
    one.remove(member(1))  # the last row takes its place
    assert one.search(VECTORS[1], InStore(StoreId("s0"), visitors))[0].searched == 11
    one.add(new(2, "another", VECTORS[50], "s2"))
    one.add(new(2, "t", VECTORS[51], "s0"))
    found, _ = one.search(VECTORS[51], InStore(StoreId("s0"), visitors))
    assert found.best is not None
    assert (found.best.member, found.searched) == (member(2), 12)
    assert one.search(VECTORS[0], InStore(StoreId("s9")))[0].best is None


def test_erasure_leaves_no_byte_of_the_vector_nor_of_the_member() -> None:
    with small_kinds():
        for count in (7, 15, 40):
            one = loaded(*(new(n, f"t{n}", VECTORS[n]) for n in range(count)))
            assert one._columns is not None
            columns_of = [one._columns.rows, one._columns.keys]
            if one.kind is Kind.SIGNS:
                columns_of.append(one._columns.signs)
            (at,) = one._rows_of(member(3))
            planted = [column[at].tobytes() for column in columns_of]
            assert all(plant in bytes_inside(one) for plant in planted)
            assert one.remove(member(3)) == 1
            assert one.remove(member(3)) == 0
            assert not any(plant in bytes_inside(one) for plant in planted)
            assert member(3) not in one
            assert member(3).encode() not in one._columns.members.tolist()
            assert one.remove(member(count - 1)) == 1
            assert not one._columns.rows[len(one) :].any(), "also when nothing is swapped into its place"
            assert one.search(VECTORS[4])[0].searched == count - 2


def test_growth_and_promotion_leave_no_copy_behind_and_keep_every_row() -> None:
    one = Gallery(128, ROTATION, templates_max=300)
    kinds = []
    with small_kinds():
        one.begin_load()
        one.end_load(1)
        for n in range(300):
            before = one._columns
            one.add(new(n, "t", VECTORS[n % 64]))
            if one._columns is not before:
                kinds.append(one.kind)
                assert before is None or not any(column.any() for column in before.every() if column.dtype.kind != "S")
                assert before is None or not any(before.members.tolist())
            found, _ = one.search(VECTORS[5 % (n + 1)])
            assert found.searched == n + 1
        with pytest.raises(RetryLater) as full:
            one.add(new(300, "t", VECTORS[0]))
        assert full.value.code == "gallery_full"
        one.add(new(7, "t", VECTORS[0]))
        assert list(dict.fromkeys(kinds[-5:]))[-1] is Kind.SIGNS
        for n in range(298):
            one.remove(member(n))
        assert one.kind is Kind.HALF, "and it shrinks again"
        assert one.search(VECTORS[295 % 64])[0].searched == 2


def test_the_kind_follows_the_size_with_a_wide_step_back() -> None:
    kinds = [columns.kind_for(n) for n in (1, 10_240, 10_241, 163_840, 163_841)]
    assert kinds == [Kind.FLOAT32, Kind.FLOAT32, Kind.HALF, Kind.HALF, Kind.SIGNS]
    one = loaded(*(new(n, "t", VECTORS[n % 64]) for n in range(4 * CAPACITY_MIN + 1)), templates_max=20_000)
    grown = one._word(gallery.CAPACITY)
    one.remove(member(0))
    assert one._word(gallery.CAPACITY) == grown, "one fewer does not shrink it"


@pytest.mark.parametrize(
    "bad",
    [b"", VECTORS[0][:-4], to_embedding(2 * to_vector(VECTORS[0])), to_embedding(np.full(128, np.nan, np.float32))],
)
def test_only_unit_vectors_of_the_dimension_enter(bad: bytes) -> None:
    one = loaded(new(5, "t", VECTORS[5]))
    with pytest.raises(ValueError, match="unit"):
        one.add(new(0, "t", bad))
    assert one.add_many([new(0, "t", bad), new(1, "t", VECTORS[1]), new(2, "t", bad)]) == 2
    assert len(one) == 2
    with pytest.raises(ValueError, match="unit"):
        one.add(NewRow(MemberId("m" * 49), "t", VECTORS[0], StoreId("s"), ""))


Steps = list[tuple[int, int, int, int]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 11), st.integers(0, 3), st.integers(0, 63)), max_size=80))
def test_it_is_a_dictionary_with_search(steps: Steps) -> None:
    """Whatever is added, replaced and removed: every kind finds what a plain scan of a dictionary finds."""
    with small_kinds():
        one = loaded()
        truth: dict[MemberId, dict[str, NewRow]] = {}
        for step, who, which, vector in steps:
            if step:
                row = new(who, f"t{which}", VECTORS[vector], f"s{who % 3}", f"000{who % 2}")
                one.add(row)
                truth.setdefault(member(who), {})[row.template] = row
            else:
                assert one.remove(member(who)) == len(truth.pop(member(who), {}))
        assert len(one) == sum(len(templates) for templates in truth.values())
        for probe in (VECTORS[0], VECTORS[steps[-1][3] if steps else 1]):
            for where in (None, InStore(StoreId("s1"), (member(3), member(77))), InTail("0001")):
                agrees(one, truth, probe, where)


def agrees(
    one: Gallery, truth: dict[MemberId, dict[str, NewRow]], probe: Embedding, where: InStore | InTail | None
) -> None:
    def inside(row: NewRow) -> bool:
        if isinstance(where, InStore):
            return row.store == where.store or row.member in where.visitors
        return where is None or row.tail == where.tail

    scores: dict[MemberId, list[float]] = {}
    for templates in truth.values():
        for row in templates.values():
            if inside(row):
                scores.setdefault(row.member, []).append(
                    float(to_vector(Embedding(bytes(row.embedding))) @ to_vector(probe))
                )
    ranked = sorted((max(own) for own in scores.values()), reverse=True)
    result, _ = one.search(probe, where)
    assert result.searched == sum(len(own) for own in scores.values())
    tolerance = TOLERANCE[one.kind]
    assert (result.best is None) == (not ranked)
    if result.best is not None:
        assert result.best.score == pytest.approx(ranked[0], abs=tolerance)
        assert max(scores[result.best.member]) == pytest.approx(ranked[0], abs=tolerance)
    if len(ranked) > 1:
        assert result.second is not None
        assert result.best is not None
        assert result.second.member != result.best.member
        if one.kind is not Kind.SIGNS or where is not None or ranked[0] - ranked[1] < scan.SURE_MARGIN:
            assert result.second.score == pytest.approx(ranked[1], abs=tolerance)
        else:
            assert result.second.score <= ranked[1] + tolerance


def test_a_reader_beside_a_writer_sees_a_moment_or_says_so() -> None:
    memory = PrivateMemory()
    writer = Gallery(128, ROTATION, 100, memory)
    reader = Gallery(128, ROTATION, 100, memory)
    assert reader.search(VECTORS[0])[1] is False
    writer.begin_load()
    writer.add_many([new(n, "t", VECTORS[n]) for n in range(20)])
    writer.end_load(3)
    assert reader.search(VECTORS[0])[0].searched == 20
    with writer._moving():
        assert reader.search(VECTORS[0]) == (SearchResult(None, None, 0), False)
    assert reader.search(VECTORS[0])[1] is True
    memory.header[gallery.SEQUENCE] |= np.uint64(1)  # it died inside
    torn = [writer.torn]
    writer.begin_load()
    assert [*torn, writer.torn] == [True, False]
    assert len(reader) == 0


def test_two_searches_make_one() -> None:
    def of(best: tuple[str, float] | None, second: tuple[str, float] | None, searched: int) -> SearchResult:
        first, other = (Candidate(MemberId(c[0]), c[1]) if c else None for c in (best, second))
        return SearchResult(first, other, searched)

    nothing = of(None, None, 0)
    one = of(("a", 0.9), ("b", 0.3), 5)
    assert merged(nothing, nothing) == nothing
    assert merged(one, nothing) == merged(nothing, one) == one
    assert merged(one, of(("c", 0.5), ("d", 0.4), 7)) == of(("a", 0.9), ("c", 0.5), 12)
    assert merged(one, of(("a", 0.95), ("d", 0.2), 7)) == of(("a", 0.95), ("b", 0.3), 12)


def test_shots_combine_only_when_all_agree() -> None:
    base = to_vector(VECTORS[0])
    close = [to_embedding(unit((base + 0.3 * to_vector(VECTORS[n])).astype(np.float32))) for n in (1, 2, 3)]
    mean = combine(close, 0.60)
    assert isinstance(mean, bytes)
    assert float(to_vector(mean) @ base) > max(float(to_vector(shot) @ base) for shot in close)
    assert combine([close[0], VECTORS[9], close[2]], 0.60) == (0, 2)
    assert combine([VECTORS[7], VECTORS[8], VECTORS[9]], 0.60) == ()
