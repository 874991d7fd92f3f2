"""The document and its plots from kept objects."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from models.domain.errors import NeedsOperator, Refused
from runtime.bench.form import encode
from runtime.bench.render import as_table, draw, render_document
from tests.benchmarks.reports import small_report

ROOT = Path(__file__).resolve().parents[2]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "small.json").write_text(encode(small_report()))
    return folder


def test_the_document_shows_every_row_and_where_it_was_measured(kept: Path) -> None:
    written = render_document(kept, kept.parent / "benchmarks.md")
    text = written[0].read_text(encoding="utf-8")
    assert "| event to screen, p50 | 12 ms | bare round trip: 1.5 ms | 8 | <= 15 | ok |" in text
    assert "| event to screen, by commits | 12 ms | bare commit: 2 ms | 6 |  |  |" in text
    assert "A processor, 2 cores" in text
    assert "load 0.1 before" in text
    assert "All ok." in text
    assert "![small](benchmarks/small.png)" in text
    assert written[1].read_bytes().startswith(PNG)


def test_a_missed_target_is_said_loudly(kept: Path) -> None:
    (kept / "small.json").write_text(encode(small_report(16.0)))
    render_document(kept, kept.parent / "benchmarks.md")
    text = (kept.parent / "benchmarks.md").read_text(encoding="utf-8")
    assert "**Not all ok.**" in text
    assert "| <= 15 | **missed** |" in text


def test_the_same_objects_make_the_same_files(kept: Path) -> None:
    first = [path.read_bytes() for path in render_document(kept, kept.parent / "benchmarks.md")]
    again = [path.read_bytes() for path in render_document(kept, kept.parent / "benchmarks.md")]
    assert first == again


def test_a_benchmark_without_distributions_gets_bars(tmp_path: Path) -> None:
    draw(msgspec.structs.replace(small_report(), quantiles={}), tmp_path / "bars.png")
    assert (tmp_path / "bars.png").read_bytes().startswith(PNG)


def test_money_says_how_it_is_repeated(kept: Path) -> None:
    (kept / "money.json").write_text(encode(msgspec.structs.replace(small_report(), bench="money")))
    render_document(kept, kept.parent / "benchmarks.md")
    section = (kept.parent / "benchmarks.md").read_text(encoding="utf-8").partition("## money")[2].partition("## ")[0]
    assert "`storeops bench money --json --keep docs/benchmarks`" in section
    assert "\n\n| what | value |" in section, "a table needs an empty line before it"


def test_nothing_to_render_is_said(tmp_path: Path) -> None:
    with pytest.raises(NeedsOperator) as nothing:
        render_document(tmp_path, tmp_path / "benchmarks.md")
    assert nothing.value.code == "no_results"


def test_an_object_of_another_form_is_refused(kept: Path) -> None:
    (kept / "other.json").write_text("{}")
    with pytest.raises(Refused):
        render_document(kept, kept.parent / "benchmarks.md")
    assert not (kept.parent / "benchmarks.md").exists()


def test_a_person_sees_the_verdicts() -> None:
    console = Console(width=160, record=True, file=None, quiet=False)
    with console.capture() as shown:
        console.print(as_table(small_report(16.0)))
    assert "NOT ok" in shown.get()
    assert "✗" in shown.get()


def test_the_document_in_this_repository_is_what_its_objects_say(tmp_path: Path) -> None:
    objects = ROOT / "docs" / "benchmarks"
    copy = tmp_path / "benchmarks"
    copy.mkdir()
    for file in objects.glob("*.json"):
        (copy / file.name).write_bytes(file.read_bytes())
    render_document(copy, tmp_path / "benchmarks.md")
    assert (tmp_path / "benchmarks.md").read_text("utf-8") == (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
