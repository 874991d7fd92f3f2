"""What the house tells Prometheus: the names are those of the documents, dashboards and alerts, and they move."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from gateway.routes.health import GATEWAY_METRICS
from models.domain.rollout import RolloutState
from runtime import metrics
from runtime.metrics import LATENCY_MS, PUSHED, Kind, Metric, Pusher, representative_ms
from runtime.rollout_figures import RolloutFigures, RoundCounts
from runtime.telemetry import HostCounts
from tests.architecture.documents import ROOT, rows
from tests.integration.house import NOODLES, House, eventually, wait_until

DEPLOY = ROOT / "configs" / "deploy"
DOCUMENT = ROOT / "docs" / "metrics.md"


def exported() -> dict[str, str]:
    """Every name that a query may use -> its kind."""
    names: dict[str, str] = {}
    for metric in PUSHED:
        endings = ("_bucket", "_sum", "_count") if metric.kind is Kind.HISTOGRAM else ("",)
        names |= {f"{metric.exported}{ending}": metric.kind.value for ending in endings}
    names |= {name: kind for name, (kind, _) in GATEWAY_METRICS.items()}
    return names


# ---------------------------------------------------------------- names


def test_every_counter_of_a_host_is_a_metric() -> None:
    counted = {field.name for field in fields(HostCounts) if field.type == "int"}
    known = {metric.key for metric in metrics.HOST_COUNTERS}
    assert counted - known == set(), "name them in runtime/metrics.py and docs/metrics.md"
    assert known - counted == {"bad_topics"}


def test_the_document_lists_every_metric_and_no_other() -> None:
    told = {cells[0].strip("`"): cells[1:] for cells in rows(DOCUMENT.read_text("utf-8")) if cells[0].startswith("`")}
    made = {metric.exported: [metric.kind.value, " ".join(metric.labels), metric.meaning] for metric in PUSHED}
    for name, (kind, meaning) in GATEWAY_METRICS.items():
        own = {
            "storeops_gateway_responses_total": "status",
            "storeops_faces_distinct": "chain",
            "storeops_privacy_requests_open": "",
        }
        labels = own.get(name, "region" if "gateway" not in name else "")
        made[name] = [kind, labels, meaning]
    assert {name: cells for name, cells in told.items() if not name.startswith("storeops:")} == made


def test_labels_do_not_grow_with_stores_or_terminals() -> None:
    assert {label for metric in PUSHED for label in metric.labels} == {"region", "kind"}


# ---------------------------------------------------------------- pushing


class Kept:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.added: list[tuple[str, int]] = []
        self.gauges: dict[str, float] = {}
        self.observed: list[tuple[float, str]] = []

    def add(self, metric: Metric, amount: int, labels: Any) -> None:
        self.added.append((metric.key, amount))

    def put(self, metric: Metric, value: float, labels: Any) -> None:
        self.gauges[metric.key] = value

    def observe(self, metric: Metric, value: float, labels: Any) -> None:
        self.observed.append((value, labels["kind"]))


async def test_only_differences_are_pushed() -> None:
    sink = Kept()
    pusher = Pusher(sink, "south")
    every = (*metrics.HOST_COUNTERS, *metrics.HOST_GAUGES)
    pusher.push(every, {"messages": 5, "waiting": 3, "slot": "south/0"})
    pusher.push(every, {"messages": 5, "waiting": 1})
    pusher.push(every, {"messages": 9, "waiting": 0})
    pusher.push(every, {"messages": 2, "waiting": 0})  # the host began anew
    assert sink.added == [("messages", 5), ("messages", 4), ("messages", 2)]
    assert sink.gauges == {"waiting": 0}


async def test_each_observation_is_pushed_once_and_into_its_own_bucket() -> None:
    counts, sink = HostCounts(), Kept()
    pusher = Pusher(sink, "south")
    for ms in (0.5, 7.0, 9.9, 10.0, 99_000.0):
        counts.took("event", ms)
    await pusher.observe(metrics.HOST_LATENCY[0], counts.event_ms["event"], "event")
    counts.took("event", 3.0)
    await pusher.observe(metrics.HOST_LATENCY[0], counts.event_ms["event"], "event")
    assert len(sink.observed) == 6
    for bucket, bound in enumerate(LATENCY_MS):
        low = LATENCY_MS[bucket - 1] if bucket else 0
        assert low < representative_ms(bucket) < bound
    assert sorted(value for value, _ in sink.observed) == [1, 3.5, 7.5, 7.5, 7.5, LATENCY_MS[-1] * 1.5]


async def test_rollouts_are_pushed_with_every_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "PUSH_EVERY_S", 0.001)
    figures, put = RolloutFigures(RoundCounts(ticks=2)), asyncio.Event()
    labels: dict[str, float] = {}

    class Labelled(Kept):
        def put(self, metric: Metric, value: float, labels_of: Any) -> None:
            labels[f"{metric.key} {labels_of['kind']}"] = value
            if metric.key == "targets":
                put.set()

    sink = Labelled()
    pushing = asyncio.create_task(metrics.push_rollouts(Pusher(sink, "south"), figures.snapshot))
    await asyncio.wait_for(put.wait(), 30)
    pushing.cancel()
    assert sink.added == [("ticks", 2)]
    assert labels["standing rollback_stuck"] == 0, "an alert needs the series before it is needed"
    assert set(labels) >= {f"standing {state}" for state in RolloutState if state.active}


# ---------------------------------------------------------------- the running house


@pytest.mark.integration
async def test_prometheus_finds_what_the_hosts_counted(house: House) -> None:
    async with house.terminal("sz-yantian", "metrics") as terminal:
        await terminal.open_session()
        await terminal.scan(NOODLES[0])
        await terminal.pay_cash()
    url = await asyncio.to_thread(house.metrics_url)

    await eventually(lambda: scraped(url).get("ray_storeops_host_messages_total", 0) >= 3, "messages are counted")
    await eventually(lambda: scraped(url).get("ray_storeops_host_event_ms_count", 0) >= 3, "latencies are observed")
    await eventually(lambda: "ray_storeops_rollouts_standing" in scraped(url), "so are rollouts, also none of them")
    assert set(await asyncio.to_thread(scraped, url)) <= set(exported())


def scraped(url: str) -> dict[str, float]:
    """Our samples by name, summed over processes; of the house's own region (a test of face workers has another)."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(httpx.get(url, trust_env=False, timeout=30.0).text):
        for sample in family.samples:
            if sample.name.startswith("ray_storeops") and sample.labels["region"] == "south-china":
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


@pytest.mark.integration
def test_the_gateway_exports_what_is_listed(house: House) -> None:
    url = f"http://127.0.0.1:{house.plant.gateway_port}/metrics"
    assert httpx.get(url, trust_env=False, timeout=30.0).status_code == 401
    token = (house.data / "secrets" / "metrics-token").read_text("utf-8").strip()
    bearer = {"authorization": f"Bearer {token}"}
    other = url.removesuffix("/metrics") + "/api/v1/ledger"
    assert httpx.get(other, headers=bearer, trust_env=False, timeout=30.0).status_code == 401

    def families() -> dict[str, Any]:
        text = httpx.get(url, headers=bearer, trust_env=False, timeout=30.0).text
        return {family.name: family for family in text_string_to_metric_families(text)}

    def named() -> set[str]:
        names = {sample.name for family in families().values() for sample in family.samples}
        return names - {"storeops_gateway_responses_total"}

    # What is counted from the tables comes with the first count, seconds after the gateway listens.
    listed = set(GATEWAY_METRICS) - {"storeops_gateway_responses_total"}
    wait_until(lambda: named() >= listed, "everything listed is counted")
    assert named() == listed
    assert next(iter(families()["storeops_outbox_open"].samples)).value >= 0


# ---------------------------------------------------------------- what is shipped for Prometheus and Grafana

_WORD = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_OURS = re.compile(r"^(ray_storeops_|storeops_|storeops:)")


def named_in(query: str) -> set[str]:
    """The metrics of ours that a PromQL expression names; label values are no names."""
    bare = re.sub(r'"[^"]*"', '""', query)
    return {word for word in _WORD.findall(bare) if _OURS.match(word)}


def rules() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in sorted((DEPLOY / "prometheus").glob("*.rules.yml")):
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]:
            found += group["rules"]
    return found


def dashboards() -> list[Path]:
    return sorted((DEPLOY / "grafana").glob("*.json"))


def queries() -> list[tuple[str, str]]:
    found = [(rule.get("record") or rule["alert"], rule["expr"]) for rule in rules()]
    for path in dashboards():
        for panel in json.loads(path.read_text("utf-8"))["panels"]:
            found += [(f"{path.name}: {panel['title']}", target["expr"]) for target in panel.get("targets", [])]
    return found


def test_queries_name_metrics_that_exist() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    known = set(exported()) | recorded
    named: set[str] = set()
    for where, query in queries():
        ours = named_in(query)
        assert ours, where
        assert ours <= known, (where, sorted(ours - known))
        named |= ours
    assert len(queries()) > 25
    assert recorded <= named, "what is recorded is used"


def test_an_unknown_metric_in_a_query_would_be_seen() -> None:
    query = 'sum by (kind) (rate(ray_storeops_host_mesages_total{region="ray_storeops_x"}[1m]))'
    assert named_in(query) == {"ray_storeops_host_mesages_total"}
    assert not named_in(query) <= set(exported())


def test_counters_are_read_as_rates() -> None:
    kinds = exported()
    for where, query in queries():
        for name in named_in(query):
            if kinds.get(name) in {"counter", "histogram"}:
                assert re.search(rf"(rate|increase)\({name}\b", query), (where, name)


def test_alerts_say_what_to_do_in_both_languages() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]
    assert len(alerts) >= 8
    for alert in alerts:
        notes = alert["annotations"]
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert {"summary", "summary_zh", "action", "action_zh"} <= set(notes), alert["alert"]
        assert re.search(r"[\u4e00-\u9fff]", notes["summary_zh"] + notes["action_zh"])


def test_dashboards_have_the_shape_that_grafana_imports() -> None:
    assert dashboards()
    uids = set()
    for path in dashboards():
        board = json.loads(path.read_text("utf-8"))
        assert {"uid", "title", "panels", "schemaVersion", "templating", "time"} <= set(board)
        uids.add(board["uid"])
        panels = board["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels), path.name
        places: set[tuple[int, int]] = set()
        for panel in panels:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & places, f"{path.name}: {panel['title']} covers another panel"
            places |= cells
            if panel["type"] != "row":
                assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
                assert panel["title"]
                assert panel["description"]
                assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    assert len(uids) == len(dashboards())


def test_promtool_accepts_the_configuration() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool (Debian: apt-get install prometheus)")
    for path in sorted((DEPLOY / "prometheus").glob("*.rules.yml")):
        done = subprocess.run([promtool, "check", "rules", str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run(
        [promtool, "check", "config", "--syntax-only", str(DEPLOY / "prometheus" / "prometheus.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
