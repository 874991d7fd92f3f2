"""Layers of settings, and what a person reads when one is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.settings import DEFAULT_FILE, Settings, SettingsError, load_settings, load_with_origins, masked


def test_the_shipped_file_says_what_the_code_defaults_to() -> None:
    assert load_settings(environment={}) == Settings(layers=[])  # type: ignore[call-arg]


def test_later_layers_win_key_by_key(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(
        "gateway: {port: 9000, public_url: 'https://ops.example'}\nregion: {name: cn-north}\n", encoding="utf-8"
    )
    environment = {"STOREOPS__GATEWAY__PORT": "9001", "STOREOPS__RAY__DASHBOARD": "false", "HOME": "/nowhere"}
    settings, origins = load_with_origins(file, {"gateway.port": 9002, "data_dir": tmp_path}, environment)
    assert (settings.gateway.port, settings.gateway.host) == (9002, "127.0.0.1")
    assert settings.gateway.public_url == "https://ops.example"
    assert (settings.region.name, settings.ray.dashboard, settings.data_dir) == ("cn-north", False, tmp_path)
    assert origins["gateway.port"] == "command line"
    assert origins["gateway.public_url"] == str(file)
    assert origins["ray.dashboard"] == "STOREOPS__RAY__DASHBOARD"
    assert origins["faces.policy"] == str(DEFAULT_FILE)


@pytest.mark.parametrize(
    ("value", "kind"),
    [("auto", "auto"), ("iotcore", "iotcore"), ("mqtt://u:p@h:1", "url"), ({"url": "mqtts://h"}, "url")],
)
def test_the_broker_has_a_short_form(value: object, kind: str) -> None:
    assert load_settings(None, {"broker": value}, {}).broker.kind == kind


def test_a_url_for_the_provider_replaces_the_simulator() -> None:
    settings = load_settings(None, {}, {"STOREOPS__PROVIDER__URL": "https://pay.example"})
    assert (settings.provider.kind, settings.provider.url) == ("url", "https://pay.example")


@pytest.mark.parametrize(
    ("text", "key", "reason"),
    [
        ("gateway: {prot: 1}", "gateway.prot", "unknown key"),
        ("colour: red", "colour", "unknown key"),
        ("region: {slots: 0}", "region.slots", "greater than or equal to 1"),
        ("region: {name: 'A B'}", "region.name", "match pattern"),
        ("broker: rabbit", "broker.kind", "'auto'"),
        ("provider: {kind: url}", "provider", "belong together"),
        ("database: {url: 'mysql://x'}", "database.url", "match pattern"),
        ("gateway: 7", "gateway", "valid dictionary"),
    ],
)
def test_an_error_names_key_file_and_reason(tmp_path: Path, text: str, key: str, reason: str) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as refused:
        load_settings(file, {}, {})
    assert refused.value.message.startswith(f"{key} (from {file})")
    assert reason in refused.value.message


def test_an_error_names_the_variable() -> None:
    with pytest.raises(SettingsError, match=r"faces\.policy \(from STOREOPS__FACES__POLICY\)"):
        load_settings(None, {}, {"STOREOPS__FACES__POLICY": "lax"})


@pytest.mark.parametrize("text", ["- a list", "{", "\x00", "1: 2"])
def test_a_file_that_is_no_settings_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=r"shop\.yaml"):
        load_settings(file, {}, {})
    with pytest.raises(SettingsError, match=r"missing\.yaml"):
        load_settings(tmp_path / "missing.yaml", {}, {})


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text("# nothing\n", encoding="utf-8")
    assert load_settings(file, {}, {}) == load_settings(None, {}, {})


def test_settings_do_not_change() -> None:
    settings = load_settings(None, {}, {})
    with pytest.raises(ValueError, match="frozen"):
        settings.region = settings.region


def test_passwords_are_masked_for_screens() -> None:
    assert masked("postgresql://u:secret@h/d") == "postgresql://u:***@h/d"
    assert masked("mqtt://h") == "mqtt://h"
    assert masked(None) is None
