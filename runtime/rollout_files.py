"""Reads the policies of configs/rollouts; every wrong value is named with its line and column.

Nothing is guessed: a field that is missing, said twice or misspelt is an error, as is a threshold that cannot be met.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from models.domain.errors import NeedsOperator
from models.domain.rollout import RolloutPolicy
from models.domain.rollout_feasible import Problem
from models.domain.rollout_policy import PolicyError, policy_from
from runtime.settings import CONFIGS

FOLDER = CONFIGS / "rollouts"
FILE_BYTES_MAX = 256 * 1024
VALUES_MAX = 5_000
"""Values of a policy, those of an alias counted wherever it stands: few bytes can name very many of them."""


@dataclass(frozen=True, slots=True)
class Misplaced:
    """One problem of a file: line and column count from 1."""

    line: int
    column: int
    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.line}:{self.column}: {self.path or 'policy'}: {self.reason}"


class PolicyFileError(NeedsOperator):
    """A policy that nobody can follow. `problems` in the order of the lines."""

    def __init__(self, file: Path, problems: list[Misplaced]) -> None:
        self.file = file
        self.problems = sorted(problems, key=lambda one: (one.line, one.column))
        text = "\n".join(f"{file}:{one}" for one in self.problems)
        super().__init__("policy_wrong", text, "mend these lines")


def shipped() -> tuple[str, ...]:
    """Names of the policies that come with the software."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def policy_path(name: str) -> Path:
    """A shipped policy by its name, anything else as a file."""
    return Path(name) if name.endswith((".yaml", ".yml")) or "/" in name else FOLDER / f"{name}.yaml"


def read_policy(file: Path) -> RolloutPolicy:
    """The policy of a file. Raises PolicyFileError with every problem, or NeedsOperator `policy_unreadable`."""
    try:
        raw = file.read_bytes()
        text = raw[: FILE_BYTES_MAX + 1].decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise NeedsOperator(
            "policy_unreadable", f"{file}: {error}", f"a file, or one of {', '.join(shipped())}"
        ) from error
    return parse_policy(text, file)


def parse_policy(text: str, file: Path = Path("policy.yaml")) -> RolloutPolicy:
    """As `read_policy`, of a text; `file` is what errors call it."""
    if len(text.encode()) > FILE_BYTES_MAX:
        raise NeedsOperator("policy_unreadable", f"{file}: over {FILE_BYTES_MAX} bytes", "is it the right file?")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        places, doubles = _places(node)
        document: Any = loader.construct_document(node) if node is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        raise PolicyFileError(file, [Misplaced(line, column, "", error.problem or "is no YAML")]) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise PolicyFileError(file, [Misplaced(1, 1, "", f"is no YAML: {error}")]) from error
    if doubles:
        raise PolicyFileError(file, doubles)
    try:
        return policy_from(document)
    except PolicyError as error:
        raise PolicyFileError(file, [_placed(one, places) for one in error.problems]) from error


def _placed(problem: Problem, places: dict[str, tuple[int, int]]) -> Misplaced:
    """At the value itself; what is missing is reported where the mapping begins that lacks it."""
    path = problem.path
    while path and path not in places:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    line, column = places.get(path, (1, 1))
    return Misplaced(line, column, problem.path, problem.reason)


def _places(root: yaml.Node | None) -> tuple[dict[str, tuple[int, int]], list[Misplaced]]:
    """Where each path stands, and keys that are said twice: YAML takes the last one without a word."""
    places: dict[str, tuple[int, int]] = {}
    doubles: list[Misplaced] = []
    if root is not None:
        for count, (path, node, double) in enumerate(_walk("", root, ())):
            if count >= VALUES_MAX:
                raise ValueError(f"more than {VALUES_MAX} values")
            at = node.start_mark.line + 1, node.start_mark.column + 1
            if double:
                doubles.append(Misplaced(*at, path, "is said twice"))
            places[path] = at
    return places, doubles


def _walk(path: str, node: yaml.Node, above: tuple[int, ...]) -> Iterator[tuple[str, yaml.Node, bool]]:
    yield path, node, False
    if id(node) in above:
        raise ValueError("an alias contains itself")
    inside = (*above, id(node))
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            below = f"{path}.{name}" if path else name
            if name in seen and name != "<<":
                yield below, key, True
            seen.add(name)
            yield from _walk(below, value, inside)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _walk(f"{path}[{number}]", value, inside)
