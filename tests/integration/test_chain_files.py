"""Chains' files: what ships is right and quick to read; what is broken is said whole, with line and column."""

from __future__ import annotations

import runpy
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from devices.profiles import PROFILES
from models.domain.chain_settings import SETTINGS, Kind, Level
from models.domain.errors import NeedsOperator
from models.domain.ids import is_topic_level
from runtime.chain_check import check_chain
from runtime.chain_documents import ChainDoc
from runtime.chains import read_chain, terminals_of
from runtime.config_cli import config_app
from runtime.config_views import Asked, of_file
from runtime.settings import CONFIGS

CHAINS = CONFIGS / "chains"
SHIPPED = sorted(CHAINS.glob("*.yaml"))
KAPOK = CHAINS / "kapok.yaml"


def chain(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((CHAINS / "harbour.yaml").read_text(encoding="utf-8"))
    return document | changes


def written(folder: Path, document: dict[str, Any] | str) -> Path:
    path = folder / "chain.yaml"
    text = document if isinstance(document, str) else yaml.safe_dump(document, allow_unicode=True, sort_keys=False)
    path.write_text(text, encoding="utf-8")
    return path


def said(path: Path) -> dict[str, str]:
    return {finding.key: f"{finding.message} → {finding.do}" for finding in check_chain(path).findings}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.stem))
def test_what_ships_is_right(path: Path) -> None:
    checked = check_chain(path)
    assert checked.findings == ()
    assert checked.doc is not None
    assert all(is_topic_level(store.id) for store in checked.doc.stores)


def test_the_shipped_chains_can_run_in_one_deployment_and_differ_in_what_matters() -> None:
    docs = [read_chain(path) for path in SHIPPED]
    stores = Counter(store.id for doc in docs for store in doc.stores)
    entities = Counter(entity.id for doc in docs for entity in doc.entities)
    plans = Counter(plan for doc in docs for plan in doc.plans)
    assert max([*stores.values(), *entities.values(), *plans.values()]) == 1
    brands = [doc for doc in docs if doc.chain in ("kapok", "tianshan", "clearwater")]
    assert {doc.language for doc in brands} == {"zh", "en"}
    assert len({(doc.zone, doc.cutoff_hour) for doc in brands}) == 3
    assert {store.basket_owner for doc in brands for store in doc.stores} == {"pos", "storeops", "none"}
    assert {one.profile for doc in brands for one in terminals_of(doc, "k")} == PROFILES.keys() - {
        "dragonfly-extension"
    }


def test_a_thousand_stores_of_three_terminals_with_labels_are_read_in_a_second() -> None:
    began = time.process_time()
    doc = read_chain(KAPOK)
    took_s = time.process_time() - began
    assert took_s < 1.0
    assert (len(doc.stores), len(terminals_of(doc, "k"))) == (1000, 3000)
    labels = Counter(store.labels["city"] for store in doc.stores)
    assert len(labels) == 9
    assert {store.labels["owner"] for store in doc.stores} == {"own", "franchise"}
    assert {"street", "station", "campus"} <= {store.labels["format"] for store in doc.stores}
    assert all(store.labels["opened"].isdecimal() for store in doc.stores)


def test_the_script_writes_the_stores_that_ship() -> None:
    script = runpy.run_path(str(CONFIGS.parent / "scripts" / "kapok_stores.py"))
    assert script["text"]() == (CHAINS / "kapok-stores.csv").read_text(encoding="utf-8")


def test_everything_that_is_wrong_is_said_at_once_with_its_line_and_column(tmp_path: Path) -> None:
    document = yaml.safe_dump(chain(cutoff_hour=27, zonne="x"), sort_keys=False)
    lines = [*document.splitlines(), "settings:", "  sound: {volume: 40}", "  face: {enabled: 'yes'}", "  offers: null"]
    checked = check_chain(written(tmp_path, "\n".join(lines)))
    places = {finding.key: (finding.place.line, finding.place.column) for finding in checked.findings}
    first = len(lines) - 3
    assert places["settings.sound.volume"] == (first + 1, 11)
    assert places["settings.face.enabled"] == (first + 2, 10)
    assert {"cutoff_hour", "zonne"} == places.keys() - {"settings.sound.volume", "settings.face.enabled"}
    assert said(checked.findings[0].place.file)["zonne"] == "unknown key → did you mean zone?"
    with pytest.raises(NeedsOperator) as refused:
        read_chain(tmp_path / "chain.yaml")
    assert refused.value.code == "chain_wrong"
    assert refused.value.message.count("chain.yaml:") == 4


@pytest.mark.parametrize(
    ("text", "key", "wrong"),
    [
        ("chain: a\nchain: b\n", "chain", "twice, first in line 1"),
        ("chain: [a\n", "", "not YAML"),
        ("- a\n", "", "the top is no mapping"),
        ("", "", "the top is no mapping"),
    ],
)
def test_a_broken_file_is_refused_and_never_half_read(tmp_path: Path, text: str, key: str, wrong: str) -> None:
    path = written(tmp_path, text)
    assert wrong in said(path)[key]
    with pytest.raises(NeedsOperator):
        read_chain(path)


def test_a_key_that_is_there_twice_deep_inside_is_refused(tmp_path: Path) -> None:
    text = yaml.safe_dump(chain(), sort_keys=False) + "settings: {face: {enabled: false, enabled: true}}\n"
    assert "twice" in said(written(tmp_path, text))["settings.face.enabled"]


@pytest.mark.parametrize(
    ("changes", "key", "wrong"),
    [
        ({"settings": {"software_window": {"from": "02:00"}}}, "settings.software_window", "software_window.to"),
        ({"stores_from": "nowhere.csv"}, "", "check stores_from"),
        ({"stores_from": "../x.csv"}, "stores_from", "no file beside this one"),
        ({"regions": {"south": {"sound": 7}}}, "regions.south.sound", "volume_percent"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, changes: dict[str, Any], key: str, wrong: str) -> None:
    assert wrong in said(written(tmp_path, chain(**changes)))[key]


@pytest.mark.parametrize(
    ("store", "wrong"),
    [
        ({"terminals": {"t1": {"screen": {"brightness_percent": 50}}}}, "a till has no customer screen"),
        ({"terminals": {"x9": {}}}, "has no terminal 'x9'"),
        ({"families": {"f1": "till"}}, "cannot be 'face' in a lane"),
        ({"families": {"t1": "parking"}}, "cannot be 'till'"),
        ({"labels": {"City": "x"}}, "should match pattern"),
    ],
)
def test_a_stores_own_words_are_held_against_its_lanes(tmp_path: Path, store: dict[str, Any], wrong: str) -> None:
    document = chain()
    document["stores"][0] |= store
    assert any(wrong in words for words in said(written(tmp_path, document)).values())


def test_rows_of_stores_are_named_by_their_line(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text(
        "id,zh,en,entity,city\nok-1,一,One,harbour,gz\nBAD ID,二,Two,harbour,gz\nshort,三\n"
    )
    found = check_chain(written(tmp_path, chain(stores_from="s.csv"))).findings
    assert [(one.place.file.name, one.place.line) for one in found] == [("s.csv", 3), ("s.csv", 4)]
    (tmp_path / "s.csv").write_text("id,zh,en,city\n")
    [missing] = check_chain(tmp_path / "chain.yaml").findings
    assert "'entity' is missing" in missing.message


def test_the_narrowest_layer_wins_and_says_where_it_was_written() -> None:
    rows = of_file(KAPOK, Asked(terminal="sz-futian-flagship-f2")).rows()
    lines = KAPOK.read_text(encoding="utf-8").splitlines()

    def at(text: str) -> str:
        return f"kapok.yaml:{next(n for n, line in enumerate(lines, 1) if text in line)}"

    assert rows["screen.slogan.zh"]["value"] == "欢迎光临旗舰店"
    assert rows["screen.slogan.zh"]["origin"] == f"terminal sz-futian-flagship-f2 ({at('欢迎光临旗舰店')})"
    assert rows["screen.brightness_percent"]["origin"].startswith("store sz-futian-flagship")
    assert rows["sound.volume_percent"]["origin"] == f"chain kapok ({at('volume_percent: 60')})"
    assert rows["watchdog.silent_s"]["origin"] == "default storeops"
    assert not any(path.startswith("software_window") for path in rows), "taken away for this store"
    street = of_file(KAPOK, Asked(store="gz-tianhe-shipai-01")).rows()
    assert street["screen.slogan.zh"]["origin"].startswith("region south-china")
    assert street["screen.slogan.en"]["origin"].startswith("chain kapok"), "a region says only what is its own"


def test_the_verbs_of_a_file(tmp_path: Path) -> None:
    run = CliRunner()
    good = str(CHAINS / "clearwater.yaml")
    assert run.invoke(config_app, ["validate", good, "--json"]).exit_code == 0
    broken = written(tmp_path, chain(settings={"sound": {"volume_percent": 400}}))
    result = run.invoke(config_app, ["validate", good, str(broken)])
    assert result.exit_code == 1
    assert "1 to mend" in result.output
    same = run.invoke(config_app, ["diff", good, good, "--json"])
    assert (same.exit_code, '"same": true' in same.output) == (0, True)
    other = written(tmp_path, chain(settings={"sound": {"volume_percent": 40}}))
    differs = run.invoke(config_app, ["diff", str(CHAINS / "harbour.yaml"), str(other)])
    assert differs.exit_code == 1
    assert "chain harbour: sound.volume_percent: (absent) -> 40" in differs.output
    places = [f"{good}#pvg-t1", f"{good}#bj-wudaokou"]
    assert "face.enabled: true -> false" in run.invoke(config_app, ["diff", *places]).output


def test_the_documented_settings_are_the_settings() -> None:
    text = (CONFIGS.parent / "docs" / "configuration.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:3] == "| `"]
    documented = {cells[0].strip("`"): cells for cells in rows if len(cells) == 7}
    assert documented.keys() == {setting.path for setting in SETTINGS}
    for setting in SETTINGS:
        _, values, default, levels, reader, needs, what = documented[setting.path]
        bounds = {Kind.WHOLE: f"{setting.least} to {setting.most}", Kind.TEXT: f"text, {setting.most} characters"}
        assert values == bounds.get(setting.kind, values), setting.path
        assert default == ("" if setting.default is None else str(setting.default).lower()), setting.path
        wanted = (
            "anywhere"
            if setting.levels == frozenset(Level)
            else ", ".join(level for level in Level if level in setting.levels)
        )
        assert (levels, reader, needs, what) == (
            wanted,
            setting.read_by,
            setting.needs,
            f"{setting.en} · {setting.zh}",
        ), setting.path


def test_a_region_has_its_own_stores_and_both_files_of_a_chain_may_stand_elsewhere() -> None:
    doc = read_chain(CHAINS / "clearwater.yaml")
    assert {store.id for store in doc.of_region("campus").stores} == {"sh-fudan", "bj-wudaokou"}
    moved: ChainDoc = doc.model_copy(update={"places": {"chain:clearwater/sound.volume_percent": "elsewhere.yaml:1"}})
    assert moved.without_stores() == doc.without_stores(), "where it was written makes no difference"
