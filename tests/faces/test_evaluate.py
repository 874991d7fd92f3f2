"""What an evaluation says, on people that do not exist, whose truth is known; and on real photographs."""

from __future__ import annotations

import hashlib
import json
from itertools import combinations
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from models.domain.errors import NeedsOperator, Refused
from models.domain.face_quality import PRODUCTION, FaceKind, LookPurpose, LookReason, QualityPolicy
from models.domain.recognition import THRESHOLDS, Embedding, Seen, Unseen, threshold
from models.faces import calibration
from models.faces.calibration import Figure, Point, Report
from models.faces.catalogue import load_catalogue
from models.faces.evaluation import EVENTS_MIN, compare, evaluate
from models.faces.intervals import Tail, draws, fit_tail, no_event_bound, of_rate, rate_by_person, rounds_for
from models.faces.survey import folders, survey
from runtime.faces_cli import faces_app
from runtime.faces_report import as_markdown
from runtime.faces_verbs import thresholds_in
from tests.faces.reports import QUALITY, made_up_report, made_up_survey

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def report() -> Report:
    return made_up_report()


# ---------------------------------------------------------------- figures whose truth is known


def test_counts_are_those_of_the_survey(report: Report) -> None:
    assert (report.people, report.photographs, report.usable) == (12, 72, 72)
    assert report.genuine_pairs == 12 * 15
    assert report.impostor_pairs == 72 * 71 // 2 - 12 * 15
    assert sum(report.histogram.genuine) == report.genuine_pairs
    assert sum(report.histogram.impostor) == report.impostor_pairs


def test_far_and_tar_are_what_counting_by_hand_says() -> None:
    found = made_up_survey(likeness=0.6)
    report = evaluate(found, THRESHOLDS, net="n", date="d", rounds_max=100)
    vectors = [np.frombuffer(shot.probe or b"", "<f4").astype(np.float64) for shot in found.shots]
    mates: list[float] = []
    strangers: list[float] = []
    for (i, one), (j, other) in combinations(enumerate(vectors), 2):
        same = found.shots[i].person == found.shots[j].person
        (mates if same else strangers).append(float(one @ other))
    for row in report.tar_at_far:
        if row.basis == "measured":
            above = sum(score > row.threshold.value + 1e-4 for score in strangers)
            assert above <= row.far * len(strangers) <= above + 2
            tar = sum(score > row.threshold.value for score in mates) / len(mates)
            assert row.tar.value == pytest.approx(tar, abs=0.01)
    assert [row.basis for row in report.tar_at_far] == ["measured", "extrapolated", "extrapolated"]
    assert report.tar_at_far[1].far * report.impostor_pairs < EVENTS_MIN


def test_isotropic_strangers_are_extrapolated_to_what_is_known_of_them() -> None:
    """Cosines of random directions in 128 dimensions are nearly normal, with spread 1/sqrt(128)."""
    report = made_up_report(people=40, photographs=2)
    spread = 1 / np.sqrt(128)
    for point in report.points:
        far = -np.expm1(np.log1p(-1e-3) / point.searched)
        truth = -spread * NormalDist().inv_cdf(far)
        assert point.threshold.low - 0.03 <= truth <= point.threshold.high + 0.03, point
        assert point.threshold.value == pytest.approx(truth, abs=0.08), point
    assert report.points[0].basis == "measured"
    assert all(point.basis == "extrapolated" for point in report.points[1:])
    values = [point.threshold.value for point in report.points]
    assert values == sorted(values)


def test_fpir_is_the_mean_over_all_galleries() -> None:
    """Against drawing every gallery of three templates of two other people."""
    found = made_up_survey(people=3, photographs=2, likeness=0.9)
    scores = compare(found)
    at = float(np.sort(scores.impostor)[-4])
    report = evaluate(found, ((1, at),), net="n", date="d", rounds_max=100)
    hits = []
    for row, owner in enumerate(scores.owners):
        others = [float(scores.table[row, k]) for k, other in enumerate(scores.owners) if other != owner]
        hits += [max(gallery) >= round(at, 9) - 1e-7 for gallery in combinations(others, 3)]
    three = next(one for one in report.fpir if one.searched == 3)
    assert three.basis == "measured"
    assert three.fpir.value == pytest.approx(np.mean(hits), abs=5e-4)
    assert next(one for one in report.fpir if one.searched == 10).basis == "extrapolated"


def test_three_shots_lift_the_weakest_mates(report: Report) -> None:
    both = report.enrolment
    assert both is not None
    assert both.people == 12
    assert both.comparisons_one == 3 * both.comparisons_three == 12 * 3 * 3
    assert both.weakest_three.value > both.weakest_one.value
    assert list(both.curve_three) == sorted(both.curve_three)


def test_without_a_fourth_photograph_one_shot_is_not_compared_with_three() -> None:
    assert made_up_report(photographs=3).enrolment is None


def test_the_same_survey_gives_the_same_bytes(report: Report) -> None:
    assert calibration.encode(report) == calibration.encode(made_up_report())
    assert calibration.parse(calibration.encode(report)) == report


# ---------------------------------------------------------------- intervals


def test_where_nothing_happened_the_rule_of_three_stands_in() -> None:
    assert no_event_bound(10) == pytest.approx(1 - 0.05 ** (1 / 10))
    assert no_event_bound(300) == pytest.approx(3 / 300, rel=0.01)
    assert no_event_bound(0) == 1.0
    ten = np.full(10, 5.0)
    drawn = draws(10, 200, 1)
    nothing, everything = rate_by_person(np.zeros(10), ten, drawn), rate_by_person(ten, ten, drawn)
    assert (nothing.value, nothing.low) == (0.0, 0.0)
    assert nothing.high == pytest.approx(1 - everything.low)
    assert "rule of three" in nothing.method
    assert of_rate(1.0, np.array([1.0]), 10).low == pytest.approx(0.741, abs=1e-3)


def test_intervals_are_by_person_not_by_comparison() -> None:
    """One person out of ten fails always: the interval knows ten trials, not a thousand."""
    hits, trials = np.array([0.0] + [100.0] * 9), np.full(10, 100.0)
    figure = rate_by_person(hits, trials, draws(10, 1_000, 1))
    assert figure.value == 0.9
    assert figure.low <= 0.72
    assert figure.high == 1.0


def test_the_tail_is_a_line_in_the_normal_plot() -> None:
    fars = np.logspace(-3.5, -1.3, 20)
    tail = fit_tail(fars, 0.1 + 0.08 * np.array([-NormalDist().inv_cdf(float(far)) for far in fars]))
    assert tail.middle == pytest.approx(0.1)
    assert tail.spread == pytest.approx(0.08)
    assert tail.far(tail.threshold(1e-9)) == pytest.approx(1e-9, rel=1e-6)
    assert Tail(0.5, 0.2).threshold(1e-12) == 1.0


def test_rounds_are_bounded() -> None:
    assert (rounds_for(1_000), rounds_for(10**7), rounds_for(10**6)) == (1_000, 100, 200)


# ---------------------------------------------------------------- thresholds


def point(searched: int, value: float, low: float, basis: str = "measured") -> Point:
    figure = Figure(value, low, value + 0.05, "")
    return Point(searched, figure, basis, Figure(1.0, 0.9, 1.0, ""))  # type: ignore[arg-type]


def test_few_people_leave_the_table_and_many_replace_it() -> None:
    points = [point(1, 0.40, 0.35), point(100, 0.47, 0.44), point(1_000, 0.6, 0.58, "extrapolated")]
    few = calibration.propose(points, THRESHOLDS, people=10)
    assert [(one.threshold, one.basis) for one in few] == [(0.36, "table"), (0.48, "table"), (0.58, "raised")]
    many = calibration.propose(points, THRESHOLDS, people=100)
    assert [(one.threshold, one.basis) for one in many] == [(0.40, "measured"), (0.47, "measured"), (0.58, "raised")]


def test_proposed_thresholds_rise_with_n() -> None:
    proposed = calibration.propose([point(1, 0.5, 0.45), point(10, 0.4, 0.3)], ((1, 0.3),), people=500)
    assert [one.threshold for one in proposed] == [0.5, 0.5]


def test_a_threshold_below_the_lower_bound_is_too_lax(report: Report) -> None:
    bound = report.points[2]
    assert calibration.laxer_than(report, ((1, 0.9),)) == []
    lax = ((1, 0.9), (bound.searched, 0.9))
    assert calibration.laxer_than(report, lax) == []
    told = calibration.laxer_than(report, ((1, bound.threshold.low - 0.01),))
    assert any(f"N = {bound.searched}:" in one for one in told)


def test_every_catalogue_net_is_held_against_its_report() -> None:
    held = [entry for entry in load_catalogue() if entry.thresholds]
    assert held
    for entry in held:
        named = entry.thresholds_from
        assert named is not None, f"{entry.name} does not say where its thresholds come from"
        content = (ROOT / named.report).read_bytes()
        assert hashlib.sha256(content).hexdigest() == named.sha256, f"{named.report} is another report"
        report = calibration.parse(content)
        assert (report.net_sha256, report.date) == (entry.identity, named.date)
        assert calibration.laxer_than(report, entry.thresholds) == []
        for one in report.proposed:
            assert round(threshold(one.searched, entry.thresholds), 3) >= one.threshold - 1e-9


@pytest.mark.parametrize(
    "raw",
    [
        {"report": "r.json", "sha256": "0" * 64},
        {"report": "r.json", "sha256": "x" * 64, "date": "2026-11-22"},
        {"report": "r.json", "sha256": "0" * 63, "date": "2026-11-22"},
        {"report": "r.json", "sha256": "0" * 64, "date": "2026-11-22", "more": 1},
        "docs/faces/r.json",
    ],
)
def test_what_names_no_report_is_refused(raw: object) -> None:
    with pytest.raises(ValueError, match="thresholds_from"):
        calibration.thresholds_from(raw)


def test_the_fragment_is_what_the_catalogue_reads(report: Report, tmp_path: Path) -> None:
    content = calibration.encode(report)
    path = tmp_path / "fragment.yaml"
    path.write_text(calibration.fragment(report, "docs/faces/made-up.json", content))
    raw = yaml.safe_load(path.read_text())
    named = calibration.thresholds_from(raw["thresholds_from"])
    assert named is not None
    assert named.id == f"made-up@{hashlib.sha256(content).hexdigest()[:12]}"
    assert thresholds_in(path) == tuple((one.searched, one.threshold) for one in report.proposed)


@pytest.mark.parametrize("text", ["", "thresholds: []", "thresholds: [[2, 0.4]]", "- 1", "thresholds: 7", "{"])
def test_a_file_without_thresholds_says_what_it_should_hold(text: str, tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(text)
    with pytest.raises(NeedsOperator) as refused:
        thresholds_in(path)
    assert refused.value.code == "thresholds"


def test_reports_of_another_form_are_refused(report: Report, tmp_path: Path) -> None:
    document = json.loads(calibration.encode(report))
    with pytest.raises(NeedsOperator):
        calibration.parse(json.dumps(document | {"form": 2}).encode())
    with pytest.raises(NeedsOperator):
        calibration.parse(b"{}")
    (tmp_path / "a.json").write_bytes(b"{}")
    (tmp_path / "b.json").write_bytes(calibration.encode(report))
    assert [name for name, _ in calibration.kept(tmp_path)] == ["b"]
    assert calibration.kept(tmp_path / "nowhere") == []


# ---------------------------------------------------------------- folders


class MadeUpEyes:
    """Sees what a file's name says: `blurred-…` fails, the others are the person of their folder's number."""

    net_sha256 = "0" * 64

    def look(self, jpeg: bytes, *, kind: FaceKind, purpose: LookPurpose, policy: QualityPolicy) -> Seen | Unseen:
        text = jpeg[2:].decode()
        if text.startswith("blurred") or (purpose is LookPurpose.ENROL and text.startswith("far")):
            return Unseen(LookReason.BLURRED if text.startswith("blurred") else LookReason.COME_CLOSER, QUALITY)
        person, number = text.split()[-2:]
        vector = np.zeros(128, np.float32)
        vector[int(person)] = 0.9
        vector[64 + int(number)] = np.sqrt(1 - 0.81)
        return Seen(Embedding(vector.tobytes()), QUALITY)


def photograph(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\xff\xd8" + text.encode())


def test_what_is_left_out_is_named_and_the_rest_counts(tmp_path: Path) -> None:
    for person in range(3):
        for number in range(3):
            photograph(tmp_path / f"p{person}" / f"{number}.jpg", f"{person} {number}")
    photograph(tmp_path / "p0" / "far.jpg", "far 0 5")
    photograph(tmp_path / "p1" / "blurred.jpg", "blurred")
    (tmp_path / "p2" / "empty.jpg").write_bytes(b"")
    (tmp_path / "p2" / "text.png").write_bytes(b"no picture")
    (tmp_path / "p2" / "notes.txt").write_text("not looked at")
    (tmp_path / "nobody").mkdir()
    (tmp_path / "loose.jpg").write_bytes(b"\xff\xd8")
    told: list[tuple[int, int]] = []
    found = survey(tmp_path, MadeUpEyes(), PRODUCTION, lambda done, count: told.append((done, count)))
    assert found.left_out == {
        "loose.jpg": "lies beside the folders: whose is it?",
        "nobody": "no photograph in it",
        "p2/empty.jpg": "empty file",
        "p2/text.png": "no picture that can be read, or one of very many pixels",
    }
    assert (found.refusals_probe, found.refusals_enrol) == ({"blurred": 1}, {"come_closer": 1, "blurred": 1})
    assert told[-1] == (13, 13)
    report = evaluate(found, THRESHOLDS, net="n", date="d", rounds_max=100)
    assert (report.people, report.photographs, report.usable, report.enrollable, report.unreadable) == (3, 13, 10, 9, 2)
    assert report.left_out["empty file"] == 1
    assert not any("p2" in reason for reason in report.left_out), "the kept report names no person"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "holds no folder with photographs"),
        ({"p0/a.txt": "0 0"}, "holds no folder with photographs"),
        ({"p0/a.jpg": "0 0", "p0/b.jpg": "0 1"}, "only one person"),
        ({"p0/a.jpg": "0 0", "p1/a.jpg": "1 0"}, "nobody has two photographs"),
        ({f"p{n}/{m}.jpg": "blurred" for n in range(2) for m in range(2)}, "nobody has photographs"),
    ],
)
def test_folders_that_cannot_be_compared_are_refused(files: dict[str, str], said: str, tmp_path: Path) -> None:
    for name, text in files.items():
        photograph(tmp_path / name, text)
    with pytest.raises(Refused, match=said) as refused:
        survey(tmp_path, MadeUpEyes(), PRODUCTION)
    assert refused.value.code == "photographs"


@pytest.mark.parametrize(
    ("file", "do"),
    [
        ("all/p0/a.jpg", "there is all/p0/a.jpg; they lie deeper: give {}/all"),
        ("a.jpg", "there is a.jpg; put them into one folder per person"),
        ("p0/a.txt", "one folder per person, two photographs each"),
    ],
)
def test_photographs_in_another_place_are_pointed_at(file: str, do: str, tmp_path: Path) -> None:
    photograph(tmp_path / file, "0 0")
    with pytest.raises(Refused) as refused:
        folders(tmp_path)
    assert refused.value.do == do.format(tmp_path)


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="is no folder"):
        folders(tmp_path / "nowhere")


# ---------------------------------------------------------------- the document and the verb


def test_the_document_marks_what_is_extrapolated_and_says_what_it_cannot_tell(report: Report) -> None:
    text = as_markdown(report, {"roc": "made-up-roc.png"})
    assert "![ROC" in text
    assert "made-up-scores" not in text
    for sentence in report.cannot_tell:
        assert sentence in text
    assert "rule of three" in text
    for one in report.fpir:
        assert any(f"| {one.searched:,} |" in line and one.basis in line for line in text.splitlines())
    assert "not measured" in as_markdown(replace_enrolment(report), {}).lower()


def replace_enrolment(report: Report) -> Report:
    fields = {name: getattr(report, name) for name in report.__struct_fields__}
    return Report(**(fields | {"enrolment": None}))


def test_a_proposal_without_a_kept_report_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(faces_app, ["evaluate", str(tmp_path), "--propose", str(tmp_path / "f.yaml")])
    assert isinstance(done.exception, Refused)
    assert done.exception.code == "which_report"


@pytest.mark.faces
def test_photographs_through_the_verb(lfw10: Path, tmp_path: Path) -> None:
    """Three people, three photographs each; a lax threshold is found out."""
    for person in sorted(lfw10.iterdir())[:3]:
        for file in sorted(person.glob("*.jpg"))[:3]:
            target = tmp_path / "few" / person.name / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(file)
    lax = tmp_path / "lax.yaml"
    lax.write_text("thresholds: [[1, -0.9]]")
    arguments = ["evaluate", str(tmp_path / "few"), "--out", str(tmp_path / "out"), "--json"]
    done = CliRunner().invoke(
        faces_app, [*arguments, "--thresholds", str(lax), "--propose", str(tmp_path / "proposed.yaml")]
    )
    assert done.exit_code == 1, done.output
    said = json.loads(done.stdout)
    assert (said["ok"], said["report"]["people"], said["plots"]) == (False, 3, True)
    assert said["report"]["rank1"]["value"] == 1.0
    assert said["report"]["tar_at_far"][0]["tar"]["value"] == 1.0
    assert said["laxer"]
    for path in map(Path, said["written"]):
        assert path.stat().st_size > 0
    assert sum(Path(path).suffix == ".png" for path in said["written"]) >= 5
    kept = (tmp_path / "out" / "few.json").read_bytes()
    named = yaml.safe_load((tmp_path / "proposed.yaml").read_text())["thresholds_from"]
    assert named["sha256"] == hashlib.sha256(kept).hexdigest()
