"""What the documents say, taken apart: headings, links, code blocks, tables, and the keys of a dict in source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "configs").rglob("*.md")])

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
STOREOPS = re.compile(r"(?:^|[`/ ])storeops ((?:[a-z][a-z-]*)(?: [a-z][a-z-]*)?)", re.MULTILINE)
MAKE = re.compile(r"(?:^|`)make ([a-z]+(?: [a-z]+)*)", re.MULTILINE)
CODE = re.compile(r"`([a-z][a-z_.]*)`")


def without_fences(text: str) -> str:
    """The text outside code blocks."""
    return FENCE.sub("", text)


def fences(text: str, language: str) -> list[str]:
    """Code blocks of a language."""
    return [body for found, body in FENCE.findall(text) if found == language]


def heading_levels(text: str) -> list[int]:
    """1 for #, 2 for ##, in order."""
    return [len(marks) for marks in re.findall(r"^(#+) ", without_fences(text), re.MULTILINE)]


def links(text: str) -> list[str]:
    """Targets that are files of ours; anchors cut off."""
    targets = [target.partition("#")[0] for target in LINK.findall(without_fences(text))]
    return [target for target in targets if target and "://" not in target]


def commands(text: str) -> set[str]:
    """What is typed after `storeops`: one word or two, in code spans and shell blocks."""
    code = [*re.findall(r"`[^`\n]+`", without_fences(text)), *fences(text, "sh")]
    return {found for piece in code for found in STOREOPS.findall(piece)}


def make_targets(text: str) -> set[str]:
    """What is typed after `make`."""
    code = [*re.findall(r"`[^`\n]+`", without_fences(text)), *fences(text, "sh")]
    return {target for piece in code for found in MAKE.findall(piece) for target in found.split()}


def section(text: str, heading: str) -> str:
    """The text under a heading, to the next one of any level."""
    _, _, rest = text.partition(f"\n{heading}\n")
    assert rest, f"there is no {heading!r}"
    return re.split(r"^#+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """Cells of every table's body."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not re.fullmatch(r"[|\- ]+", line)]
    return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def code_rows(text: str) -> dict[str, list[str]]:
    """Rows that begin with a code span, by that code; the other cells."""
    return {
        match.group(1): cells[1:]
        for cells in rows(text)
        if (match := re.fullmatch(r"`([a-z_.]+)`", cells[0])) is not None
    }


def shape(value: Any) -> Any:
    """The keys of a JSON document, nested; of a list, the keys of its members."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list) and value:
        shapes = [shape(one) for one in value]
        assert all(one == shapes[0] for one in shapes), "members of a list differ"
        return shapes[0]
    return None


def produced_shape(source: str, function: str) -> Any:
    """The same of the dict that a function returns, from its source: literals, names, calls of its neighbours."""
    functions = {
        node.name: node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return _returned(functions, functions[function])


def _returned(functions: dict[str, Any], function: ast.AST) -> Any:
    values = [node.value for node in ast.walk(function) if isinstance(node, ast.Return) and node.value is not None]
    return _shape_of(functions, function, values[-1])


def _shape_of(functions: dict[str, Any], where: ast.AST, node: ast.AST) -> Any:
    match node:
        case ast.Dict(keys=keys, values=values):
            named = [
                (key.value, value) for key, value in zip(keys, values, strict=True) if isinstance(key, ast.Constant)
            ]
            return {name: _shape_of(functions, where, value) for name, value in named}
        case ast.Name(id=name):
            assigned = list(_assigned(where, name))
            return _shape_of(functions, where, assigned[-1]) if assigned else None
        case ast.Call(func=ast.Name(id=name)) if name in functions:
            return _returned(functions, functions[name])
        case ast.ListComp(elt=ast.Dict() as made):
            return _shape_of(functions, where, made)
        case ast.ListComp(elt=ast.DictComp() as made, generators=[ast.comprehension(iter=ast.Name(id=source))]):
            tests = [test for generator in made.generators for test in generator.ifs]
            left_out = {node.value for test in tests for node in ast.walk(test) if isinstance(node, ast.Constant)}
            whole = _shape_of(functions, where, ast.Name(id=source))
            return {key: inner for key, inner in whole.items() if key not in left_out}
        case _:
            return None


def _assigned(where: ast.AST, name: str) -> Iterator[ast.AST]:
    for node in ast.walk(where):
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in node.targets):
            yield node.value
