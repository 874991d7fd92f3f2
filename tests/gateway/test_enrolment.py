"""The two open addresses: what comes out of them, in which language, and what guessing costs."""

from __future__ import annotations

import httpx
import pytest

from gateway.app import create_app
from gateway.enrolment import Enrolment, EnrolRequest, GuessLimit
from gateway.settings import GatewaySettings
from models.domain.errors import Refused

SETTINGS = GatewaySettings(port=8000)
ANSWER = Enrolment(
    "t-1", "south", "s1", "till", "so/1/south/00/s1/t-1",
    {"host": "b", "port": 8883, "tls": True, "ca": None}, "s" * 64, None,
)  # fmt: skip


class OneCode:
    """Knows one code."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bool]] = []

    async def redeem(self, request: EnrolRequest, address: str, *, rotates: bool) -> Enrolment:
        self.asked.append((request.code, address, rotates))
        if request.code != "right-code":
            raise Refused("code_unknown", "there is no such code", "ask for a new code")
        return ANSWER


@pytest.fixture
def desk() -> OneCode:
    return OneCode()


@pytest.fixture
def http(desk: OneCode) -> httpx.AsyncClient:
    app = create_app(SETTINGS)
    app.state.edge.enrols = desk
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=SETTINGS.base_url)


async def test_a_terminal_needs_no_console_session(http: httpx.AsyncClient, desk: OneCode) -> None:
    answer = await http.post("/terminals/enrol", json={"code": "right-code"})
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.json()["secret"] == "s" * 64
    assert answer.json()["broker"] == {"host": "b", "port": 8883, "tls": True, "ca": None}
    await http.post("/terminals/rotate", json={"code": "right-code", "terminal": "t-1"})
    assert [rotates for _, _, rotates in desk.asked] == [False, True]


@pytest.mark.parametrize(("method", "path"), [("GET", "/terminals/enrol"), ("POST", "/terminals/enrol/x")])
async def test_nothing_else_there_is_open(http: httpx.AsyncClient, desk: OneCode, method: str, path: str) -> None:
    answer = await http.request(method, path, json={"code": "right-code"})
    assert answer.status_code != 200 or "secret" not in answer.text
    assert desk.asked == []


@pytest.mark.parametrize(("language", "word"), [("zh-CN", "注册码"), ("en", "code"), ("", "code")])
async def test_a_refusal_is_a_problem_in_the_terminals_language(
    http: httpx.AsyncClient, language: str, word: str
) -> None:
    headers = {"accept-language": language}
    answer = await http.post("/terminals/enrol", json={"code": "wrong-code"}, headers=headers)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (409, "code_unknown")
    assert answer.headers["content-type"] == "application/problem+json"
    assert word in problem["detail"]
    assert word in problem["do"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"code":"x"}', b'{"code":1234567890}', b"\xff\xfe{"])
async def test_rubbish_is_a_bad_request(http: httpx.AsyncClient, desk: OneCode, body: bytes) -> None:
    answer = await http.post("/terminals/enrol", content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert desk.asked == []


async def test_a_large_body_is_not_read(http: httpx.AsyncClient) -> None:
    answer = await http.post("/terminals/enrol", json={"code": "x" * 20_000})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_guessing_ends(http: httpx.AsyncClient, desk: OneCode) -> None:
    for _ in range(20):
        assert (await http.post("/terminals/enrol", json={"code": "wrong-code"})).status_code == 409
    barred = await http.post("/terminals/enrol", json={"code": "right-code"})
    assert (barred.status_code, barred.json()["code"]) == (429, "too_many_attempts")
    assert int(barred.headers["retry-after"]) > 500
    assert len(desk.asked) == 20


def test_the_limit_forgets_and_counts_all_requests() -> None:
    now = [0.0]
    limit = GuessLimit(lambda: now[0], wrong_max=2, requests_per_s_max=3, addresses_max=2)
    limit.wrong("a")
    assert limit.barred_s("a") == 0.0
    limit.wrong("a")
    assert limit.barred_s("a") == 600.0
    assert limit.barred_s("b") == 0.0
    now[0] = 600.0
    assert limit.barred_s("a") == 0.0
    limit.wrong("a")
    assert limit.barred_s("a") == 0.0, "counted anew"
    assert [limit.full() for _ in range(4)] == [False, False, False, True]
    now[0] = 601.0
    assert not limit.full()
