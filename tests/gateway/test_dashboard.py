"""The way to Ray's dashboard from the System page, and Prometheus' own token."""

from __future__ import annotations

from gateway.routes.dashboard import DASHBOARD_COOKIE
from gateway.startup import Startup
from tests.gateway.conftest import Console

TOKEN = "of-the-engine"


async def test_the_token_goes_along_to_the_same_host(console: Console) -> None:
    host = console.client.base_url.host
    console.edge.dashboard_token = TOKEN
    console.edge.startup = lambda: Startup(links={"ray_dashboard": f"http://{host}:8265"})
    answer = await console.client.get("/system/ray-dashboard", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"http://{host}:8265")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{DASHBOARD_COOKIE}={TOKEN};")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    page = (await console.client.get("/system")).text
    assert 'href="/system/ray-dashboard"' in page
    assert TOKEN not in page


async def test_the_token_goes_to_no_other_host(console: Console) -> None:
    console.edge.dashboard_token = TOKEN
    console.edge.startup = lambda: Startup(links={"ray_dashboard": "http://elsewhere.example:8265"})
    answer = await console.client.get("/system/ray-dashboard", follow_redirects=False)
    assert answer.status_code == 303
    assert "set-cookie" not in answer.headers


async def test_without_a_dashboard_it_is_said_so(console: Console) -> None:
    answer = await console.client.get("/system/ray-dashboard", follow_redirects=False)
    assert answer.status_code in {404, 409, 422}
    assert "set-cookie" not in answer.headers


async def test_nobody_else_is_led_there(console: Console) -> None:
    console.edge.dashboard_token = TOKEN
    console.client.cookies.clear()
    answer = await console.client.get("/system/ray-dashboard", follow_redirects=False)
    assert answer.headers.get("location") == "/login"
    assert "set-cookie" not in answer.headers


async def test_prometheus_reads_the_counts_with_its_own_token_and_nothing_else(console: Console) -> None:
    console.edge.metrics_token = "of-prometheus"
    console.client.cookies.clear()
    right, wrong = {"authorization": "Bearer of-prometheus"}, {"authorization": "Bearer "}
    assert (await console.client.get("/metrics", headers=right)).status_code == 200
    assert (await console.client.get("/metrics", headers=wrong)).status_code == 401
    assert (await console.client.get("/api/v1/ledger", headers=right)).status_code == 401
    assert (await console.client.post("/metrics", headers=right)).status_code in {401, 405}
    console.edge.metrics_token = ""
    assert (await console.client.get("/metrics", headers=wrong)).status_code == 401
