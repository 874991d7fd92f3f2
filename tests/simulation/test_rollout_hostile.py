"""What a hostile author of policies, artefacts and selectors writes: each is refused with its reason, and at once."""

from __future__ import annotations

import time

import pytest

from models.domain.errors import Refused
from models.domain.rollout_part import collide, patch_artefact, software_artefact, strange_settings
from runtime.rollout_desk import selected_by
from runtime.rollout_files import PolicyFileError, parse_policy, policy_path

SHIPPED = policy_path("configuration").read_text("utf-8")
ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 9))


@pytest.mark.parametrize("text", [ALIASES, MERGES, "a: &a [*a]", "a: " + "[" * 500 + "]" * 500])
def test_a_bomb_of_aliases_is_put_out(text: str) -> None:
    began = time.process_time()
    with pytest.raises(PolicyFileError, match="is no YAML"):
        parse_policy(text)
    assert time.process_time() - began < 2.0


@pytest.mark.parametrize(
    ("said", "instead", "line"),
    [
        ("zh: 配置与开关：2 → 50 → 全部", 'zh: "a\\0b"', 3),
        ("zh: 配置与开关：2 → 50 → 全部", 'zh: "\\uD800"', 3),
        ("primary: sales_per_day", "primary: [sales_per_day]", 66),
        ("primary: sales_per_day", "primary: {a: 1}", 66),
        ("mde: 0.12", "mde: .inf", 73),
        ("mde: 0.12", "mde: .nan", 73),
        ("zone: Asia/Shanghai", "zone: America", 8),
        ("zone: Asia/Shanghai", 'zone: "../../etc/passwd"', 8),
        ("soak_s: 1800", "soak_s: " + "9" * 5_000, 1),
        ("soak_s: 1800", "soak_s: 2026-99-99", 1),
        ("windows: []", "windows: !!python/object/apply:os.system ['true']", 24),
    ],
)
def test_a_value_that_nobody_can_keep_is_named_with_its_line(said: str, instead: str, line: int) -> None:
    assert said in SHIPPED
    with pytest.raises(PolicyFileError) as refused:
        parse_policy(SHIPPED.replace(said, instead, 1))
    assert refused.value.problems[0].line == line


@pytest.mark.parametrize(
    "patch",
    [{"vendor": {"x": "\0"}}, {"ven\0dor": 1}, {"vendor": "\ud800"}, {"vendor": 10**30}, {"vendor": "\u202egpj.exe"}],
)
def test_a_patch_that_cannot_be_kept_is_no_artefact(patch: dict[str, object]) -> None:
    with pytest.raises(Refused) as refused:
        patch_artefact(patch)
    assert refused.value.code == "bad_config"


@pytest.mark.parametrize("patch", [{"sound": {"volume_percent": 400}}, {"sound": {"volume_percent": "loud"}}])
def test_a_value_that_every_terminal_would_refuse_is_refused_before_the_start(patch: dict[str, object]) -> None:
    with pytest.raises(Refused) as refused:
        patch_artefact(patch)
    assert (refused.value.code, refused.value.do) == ("bad_artefact", "give a whole number from 0 to 100")


def test_a_setting_that_nobody_knows_may_be_a_vendors_and_is_said() -> None:
    [strange] = strange_settings(patch_artefact({"sound": {"volumme_percent": 40}}))
    assert strange == "sound.volumme_percent: did you mean sound.volume_percent?"


@pytest.mark.parametrize(
    "wrong", [{"version": "2\0"}, {"version": {"a": 1}}, {"url": ""}, {"sha256": ["a"]}, {"size_bytes": 0}]
)
def test_a_release_says_what_it_is(wrong: dict[str, object]) -> None:
    release = {"version": "2.0", "url": "http://x/2.0", "sha256": "a" * 64, "size_bytes": 9}
    assert software_artefact(release, release).version == "2.0"
    with pytest.raises(Refused) as refused:
        software_artefact(release | wrong, release)
    assert refused.value.code == "bad_artefact"


@pytest.mark.parametrize("words", [["region=a\0b"], ["store=\ud800"], ["store=" + "x" * 101]])
def test_a_selector_of_words_that_cannot_be_kept(words: list[str]) -> None:
    with pytest.raises(Refused) as refused:
        selected_by(words)
    assert refused.value.code == "bad_selector"


def test_a_selector_has_a_most_of_words() -> None:
    assert len(selected_by([f"store=s-{n}" for n in range(19_000)]).stores) == 19_000
    with pytest.raises(Refused, match="too many words"):
        selected_by([f"store=s-{n}" for n in range(20_001)])


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"vendor": {"x": 1}}, {"vendor": {"x": 2}}, True),
        ({"vendor": {"x": 1}}, {"vendor": {"y": 2}}, False),
        ({"vendor": {"x": 1}}, {"vendor": None}, True),
        ({"vendor": {"x": {"z": 1}}}, {"vendor": {"x": 2}}, True),
    ],
)
def test_a_setting_under_two_keys_is_one_setting(one: dict[str, object], other: dict[str, object], same: bool) -> None:
    assert collide(patch_artefact(one, "a"), patch_artefact(other, "b")) is same
    assert collide(patch_artefact(other), patch_artefact(one, "a")) is same
