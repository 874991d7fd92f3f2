"""Settings in layers: defaults, a file, the environment, the command line. Unknown keys are errors.

An error names the key and the place it came from, so that a person can mend it without a search.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from models.domain.errors import NeedsOperator

ENV_PREFIX = "STOREOPS__"
CONFIGS = Path(__file__).resolve().parent.parent / "configs"
DEFAULT_FILE = CONFIGS / "default.yaml"
SETTINGS_BYTES_MAX = 1024 * 1024

Slug = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,48}$")]
Port = Annotated[int, Field(ge=0, le=65_535)]
Chain = Annotated[str, Field(pattern=r"^([a-z0-9-]{1,48}|.+\.ya?ml)$")]
"""A chain's id, or its file."""
DatabaseUrl = Annotated[str, Field(pattern=r"^postgres(ql)?://")]
BrokerUrl = Annotated[str, Field(pattern=r"^mqtts?://[^/]+")]


class SettingsError(NeedsOperator):
    """A setting is unknown or wrong; the message names each key, its value's problem and its origin."""


def _bare(value: object) -> object:
    """`broker: auto` and `broker: mqtt://…` are short for {kind: auto} and {kind: url, url: …}."""
    if isinstance(value, str):
        return {"kind": "url", "url": value} if "://" in value else {"kind": value}
    return value


class Section(BaseModel):
    """A closed group of settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Database(Section):
    """Which PostgreSQL; `url` null is the embedded one."""

    url: DatabaseUrl | None = None


class Broker(Section):
    """Which MQTT broker."""

    kind: Literal["auto", "mosquitto", "iotcore", "url"] = "auto"
    url: BrokerUrl | None = None
    port: Port = 18830
    ca: Path | None = None
    tls: bool = False
    tls_host: str = "127.0.0.1"
    tls_port: Port = 18883
    certificates_port: Port = 18884
    public_host: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:-]{1,253}$")] | None = None

    @model_validator(mode="before")
    @classmethod
    def _url_implies_kind(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("url") and value.get("kind", "auto") in {"auto", "url"}:
            return {**value, "kind": "url"}
        return value

    @model_validator(mode="after")
    def _agree(self) -> Broker:
        if (self.kind == "url") != (self.url is not None):
            raise ValueError("kind url and a url belong together")
        if self.tls and self.kind in {"iotcore", "url"}:
            raise ValueError("tls is for the mosquitto that is started here; a broker by URL has its own (mqtts://)")
        return self


class Ray(Section):
    """The engine."""

    address: str = "local"
    dashboard: bool = True
    object_store_mib: Annotated[int, Field(ge=80, le=65_536)] = 256


class Gateway(Section):
    """The HTTP edge."""

    host: str = "127.0.0.1"
    port: Port = 8000
    public_url: Annotated[str, Field(pattern=r"^https?://[^/]+")] | None = None


class Provider(Section):
    """Payments and memberships outside."""

    kind: Literal["simulator", "url"] = "simulator"
    url: Annotated[str, Field(pattern=r"^https?://[^/]+")] | None = None
    fee_bps: Annotated[int, Field(ge=0, le=10_000)] | None = 60
    """The fee that was agreed, in basis points of a receipt; a statement's other fee is a difference.
    None: nothing was, so every fee is one."""
    calls_per_s_max: Annotated[float, Field(gt=0, le=10_000)] = 200.0
    """Settlement's calls a second, of each merchant account in each region."""
    calls_in_flight_max: Annotated[int, Field(ge=1, le=1_000)] = 16
    statements_daily: bool = True
    """Statements are fetched and matched by themselves, when a business day is over."""

    @model_validator(mode="before")
    @classmethod
    def _url_implies_kind(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("url"):
            return {**value, "kind": "url"}
        return value

    @model_validator(mode="after")
    def _agree(self) -> Provider:
        if (self.kind == "url") != (self.url is not None):
            raise ValueError("kind url and a url belong together")
        return self


class Faces(Section):
    """Recognition."""

    policy: Literal["production", "demo"] = "production"
    recognisers: dict[Slug, Slug] = {}
    adaptive: bool = False
    workers_min: Annotated[int, Field(ge=1, le=256)] = 1
    workers_max: Annotated[int, Field(ge=1, le=256)] | None = None
    idle_s: Annotated[float, Field(ge=1, le=86_400)] = 60.0
    device: Literal["auto", "cpu"] = "auto"

    @model_validator(mode="after")
    def _agree(self) -> Faces:
        if self.workers_max is not None and self.workers_max < self.workers_min:
            raise ValueError("workers_max is less than workers_min")
        return self


class Privacy(Section):
    """How long what is kept of a person, in days of business time; and how long a member's own link lasts."""

    template_idle_days: Annotated[int, Field(ge=1, le=3_650)] = 365
    after_membership_days: Annotated[int, Field(ge=1, le=3_650)] = 90
    decision_days: Annotated[int, Field(ge=1, le=3_650)] = 90
    link_hours: Annotated[int, Field(ge=1, le=24 * 31)] = 72


class Region(Section):
    """The deployment's only region: the short form of `regions`."""

    name: Slug = "local"
    chain: Chain = "chain"
    slots: Annotated[int, Field(ge=1, le=256)] = 1


class RegionBroker(Section):
    """A region's own broker; `url` null: the deployment's."""

    url: BrokerUrl | None = None


class RegionPlace(Section):
    """One of several regions, by name. What it has of its own is a URL; null: the deployment's."""

    chain: Chain
    slots: Annotated[int, Field(ge=1, le=256)] = 1
    database: Database = Database()
    broker: RegionBroker = RegionBroker()


class Clock(Section):
    """The business clock."""

    may_jump: bool = False


@dataclass(frozen=True, slots=True)
class Layer:
    """One origin of values: nested mapping, and what to call it in messages."""

    origin: str
    values: Mapping[str, Any]


class _LayerSource(InitSettingsSource):
    """One layer for pydantic-settings."""

    def __init__(self, settings_cls: type[BaseSettings], layer: Layer) -> None:
        super().__init__(settings_cls, init_kwargs=dict(layer.values))


class Settings(BaseSettings):
    """All settings of one start. Made by `load_settings`; the defaults equal configs/default.yaml."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, env_prefix=ENV_PREFIX)

    data_dir: Path | None = None
    database: Database = Database()
    broker: Annotated[Broker, BeforeValidator(_bare)] = Broker()
    ray: Ray = Ray()
    gateway: Gateway = Gateway()
    provider: Annotated[Provider, BeforeValidator(_bare)] = Provider()
    faces: Faces = Faces()
    privacy: Privacy = Privacy()
    region: Region = Region()
    regions: dict[Slug, RegionPlace] = {}
    clock: Clock = Clock()

    @property
    def places(self) -> dict[str, RegionPlace]:
        """Every region by name, in the order of the file; the short form is one of them."""
        one = self.region
        return dict(self.regions) or {one.name: RegionPlace(chain=one.chain, slots=one.slots)}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only the layers handed over by `load_settings`: nothing is read behind its back."""
        assert isinstance(init_settings, InitSettingsSource)
        layers: list[Layer] = init_settings.init_kwargs.get("layers", [])
        return tuple(_LayerSource(settings_cls, layer) for layer in reversed(layers))


def _expand(values: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """The bare forms of broker and provider, and a list of regions, spelled out, so that layers merge key by key."""
    expanded = {key: _bare(value) if key in {"broker", "provider"} else value for key, value in values.items()}
    if "regions" in expanded:
        expanded["regions"] = _by_name(expanded["regions"], origin)
    return expanded


def _by_name(regions: Any, origin: str) -> Any:
    """`[{name: south, …}, …]` as `{south: {…}, …}`. What is neither is left for the validation to refuse."""
    if isinstance(regions, list):
        named: dict[str, Any] = {}
        for region in regions:
            if not isinstance(region, dict) or not isinstance(region.get("name"), str):
                raise SettingsError("settings_invalid", f"regions (from {origin}): a region without a name", "name it")
            values = dict(region)
            name = values.pop("name")
            if name in named:
                raise SettingsError(
                    "settings_invalid", f"regions (from {origin}): two regions of the name {name!r}", "rename one"
                )
            named[name] = values
        regions = named
    if not isinstance(regions, dict):
        return regions
    return {name: _region_spelled_out(values) for name, values in regions.items()}


def _region_spelled_out(values: Any) -> Any:
    if not isinstance(values, dict) or not isinstance(values.get("broker"), str):
        return values
    return {**values, "broker": {"url": values["broker"]}}


def _beside(folder: Path, values: Any) -> Any:
    """Chain files that a settings file names are looked for beside it."""
    if isinstance(values, dict) and isinstance(values.get("chain"), str):
        file = folder / values["chain"]
        if file.suffix in {".yaml", ".yml"} and file.exists():
            return {**values, "chain": str(file.resolve())}
    return values


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML where a key that is there twice is an error: the last one would win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _file_layer(path: Path) -> Layer:
    try:
        if path.stat().st_size > SETTINGS_BYTES_MAX:
            raise SettingsError("settings_file", f"{path}: larger than {SETTINGS_BYTES_MAX} bytes", "name a YAML file")
        values = _StrictLoader(path.read_text(encoding="utf-8")).get_single_data()
    except OSError as error:
        raise SettingsError("settings_file", f"{path}: {error.strerror}", "check --config") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError("settings_file", f"{path}: not YAML: {error}", "mend the file") from error
    values = {} if values is None else values
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise SettingsError("settings_file", f"{path}: the top is not a mapping of names", "see configs/default.yaml")
    expanded = _expand(values, str(path))
    if isinstance(regions := expanded.get("regions"), dict):
        expanded["regions"] = {name: _beside(path.parent, region) for name, region in regions.items()}
    if "region" in expanded:
        expanded["region"] = _beside(path.parent, expanded["region"])
    return Layer(str(path), expanded)


def _env_layers(environment: Mapping[str, str]) -> list[Layer]:
    """One layer per variable, so that an error can name it. Values are read as YAML: 8000, true, null."""
    layers = []
    for name in sorted(environment):
        if not name.startswith(ENV_PREFIX):
            continue
        path = [part.lower() for part in name.removeprefix(ENV_PREFIX).split("__")]
        try:
            value = yaml.safe_load(environment[name])
        except yaml.YAMLError as error:
            raise SettingsError("settings_env", f"{name}: {error}", "quote the value") from error
        for part in reversed(path[1:]):
            value = {part: value}
        layers.append(Layer(name, _expand({path[0]: value}, name)))
    return layers


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _layers(config: Path | None, overrides: Mapping[str, Any], environment: Mapping[str, str]) -> list[Layer]:
    layers = [_file_layer(DEFAULT_FILE)] if DEFAULT_FILE.exists() else []
    if config is not None:
        layers.append(_file_layer(config))
    layers += _env_layers(environment)
    nested: dict[str, Any] = {}
    for key, value in overrides.items():  # "gateway.port": 8001 or {"gateway": {"port": 8001}}
        place = nested
        *parents, last = key.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    if nested:
        layers.append(Layer("command line", _expand(nested, "command line")))
    return layers


def load_settings(
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Reads all layers. `overrides` win; keys may be dotted (`{"gateway.port": 8001}`).

    Raises SettingsError (`settings_file`, `settings_env`, `settings_invalid`).
    """
    return load_with_origins(config, overrides, environment)[0]


def load_with_origins(
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[Settings, dict[str, str]]:
    """As `load_settings`; and for each dotted key the file, variable or place that set it."""
    layers = _layers(config, overrides or {}, os.environ if environment is None else environment)
    origins: dict[str, str] = {}
    for layer in layers:
        origins |= dict.fromkeys(_flatten(layer.values), layer.origin)
    try:
        # `layers` reaches only settings_customise_sources; no field has this name.
        settings = Settings(layers=layers)  # type: ignore[call-arg]
    except ValidationError as error:
        lines = [_explain(key.get("loc", ()), key["msg"], layers) for key in error.errors()]
        raise SettingsError(
            "settings_invalid", "\n".join(lines), "see configs/default.yaml for every key and its meaning"
        ) from error
    _refuse_both_forms(settings, origins)
    known = _flatten(settings.model_dump())
    return settings, {key: origins.get(key, "default") for key in known}


def _refuse_both_forms(settings: Settings, origins: Mapping[str, str]) -> None:
    """`region` of the shipped file is a default; set anywhere else beside `regions` it would be ignored in silence."""
    said = [(key, at) for key, at in origins.items() if key.startswith("region.") and at != str(DEFAULT_FILE)]
    if settings.regions and said:
        key, at = said[0]
        raise SettingsError(
            "settings_invalid", f"{key} (from {at}): region is the short form of regions", "name each under regions"
        )


def _explain(location: tuple[int | str, ...], message: str, layers: list[Layer]) -> str:
    key = ".".join(str(part) for part in location)
    origin = "default"
    for layer in layers:
        flat = _flatten(layer.values)
        if any(name == key or name.startswith(f"{key}.") or key.startswith(f"{name}.") for name in flat):
            origin = layer.origin
    reason = "unknown key" if message.startswith("Extra inputs") else message
    return f"{key} (from {origin}): {reason}"


def flat_settings(settings: Settings) -> dict[str, Any]:
    """Every setting by its dotted key."""
    return _flatten(settings.model_dump(mode="json"))


def masked(url: str | None) -> str | None:
    """The URL without its password, for screens and logs."""
    if url is None or (parts := urlsplit(url)).password is None:
        return url
    return url.replace(f":{parts.password}@", ":***@", 1)
