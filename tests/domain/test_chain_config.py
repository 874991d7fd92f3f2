"""A chain's configuration: layers folded, the origin of each value, what is refused and what is said about it."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.domain.chain_config import (
    ABSENT,
    Layer,
    Origin,
    completed,
    differences,
    effective,
    leaves,
    ordered,
    together,
)
from models.domain.chain_refusals import faults
from models.domain.chain_settings import (
    BY_PATH,
    DERIVED,
    SETTINGS,
    Kind,
    Level,
    Needs,
    StoreSettings,
    get,
    store_settings,
)
from models.domain.errors import Refused
from models.domain.ids import MessageId
from models.domain.kill_switch import Switch
from models.domain.twin import Desired, DesiredAsked, change, merged

KEYS = st.sampled_from(["a", "b", "c"])
SCALARS = st.one_of(
    st.integers(0, 3), st.booleans(), st.sampled_from(["x", "y"]), st.lists(st.integers(0, 2), max_size=2)
)
PATCHES = st.recursive(
    st.dictionaries(KEYS, st.one_of(SCALARS, st.none()), max_size=3),
    lambda inside: st.dictionaries(KEYS, st.one_of(SCALARS, st.none(), inside), max_size=3),
    max_leaves=4,
)
STACKS = st.lists(PATCHES, max_size=4)
QUICKLY = settings(max_examples=40)


def fold(patches: list[dict[str, Any]]) -> dict[str, Any]:
    start: dict[str, Any] = {}
    return reduce(lambda done, patch: merged(done, patch), patches, start)


def stack(patches: list[dict[str, Any]]) -> list[Layer]:
    return [Layer("layer", str(n), patch) for n, patch in enumerate(patches)]


# ---------------------------------------------------------------- layers


@QUICKLY
@given(STACKS)
def test_the_effective_document_is_the_fold_of_the_patches(patches: list[dict[str, Any]]) -> None:
    assert effective(stack(patches)).document == fold(patches)


@QUICKLY
@given(STACKS)
def test_each_leaf_names_the_last_layer_that_set_it(patches: list[dict[str, Any]]) -> None:
    found = effective(stack(patches))
    values = dict(leaves(found.document))
    assert found.origins.keys() == values.keys()
    for path, origin in found.origins.items():
        n = int(origin.name)
        folds = [fold(patches[:end]) for end in range(n + 1, len(patches) + 1)]
        # It is there as it is from that layer on; what came after it did not set it again.
        assert all(dict(leaves(one)).get(path, ABSENT) == values[path] for one in folds)
        assert not any(_sets(patch, path) for patch in patches[n + 1 :])
        assert _sets(patches[n], path) or values[path] == {}


def _sets(patch: Any, path: tuple[str, ...]) -> bool:
    for key in path:
        if not isinstance(patch, dict) or key not in patch:
            return False
        patch = patch[key]
    return patch is not None and patch != {}


@QUICKLY
@given(STACKS, PATCHES)
def test_a_layer_that_says_nothing_or_the_same_again_changes_nothing(
    patches: list[dict[str, Any]], last: dict[str, Any]
) -> None:
    once = effective(stack([*patches, last]))
    assert effective(stack([*patches, last, last])).document == once.document
    assert effective(stack([*patches, last, {}])) == once


@QUICKLY
@given(STACKS, st.lists(KEYS, min_size=1, max_size=3))
def test_a_null_takes_a_key_and_all_below_it_away(patches: list[dict[str, Any]], path: list[str]) -> None:
    patch: Any = None
    for key in reversed(path):
        patch = {key: patch}
    found = effective(stack([*patches, patch]))
    assert not any(one[: len(path)] == tuple(path) for one in found.origins)


@QUICKLY
@given(STACKS, STACKS)
def test_differences_are_none_between_equals_and_lead_from_one_to_the_other(
    some: list[dict[str, Any]], others: list[dict[str, Any]]
) -> None:
    one, other = effective(stack(some)).document, effective(stack(others)).document
    assert differences(one, one) == ()
    changed = dict(leaves(one))
    for difference in differences(one, other):
        assert changed.pop(difference.path, ABSENT) == difference.before
        if difference.after is not ABSENT:
            changed[difference.path] = difference.after
    assert changed == dict(leaves(other))


def test_layers_are_ordered_by_level_and_those_of_one_level_stay() -> None:
    names = [("store", "file"), ("chain", "file"), ("store", "live"), ("terminal", "t"), ("region", "r")]
    assert [(one.level, one.name) for one in ordered([Layer(*name, {}) for name in names])] == [
        ("chain", "file"),
        ("region", "r"),
        ("store", "file"),
        ("store", "live"),
        ("terminal", "t"),
    ]


def test_an_origin_says_level_name_and_place() -> None:
    places = {("sound", "volume_percent"): "kapok.yaml:12", (): "kapok.yaml"}
    found = effective([Layer("store", "s1", {"sound": {"volume_percent": 0}, "language": "en"}, places)])
    assert str(found.origins["sound", "volume_percent"]) == "store s1 (kapok.yaml:12)"
    assert str(found.origins[("language",)]) == "store s1 (kapok.yaml)"
    assert str(Origin("chain", "chain")) == "chain"


# ---------------------------------------------------------------- settings


def test_defaults_fill_what_is_not_set_and_a_null_brings_them_back() -> None:
    chain = Layer("chain", "c", {"sound": {"volume_percent": 5}, "screen": {"slogan": {"zh": "木棉"}}})
    store = Layer("store", "s", {"sound": {"volume_percent": None}})
    found = completed(effective([chain, store]))
    assert get(found.document, "sound.volume_percent") == 60
    assert found.origins["sound", "volume_percent"].level == "default"
    assert found.origins["screen", "slogan", "zh"].level == "chain"
    assert found.document.keys() >= {"face", "timeouts", "watchdog"}
    assert "software_window" not in found.document, "what has no default is not there"


def test_a_terminal_is_not_told_what_its_family_cannot_do() -> None:
    layer = Layer("chain", "c", {"screen": {"slogan": {"zh": "木棉"}}})
    till = completed(effective([layer]), frozenset({Needs.OFFLINE_TILL})).document
    assert not {"screen", "sound", "face"} & till.keys()
    assert till["offline_sales"] == {"enabled": True}
    face = completed(effective([layer]), frozenset({Needs.CAMERA, Needs.CUSTOMER_SCREEN})).document
    assert {"screen", "sound", "face"} <= face.keys()
    assert "offline_sales" not in face


@pytest.mark.parametrize(
    ("patch", "level", "key", "said"),
    [
        ({"sound": {"volume": 4}}, Level.STORE, "sound.volume", "did you mean sound.volume_percent?"),
        ({"volume_percent": 4}, Level.STORE, "volume_percent", "did you mean sound.volume_percent?"),
        ({"sounds": {}}, Level.STORE, "sounds", "did you mean sound?"),
        ({"sound": {"volume_percent": 101}}, Level.STORE, "sound.volume_percent", "from 0 to 100"),
        ({"sound": {"volume_percent": True}}, Level.STORE, "sound.volume_percent", "whole number"),
        ({"sound": {"volume_percent": 1.5}}, Level.STORE, "sound.volume_percent", "whole number"),
        ({"sound": 4}, Level.STORE, "sound", "set sound.volume_percent"),
        ({"face": {"enabled": "false"}}, Level.STORE, "face.enabled", "true or false"),
        ({"face": {"enabled": 0}}, Level.STORE, "face.enabled", "true or false"),
        ({"face": {"enabled": False}}, Level.TERMINAL, "face.enabled", "chain, region, store"),
        ({"language": "zh"}, Level.CHAIN, "language", "region, store"),
        ({"language": "fr"}, Level.STORE, "language", "zh, en"),
        ({"screen": {"slogan": {"zh": "木" * 41}}}, Level.STORE, "screen.slogan.zh", "40 characters"),
        ({"screen": {"slogan": {"zh": "两\n行"}}}, Level.STORE, "screen.slogan.zh", "one line"),
        ({"software_window": {"from": 180}}, Level.CHAIN, "software_window.from", "in quotes"),
        ({"software_window": {"from": "24:00"}}, Level.CHAIN, "software_window.from", "in quotes"),
        ({"software_window": {"zone": "Mars/Olympus"}}, Level.CHAIN, "software_window.zone", "Asia/Shanghai"),
        ({"consents": []}, Level.CHAIN, "consents", "chain's book"),
        (["sound"], Level.CHAIN, "", "names and values"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(patch: object, level: Level, key: str, said: str) -> None:
    [fault] = faults(patch, level)
    assert fault.key == key
    assert said in fault.do


def test_all_that_is_wrong_is_said_at_once_and_a_null_is_right_anywhere() -> None:
    patch = {"sound": {"volume": 4}, "face": {"enabled": "no", "digits_required": None}, "screen": None, "offers": 3}
    assert [fault.key for fault in faults(patch, Level.CHAIN)] == ["sound.volume", "face.enabled", "offers"]


@QUICKLY
@given(st.data())
def test_a_value_fits_exactly_when_it_is_of_its_type_and_within_its_bounds(data: st.DataObject) -> None:
    setting = data.draw(st.sampled_from(SETTINGS))
    value = data.draw(st.one_of(st.integers(-5, 4000), st.booleans(), st.text(max_size=80), st.none(), st.floats()))
    expected = {
        Kind.FLAG: type(value) is bool,
        Kind.WHOLE: type(value) is int and setting.least <= value <= setting.most,
        Kind.TEXT: type(value) is str and len(value) <= setting.most and value.isprintable(),
    }
    if setting.kind in expected:
        assert setting.fits(value) is expected[setting.kind]


def test_the_list_is_sound() -> None:
    for setting in SETTINGS:
        assert setting.default is None or setting.fits(setting.default), setting.path
        assert setting.levels, setting.path
        assert setting.zh, setting.path
        assert setting.en, setting.path
        assert setting.keys[0] not in DERIVED, setting.path
        assert not any(setting.keys[:n] in BY_PATH for n in range(1, len(setting.keys))), "a setting below a setting"


def test_a_window_needs_both_its_ends() -> None:
    assert together({"software_window": {"from": "02:00", "to": "04:00"}}) == ()
    [fault] = together({"software_window": {"from": "02:00"}})
    assert "software_window.to" in fault.do


def test_what_a_host_acts_by() -> None:
    assert store_settings({}) == StoreSettings()
    document = {"face": {"enabled": False}, "offers": {"enabled": False}, "receipt": {"footer": {"en": "Bye"}}}
    found = store_settings({**document, "timeouts": {"idle_s": "soon"}})
    assert found.off == (Switch.FACE, Switch.OFFERS)
    assert (found.footer("en"), found.footer("zh")) == ("Bye", "")
    assert found.idle_s == 300, "what does not fit any more counts as if it were not there"


def test_a_terminals_own_change_is_held_against_the_settings_too() -> None:
    def asked(patch: str) -> DesiredAsked:
        return DesiredAsked(MessageId("m"), "{}", patch)

    for patch in ('{"sound":{"volume_percent":101}}', '{"face":{"enabled":false}}', '{"sound":7}'):
        with pytest.raises(Refused) as refused:
            change(Desired(), asked(patch), 0)
        assert refused.value.code == "bad_config"
    assert change(Desired(), asked('{"led_colour":"red"}'), 0)[1] == '{"led_colour":"red"}', "a vendor's own key"
