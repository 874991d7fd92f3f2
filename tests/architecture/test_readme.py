"""What the documents promise exists: commands, targets, files, keys, codes and figures."""

from __future__ import annotations

import json
import re
import runpy
import struct
from functools import cache
from typing import Any

import pytest
import typer
import yaml

from devices import topics
from devices.codec import EVENT_TYPES
from devices.profiles import PROFILES
from devices.refusals import WireCode
from models.domain import texts
from models.domain.face_quality import DEMO, PRODUCTION, QualityGates
from models.domain.recognition import THRESHOLDS
from models.domain.screen import ScreenState
from runtime.__main__ import app
from tests.architecture import documents
from tests.architecture.documents import DOCUMENTS, READMES, ROOT, code_rows, rows, section

IMAGE_BYTES_MAX = 300_000
PROTOCOL = (ROOT / "docs" / "terminal-protocol.md").read_text("utf-8")
FACES = (ROOT / "docs" / "faces.md").read_text("utf-8")
RUNNING = (ROOT / "docs" / "running.md").read_text("utf-8")


@cache
def verbs() -> dict[str, set[str]]:
    """Every visible command of the command line, and what stands below it."""
    group: Any = typer.main.get_command(app)
    return {name: set(getattr(one, "commands", {})) for name, one in group.commands.items() if not one.hidden}


def names(document: Any) -> str:
    return str(document.relative_to(ROOT))


# ---------------------------------------------------------------- every document


@pytest.mark.parametrize("document", DOCUMENTS, ids=names)
def test_links_lead_to_files(document: Any) -> None:
    missing = [link for link in documents.links(document.read_text("utf-8")) if not (document.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=names)
def test_commands_and_targets_exist(document: Any) -> None:
    text, known = document.read_text("utf-8"), verbs()
    for typed in documents.commands(text):
        verb, _, below = typed.partition(" ")
        assert verb in known, f"there is no storeops {verb}"
        assert not known[verb] or below in known[verb] | {""}, f"there is no storeops {typed}"
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert documents.make_targets(text) <= targets


# ---------------------------------------------------------------- the two READMEs


@pytest.mark.parametrize("readme", READMES, ids=names)
def test_each_command_and_target_has_its_row(readme: Any) -> None:
    text = readme.read_text("utf-8")
    first_cells = " ".join(cells[0] for cells in rows(text))
    shown = documents.commands(first_cells)
    # A group is shown by each of its commands; bench as one; hosts and settle also by themselves, which do something.
    wanted = {
        name if name == "bench" or not below else f"{name} {one}"
        for name, below in verbs().items()
        for one in below or {""}
    } | {"hosts", "settle"}
    assert shown == wanted
    listed = re.findall(r"^## ([a-z]+) ", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert documents.make_targets(first_cells) == set(listed)


def test_both_languages_say_the_same_in_the_same_order() -> None:
    english, chinese = (readme.read_text("utf-8") for readme in READMES)
    assert documents.heading_levels(english) == documents.heading_levels(chinese)
    assert documents.fences(english, "json") == documents.fences(chinese, "json")
    assert [len(cells) for cells in rows(english)] == [len(cells) for cells in rows(chinese)]
    assert documents.commands(english) == documents.commands(chinese)
    shared = [
        [
            re.sub(r"-(zh|en)\.", "-LANGUAGE.", link.replace(".zh-CN.md", ".md"))
            for link in documents.links(text)
            if "README" not in link.split("/")[0]
        ]
        for text in (english, chinese)
    ]
    assert shared[0] == shared[1]
    bullets = [re.findall(r"^(?:-|\d\.) ", text, re.MULTILINE) for text in (english, chinese)]
    assert bullets[0] == bullets[1]


def test_the_json_shown_has_the_keys_that_the_demonstration_makes() -> None:
    [shown] = [json.loads(block) for block in documents.fences(READMES[0].read_text("utf-8"), "json")]
    made = documents.produced_shape((ROOT / "runtime" / "demo.py").read_text("utf-8"), "_accounts")
    assert documents.shape(shown) == made
    for member in shown["members"]:
        assert member["charge_fen"] == min(member["fee_fen"], member["used_fen"])
        assert member["saved_fen"] == member["used_fen"] - member["charge_fen"]
    seen = shown["recognised"]
    assert seen["asked"] == seen["right"] + seen["wrong"] + seen["refused"]


def test_the_shape_of_a_dict_is_read_from_source() -> None:
    source = (
        "def made(n):\n    return {'n': n, 'p50': 1}\n"
        "async def accounts():\n"
        "    members = [{'id': row[0], 'state': row[1]} for row in rows]\n"
        "    held = {'ledger': True}\n"
        "    return {'ok': 1, 'm': [{k: v for k, v in one.items() if k != 'state'} for one in members],\n"
        "            'l': made(1), 'held': held}\n"
    )
    expected = {"ok": None, "m": {"id": None}, "l": {"n": None, "p50": None}, "held": {"ledger": None}}
    assert documents.produced_shape(source, "accounts") == expected
    assert documents.shape({"a": [{"b": 1}], "c": {"d": []}}) == {"a": {"b": None}, "c": {"d": None}}


def test_pictures_are_small_and_the_drawing_is_the_script_s() -> None:
    images = ROOT / "docs" / "images"
    for picture in images.glob("*.png"):
        head = picture.read_bytes()[:24]
        width, height = struct.unpack(">II", head[16:24])
        assert picture.stat().st_size < IMAGE_BYTES_MAX
        assert (width, height) == (1280, 800)
    draw = runpy.run_path(str(ROOT / "scripts" / "architecture.py"))["draw"]
    for number, language in enumerate(("zh", "en")):
        assert (images / f"architecture-{language}.svg").read_text("utf-8") == draw(number)


# ---------------------------------------------------------------- the terminal protocol


def test_prompts_are_the_published_list() -> None:
    table = code_rows(section(PROTOCOL, "## Prompts"))
    assert set(table) == texts.prompt_codes()
    params = {
        "look_at_camera": {"shot": "{shot}", "of": "{of}"},
        "returned": {"back": "{back}", "cash": "{cash}"},
        "turn_head": {"direction": "{direction}"},
        "voucher_added": {"name": "{name}", "saves": "{saves}"},
        "voucher_waits": {"name": "{name}", "why": "{why}"},
    }
    for code, (chinese, english) in table.items():
        assert texts.prompt(code, "zh", **params.get(code, {})).text == chinese
        assert texts.prompt(code, "en", **params.get(code, {})).text == english


def test_refusals_are_the_published_list() -> None:
    table = code_rows(section(PROTOCOL, "## Codes of refusal"))
    at_the_door = {str(code) for code in WireCode}
    assert set(table) == texts.refusal_codes() | at_the_door
    for code in texts.refusal_codes():
        zh, en = texts.refusal(code, "zh"), texts.refusal(code, "en")
        assert table[code] == [zh.message, en.message, f"{zh.do} / {en.do}"]


def test_events_channels_and_states_are_those_of_the_code() -> None:
    events = section(PROTOCOL, "## Events")
    assert set(code_rows(events)) == set(EVENT_TYPES)
    channels = {f"up/{one}" for one in topics.Up} | {f"down/{one}" for one in topics.Down}
    assert set(re.findall(r"^\| `((?:up|down)/[a-z]+)`", PROTOCOL, re.MULTILINE)) == channels
    assert set(code_rows(section(PROTOCOL, "## Screen"))) == {str(state) for state in ScreenState}
    profiles = re.search(r"Profiles of this release:\s+([^.]*)\.", PROTOCOL)
    assert profiles is not None
    assert set(re.findall(r"`([^`]+)`", profiles.group(1))) == set(PROFILES)


# ---------------------------------------------------------------- faces, running, decisions


def test_thresholds_and_gates_are_those_of_the_code() -> None:
    points = [
        (int(cells[0].replace(",", "")), float(cells[1]))
        for cells in rows(section(FACES, "## 1:N is a budget"))
        if cells[0][0].isdigit()
    ]
    assert tuple(points) == THRESHOLDS

    def figures(gates: QualityGates) -> list[float | None]:
        return [
            gates.score_min,
            gates.eye_distance_px_min,
            gates.sharpness_min,
            gates.roll_deg_max,
            gates.nose_offset_max,
            gates.luminance_min,
            gates.luminance_max,
        ]

    gates = len(figures(PRODUCTION.probe))
    table = [cells[1:] for cells in rows(section(FACES, "## Quality gates"))[1 : 1 + gates]]
    written = [[None if cell == "-" else float(cell) for cell in column] for column in zip(*table, strict=True)]
    assert written == [figures(PRODUCTION.probe), figures(PRODUCTION.enrol), figures(DEMO.enrol)]


def test_every_setting_is_described() -> None:
    described = set(
        re.findall(r"`([a-z_]+(?:\.[a-z_]+)?)`", "".join(row[0] for row in rows(section(RUNNING, "## Settings"))))
    )
    settings = yaml.safe_load((ROOT / "configs" / "default.yaml").read_text("utf-8"))
    keys = {
        f"{name}.{key}" if isinstance(value, dict) and value else name
        for name, value in settings.items()
        for key in (value if isinstance(value, dict) and value else [""])
    }
    assert described == keys


@pytest.mark.parametrize("decision", sorted((ROOT / "docs" / "decisions").glob("*.md")), ids=lambda path: path.stem)
def test_a_decision_is_short(decision: Any) -> None:
    lines = decision.read_text("utf-8").splitlines()
    assert lines[0].startswith("# ")
    assert len(lines) <= 20
