"""The catalogue is complete in both languages, and nothing in it is unused."""

from __future__ import annotations

import inspect
import re
import string
from pathlib import Path
from typing import get_args

import pytest

from actors.rollout_effects import RolloutCommand
from gateway.console.language import language_of
from gateway.console.texts import TEXTS
from gateway.console.texts.rollout_refusals import REFUSED_ZH
from gateway.queries.members import STATE_GROUPS
from gateway.startup import PartState
from models.domain import ledger
from models.domain.charging import UseClass
from models.domain.events import TenderKind
from models.domain.member_balance import MoveKind
from models.domain.membership import State
from models.domain.plans import GuaranteeKind
from models.domain.screen import ScreenState
from models.domain.settlement import CallKind, CallState
from models.domain.texts import prompt_codes

ROOT = Path(__file__).resolve().parents[2]
CONSOLE = ROOT / "gateway" / "console"
CJK = re.compile(r"[\u3400-\u9fff\uff00-\uffef\u3000-\u303f]")
LITERAL = re.compile(r"""\b(?:t|t_or|textOr)\(\s*['"`]([a-z_]+\.[a-z_.]+)['"`]""")
DYNAMIC = re.compile(r"""\b(?:t|t_or|textOr)\(\s*['"`]([a-z_]+)\.(?:['"`]\s*~|\$\{)""")
AUDITED = re.compile(r"""\baudit(?:_sync)?\(\w+, *"([a-z_.]+)\"""")
ANY_ID = re.compile(r"""['"`]([a-z_]+\.[a-z_]+)['"`]""")


def sources() -> str:
    files = [*CONSOLE.glob("templates/**/*.html"), *CONSOLE.glob("static/js/*.js")]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def test_every_id_that_a_page_names_is_in_the_catalogue() -> None:
    used = set(LITERAL.findall(sources()))
    assert len(used) > 100
    assert used - TEXTS.keys() == set()


def test_every_text_is_used() -> None:
    text = sources()
    families = set(DYNAMIC.findall(text)) | {"state", "membership", "part_state"}
    named = set(ANY_ID.findall(text)) | set(LITERAL.findall(text))
    unused = {name for name in TEXTS if name not in named and name.partition(".")[0] not in families}
    assert unused == set()


@pytest.mark.parametrize("family", sorted({name.partition(".")[0] for name in TEXTS}))
def test_both_languages_say_it_with_the_same_values(family: str) -> None:
    def fields(text: str) -> set[str | None]:
        return {field for _, field, _, _ in string.Formatter().parse(text)} - {None}

    for name, (zh, en) in TEXTS.items():
        if name.partition(".")[0] != family:
            continue
        assert zh.strip(), name
        assert en.strip(), name
        assert CJK.search(en) is None, name
        assert CJK.search(zh) is not None or zh.isascii() is False or name in {"link.api"}, name
        assert fields(zh) == fields(en), name


def test_every_state_of_the_domain_has_its_words() -> None:
    wanted = {f"state.{state}" for state in ScreenState}
    wanted |= {f"membership.{state.lower()}" for state in State}
    wanted |= {f"tender.{kind}" for kind in TenderKind}
    wanted |= {f"guarantee.{kind}" for kind in GuaranteeKind}
    wanted |= {f"prompt.{code}" for code in prompt_codes()}
    wanted |= {f"group.{name}" for name in STATE_GROUPS}
    wanted |= {f"call.{kind}" for kind in CallKind} | {f"call_state.{state.lower()}" for state in CallState}
    wanted |= {f"use.{use.lower()}" for use in UseClass if use is not UseClass.REGULAR}
    wanted |= {f"part_state.{state}" for state in PartState}
    booked = re.findall(r'as_transaction\("(\w+)"', inspect.getsource(ledger)) + re.findall(
        r'_id, "(\w+)"', inspect.getsource(ledger)
    )
    assert len(booked) > 10
    wanted |= {f"txn.{kind}" for kind in booked}
    assert wanted - TEXTS.keys() == set()


def test_every_event_of_the_audit_has_its_words() -> None:
    """Those written with a literal kind, a counter's movements, and a person's commands to a rollout."""
    files = [file for part in ("runtime", "models/tables") for file in (ROOT / part).rglob("*.py")]
    written = {kind for file in files for kind in AUDITED.findall(file.read_text(encoding="utf-8"))}
    assert len(written) > 15
    written |= {f"balance_{kind}" for kind in (MoveKind.TOP_UP, MoveKind.PAY_OUT)}
    written |= {f"rollout.{told.__name__.lower()}" for told in get_args(RolloutCommand)}
    assert {f"audit_kind.{kind}" for kind in written} - TEXTS.keys() == set()


def test_no_page_carries_words_of_its_own() -> None:
    """Text between tags comes from the catalogue; the switch names each language in itself."""
    for file in CONSOLE.glob("templates/**/*.html"):
        text = re.sub(r"\{[{%#].*?[}%#]\}", "", file.read_text(encoding="utf-8"), flags=re.S)
        assert set(CJK.findall(text)) <= set("中文"), file.name


@pytest.mark.parametrize(
    ("headers", "language"),
    [
        ({}, "en"),
        ({"accept-language": "zh-CN,zh;q=0.9,en;q=0.8"}, "zh"),
        ({"accept-language": "fr;q=0.9, en;q=0.7, zh;q=0.8"}, "zh"),
        ({"accept-language": "de, en;q=x, zh-TW;q=0.2"}, "zh"),
        ({"accept-language": "zh", "cookie": "lang=en"}, "en"),
        ({"accept-language": "en", "cookie": "lang=<script>"}, "en"),
    ],
)
def test_language_is_negotiated(headers: dict[str, str], language: str) -> None:
    from starlette.requests import Request

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert language_of(Request({"type": "http", "headers": raw})) == language


def test_what_a_rollout_refuses_is_said_in_chinese_too() -> None:
    sources_of = [*ROOT.glob("actors/rollout_*.py"), *ROOT.glob("models/domain/rollout_p*.py")]
    text = "\n".join(file.read_text(encoding="utf-8") for file in sources_of)
    codes = set(re.findall(r'Refused\(\s*"([a-z_]+)"', text)) | set(re.findall(r'_require\([^\n]*?, "([a-z_]+)"', text))
    assert len(codes) >= 15
    assert codes - REFUSED_ZH.keys() == set()
    assert all(CJK.search(words) for words in REFUSED_ZH.values())
