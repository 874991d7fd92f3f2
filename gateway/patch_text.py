"""A merge patch that somebody wrote as YAML, JSON included: read once, refused with its line and column."""

from __future__ import annotations

import json
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from gateway.errors import Problem
from gateway.views import FieldProblemView
from models.domain.rollout import PAYLOAD_CHARACTERS_MAX


class PatchText(BaseModel):
    """What stands in the form."""

    model_config = ConfigDict(extra="forbid")

    text: Annotated[str, Field(max_length=PAYLOAD_CHARACTERS_MAX)]


def patch_from(text: str) -> dict[str, Any]:
    """The mapping that a text says. Raises Problem 422; anchors are refused, as nobody needs them in a patch."""
    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise _wrong(event.start_mark, "no anchors here")
        found = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        raise _wrong(error.problem_mark or error.context_mark, error.problem or "is no YAML") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _wrong(None, str(error)) from error
    if not isinstance(found, dict):
        raise _wrong(None, "a patch has names and values, such as volume_percent: 40")
    try:
        plain: dict[str, Any] = json.loads(json.dumps(found, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise _wrong(None, f"{error}: put it between quotation marks") from error
    return plain


def _wrong(mark: Any, reason: str) -> Problem:
    line, column = (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
    errors = [FieldProblemView(field="patch", problem=reason, line=line, column=column)]
    return Problem(422, "patch_wrong", f"line {line}, column {column}: {reason}", "mend this line", errors)
