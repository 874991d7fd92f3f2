"""The closed lists: every code that a chapter names is published, in both languages."""

from __future__ import annotations

import ast
from pathlib import Path

from models.domain.face_quality import IMAGE_FAULTS, PROMPTS
from models.domain.texts import prompt, prompt_codes, refusal, refusal_codes


def codes_in_source() -> tuple[set[str], set[str]]:
    """(refusal codes, prompt codes) that the session's chapters name."""
    refused, prompted = set(), set()
    for name in (
        "session",
        "stage",
        "recognition",
        "enrolling",
        "baskets",
        "paying",
        "selling",
        "voiding",
        "returning",
        "identifying",
        "leasing",
        "offers",
        "offline",
    ):
        tree = ast.parse((Path(__file__).parents[2] / "actors" / f"{name}.py").read_text(encoding="utf-8"))
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            called = ast.unparse(call.func)
            texts = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            texts += [
                leaf.value
                for arg in call.args
                if isinstance(arg, (ast.IfExp, ast.BoolOp))
                for leaf in ast.walk(arg)
                if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str)
            ]
            if called in {"Refused", "stage.refuse", "stage.refuse_event", "_refuse"}:
                refused |= set(texts[:2] if called == "Refused" else texts)
            if called in {"stage.prompt", "_done", "_give_up"}:
                prompted |= set(texts[:1])
    return refused, prompted


def test_every_code_that_is_used_is_on_its_closed_list() -> None:
    refused, prompted = codes_in_source()
    assert {"lane_busy", "consent_missing", "stale_rev", "refund_failed"} <= refused
    assert refused <= refusal_codes(), refused - refusal_codes()
    assert {"welcome", "ask_digits", "not_paid", "voided", "member_ready"} <= prompted
    assert prompted <= prompt_codes(), prompted - prompt_codes()
    shown = {code for reason, code in PROMPTS.items() if reason not in IMAGE_FAULTS}
    assert shown <= prompt_codes(), "what a face worker asks for can be shown"


def test_every_code_has_both_languages() -> None:
    for code in refusal_codes():
        zh, en = refusal(code, "zh"), refusal(code, "en")
        assert zh.message != en.message
        assert zh.do != en.do
        assert all((zh.message, zh.do, en.message, en.do))
    params: dict[str, str | int] = {
        "shot": 1,
        "of": 3,
        "code_url": "https://qr",
        "expires_s": 60,
        "back": "1.00",
        "cash": "0.00",
        "direction": "left",
        "name": "5 off",
        "saves": "5.00",
        "why": "2.00 short",
    }
    for code in prompt_codes():
        assert prompt(code, "zh", **params).text != prompt(code, "en", **params).text
