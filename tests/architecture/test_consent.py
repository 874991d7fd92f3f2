"""No verb that sees a face can be called without a consent, and none that makes a template without consent to that.

The types say so to mypy; this holds that the verbs of today and of tomorrow have those types.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from models.domain import recognition
from models.domain.recognition import EnrolRequest, ShotRequest
from tests.architecture.rules import text_of

ROOT = Path(__file__).resolve().parents[2]
FACE_FIELDS = frozenset({"jpeg", "sealed", "shots"})
"""How a request carries a face: as an image, or as what was computed from one."""
MAKES_TEMPLATES = frozenset({ShotRequest.__name__, EnrolRequest.__name__})
PLACES = (
    "actors/face_worker.py",
    "runtime/asks.py",
    "runtime/face_service.py",
    "runtime/ray_faces.py",
    "runtime/testing/ports.py",
)
"""The worker, and everybody who stands between it and a host."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def face_requests() -> frozenset[str]:
    """Every request of the worker's that carries a face."""
    kinds = (kind for name, kind in vars(recognition).items() if name.endswith("Request"))
    return frozenset(kind.__name__ for kind in kinds if FACE_FIELDS & {field.name for field in fields(kind)})


def verbs(path: str) -> Iterator[tuple[Function, str]]:
    """Public methods that take such a request, and its name."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, Function) and not node.name.startswith("_"):
            for argument in node.args.args:
                name = ast.unparse(argument.annotation) if argument.annotation is not None else ""
                if name in face_requests():
                    yield node, name


def consent_of(verb: Function) -> str:
    """The type of the verb's consent; "" when it has none, or one that may be left out."""
    arguments = verb.args.args
    required = arguments[: len(arguments) - len(verb.args.defaults)]
    found = [ast.unparse(one.annotation) for one in required if one.arg == "consent" and one.annotation is not None]
    return found[0] if found else ""


def test_the_requests_that_carry_a_face_are_known() -> None:
    assert face_requests() == {"IdentifyRequest", "RescoreRequest", "ShotRequest", "EnrolRequest"}


@pytest.mark.parametrize("path", PLACES)
def test_a_verb_that_sees_a_face_takes_a_consent_and_one_that_makes_a_template_its_own(path: str) -> None:
    found = list(verbs(path))
    assert {verb.name for verb, _ in found} >= {"identify", "rescore", "shoot", "enrol"}
    for verb, request in found:
        wanted = {"EnrolConsent"} if request in MAKES_TEMPLATES else {"ConsentToken", "EnrolConsent"}
        assert consent_of(verb) in wanted, f"{path}: {verb.name}({request})"


def test_the_worker_checks_the_consent_before_anything_else() -> None:
    for verb, _ in verbs("actors/face_worker.py"):
        first = verb.body[1] if ast.get_docstring(verb) is not None else verb.body[0]
        assert ast.unparse(first) == f"{consent_of(verb)}.check(consent, request.session)", verb.name


def test_nobody_else_looks() -> None:
    """Whatever calls the eyes in a running house is a verb of the worker that was handed a consent."""
    for path in [*(ROOT / "actors").glob("*.py"), *(ROOT / "runtime").glob("*.py")]:
        text = text_of(path)
        if "eyes.look" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, Function):
                continue
            looks = [
                call
                for call in ast.walk(node)
                if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("eyes.look")
            ]
            assert not looks or consent_of(node), f"{path.name}: {node.name} sees a face without a consent"
