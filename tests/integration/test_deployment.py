"""What a deployment of several regions may look like, and what is refused before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from models.domain.errors import NeedsOperator
from models.domain.ids import ChainId, RegionId
from runtime.datadir import open_data_dir
from runtime.deployment import Place, places_of
from runtime.furnish import furnish
from runtime.plant import Plant, choose
from runtime.servers import Databases
from runtime.settings import CONFIGS, SettingsError, load_settings, load_with_origins

DEMO, HARBOUR = CONFIGS / "chains" / "demo.yaml", CONFIGS / "chains" / "harbour.yaml"
EAST = "postgresql://u:p@east/books"


def settings_file(folder: Path, text: str) -> Path:
    file = folder / "regions.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def chain_file(folder: Path, name: str, **changes: Any) -> Path:
    """The small chain's file with some of it changed."""
    file = folder / name
    document = yaml.safe_load(HARBOUR.read_text(encoding="utf-8")) | changes
    file.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    return file


def places(folder: Path, regions: dict[str, Any], chain: Path | None = None) -> tuple[Place, ...]:
    return places_of(
        load_settings(settings_file(folder, yaml.safe_dump({"regions": regions}, sort_keys=False)), {}, {}), chain
    )


def refusal(folder: Path, regions: dict[str, Any], chain: Path | None = None) -> NeedsOperator:
    with pytest.raises(NeedsOperator) as refused:
        places(folder, regions, chain)
    return refused.value


def test_regions_as_a_list_or_by_name_with_what_is_their_own(tmp_path: Path) -> None:
    listed = f"""
broker: mqtt://all:secret@broker
regions:
  - {{name: south, chain: demo.yaml, slots: 2}}
  - {{name: east, chain: harbour.yaml, database: {{url: "{EAST}"}}, broker: "mqtts://u:p@far"}}
"""
    named = f"""
broker: mqtt://all:secret@broker
regions:
  south: {{chain: demo.yaml, slots: 2}}
  east: {{chain: harbour.yaml, database: {{url: "{EAST}"}}, broker: {{url: "mqtts://u:p@far"}}}}
"""
    found = [places_of(load_settings(settings_file(tmp_path, text), {}, {})) for text in (listed, named)]
    assert found[0] == found[1]
    south, east = found[0]
    assert (south.name, south.chain, south.slots, south.database_url) == ("south", "sunrise", 2, None)
    assert south.broker_url == "mqtt://all:secret@broker"
    assert (east.name, east.chain, east.database_url, east.broker_url) == ("east", "harbour", EAST, "mqtts://u:p@far")


def test_the_short_form_is_one_region() -> None:
    settings = load_settings(None, {"region": {"name": "local", "chain": "sunrise"}}, {})
    [place] = places_of(settings, HARBOUR)
    assert (place.name, place.chain) == ("local", "harbour"), "the file says which chain it is"
    [place] = places_of(settings)
    assert (place.chain, place.doc) == ("sunrise", None)


def test_later_layers_win_within_a_region_and_origins_say_so(tmp_path: Path) -> None:
    file = settings_file(tmp_path, "regions: [{name: south, chain: sunrise}]")
    settings, origins = load_with_origins(file, {}, {"STOREOPS__REGIONS__SOUTH__SLOTS": "4"})
    assert settings.regions["south"].slots == 4
    assert origins["regions.south.slots"] == "STOREOPS__REGIONS__SOUTH__SLOTS"
    assert origins["regions.south.chain"] == str(file)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("regions: [{name: south, chain: a}, {name: south, chain: b}]", "two regions of the name 'south'"),
        ("regions: {south: {chain: a}, south: {chain: b}}", "the key 'south' is there twice"),
        ("regions: [{chain: a}]", "a region without a name"),
        ("regions: {south: {chain: a, colour: red}}", "regions.south.colour"),
        ("regions: {south: {chain: a, database: {name: x}}}", "regions.south.database.name"),
        ("regions: {south: {chain: a, broker: {kind: iotcore}}}", "regions.south.broker.kind"),
        ("regions: {south: {slots: 2}}", "regions.south.chain"),
        ("regions: {'So uth': {chain: a}}", "regions.So uth"),
        ("regions: south", "regions"),
        ("regions: {south: {chain: a}}\nregion: {name: east}", "region is the short form of regions"),
    ],
)
def test_a_wrong_region_is_an_error_that_names_it(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(settings_file(tmp_path, text), {}, {})
    assert says in refused.value.message


def test_a_chain_in_two_regions_says_which_store_is_where(tmp_path: Path) -> None:
    stores = yaml.safe_load(HARBOUR.read_text(encoding="utf-8"))["stores"]
    both = {"north": {"chain": "both.yaml"}, "east": {"chain": "both.yaml"}}
    chain_file(tmp_path, "both.yaml")
    twice = refusal(tmp_path, both)
    assert (twice.code, "sh-huangpu" in twice.message, "regions north and east" in twice.message) == (
        "store_twice",
        True,
        True,
    )
    for store, region in zip(stores, ("north", "east"), strict=True):
        store["region"] = region
    chain_file(tmp_path, "both.yaml", stores=stores)
    found = places(tmp_path, both)
    assert [[store.id for store in place.doc.stores] for place in found if place.doc] == [["sh-huangpu"], ["sh-pudong"]]
    stores[0]["region"] = "nowhere"
    chain_file(tmp_path, "both.yaml", stores=stores)
    assert refusal(tmp_path, both).code == "store_nowhere"


def test_ids_that_two_chains_may_not_share(tmp_path: Path) -> None:
    two = {"south": {"chain": str(HARBOUR)}, "east": {"chain": "other.yaml"}}
    entity = [{"id": "company", "name": {"zh": "甲", "en": "A"}}]
    stores = [{"id": "n-1", "name": {"zh": "甲", "en": "A"}, "entity": "company"}]
    chain_file(tmp_path, "other.yaml", chain="other", entities=entity, plans=[])
    assert refusal(tmp_path, two).code == "store_twice"
    chain_file(tmp_path, "other.yaml", chain="other", stores=stores, plans=[])
    assert refusal(tmp_path, two).code == "entity_twice"
    chain_file(tmp_path, "other.yaml", chain="other", stores=stores, entities=entity)
    assert refusal(tmp_path, two).code == "plan_twice"
    two["east"]["database"] = {"url": EAST}  # type: ignore[assignment]
    assert len(places(tmp_path, two)) == 2, "each database has its own plans"
    chain_file(tmp_path, "other.yaml", stores=stores, language="zh")
    assert refusal(tmp_path, two).code == "chain_differs"


def test_a_chains_file_applies_to_the_regions_of_its_chain(tmp_path: Path) -> None:
    two = {"south": {"chain": "sunrise"}, "east": {"chain": "harbour"}}
    south, east = places(tmp_path, two, HARBOUR)
    assert (south.doc, east.doc is not None) == (None, True)
    assert refusal(tmp_path, {"south": {"chain": "a"}, "east": {"chain": "b"}}, HARBOUR).code == "chain_which"


def test_a_verb_names_the_regions_that_it_may_be_asked_for() -> None:
    plants = [Plant(Path(), region=RegionId(name), chain=ChainId("c")) for name in ("south", "east")]
    assert choose(plants, "east") is plants[1]
    assert choose(plants[:1]) is plants[0]
    for name in (None, "west"):
        with pytest.raises(NeedsOperator) as refused:
            choose(plants, name)
        assert refused.value.code == "which_region"
        assert "south, east" in f"{refused.value.message} {refused.value.do}"


def one(url: str, name: str = "south", chain: Path = HARBOUR) -> Place:
    [place] = places_of(load_settings(None, {"region": {"name": name, "chain": str(chain)}}, {}))
    return Place(place.name, place.chain, place.slots, place.doc, url)


def test_another_deployments_database_is_refused_and_left_alone(data_dir: Path, database_url: str) -> None:
    data = open_data_dir(data_dir)
    with psycopg.connect(database_url, autocommit=True) as conn:
        Databases(data, [one(database_url)], "ours").start()
        Databases(data, [one(database_url)], "ours").start()
        conn.execute("DROP TABLE inbox CASCADE")
        with pytest.raises(NeedsOperator) as refused:
            Databases(data, [one(database_url)], "theirs").start()
        assert refused.value.code == "foreign_database"
        assert "region south" in refused.value.message
        assert "secrets/" in refused.value.do


def test_two_urls_of_one_database_are_one(data_dir: Path, database_url: str) -> None:
    again = f"{database_url}&application_name=again"
    found = Databases(open_data_dir(data_dir), [one(database_url), one(again, "east")], "ours")
    assert set(found.start().values()) == {database_url}
    assert found.distinct == [database_url]


async def test_a_store_keeps_its_region(data_dir: Path, migrated_database_url: str) -> None:
    data, url = open_data_dir(data_dir), migrated_database_url

    async def apply(place: Place) -> None:
        await furnish(data, [place], {place.name: url}, provider_url="http://127.0.0.1:9", may_jump=False, key="k")

    with pytest.raises(Exception, match="connect"):  # nobody answers as the provider: the tables are written before
        await apply(one(url))
    with pytest.raises(NeedsOperator) as refused:
        await apply(one(url, "east"))
    assert refused.value.code == "store_elsewhere"
    assert "region south" in refused.value.message


@pytest.mark.parametrize(
    ("chosen", "code", "says"),
    [
        ({"sunrize": "sface-2021dec-8bit"}, "recogniser_nowhere", "'sunrize', which no region serves"),
        ({"sunrise": "sface"}, "net_unknown", "there are: sface-2021dec-8bit, sface-2021dec"),
    ],
)
def test_a_recogniser_that_nobody_would_use_is_refused_before_anything_starts(
    tmp_path: Path, chosen: dict[str, str], code: str, says: str
) -> None:
    text = yaml.safe_dump({"region": {"name": "south", "chain": "sunrise"}, "faces": {"recognisers": chosen}})
    with pytest.raises(NeedsOperator) as refused:
        places_of(load_settings(settings_file(tmp_path, text), {}, {}))
    assert refused.value.code == code
    assert says in refused.value.message


def test_a_recogniser_of_the_catalogue_is_taken(tmp_path: Path) -> None:
    chosen = {"sunrise": "sface-2021dec-8bit"}
    text = yaml.safe_dump({"region": {"name": "south", "chain": "sunrise"}, "faces": {"recognisers": chosen}})
    [place] = places_of(load_settings(settings_file(tmp_path, text), {}, {}))
    assert place.chain == "sunrise"
