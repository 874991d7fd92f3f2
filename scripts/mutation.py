"""Mutants of a source file, put into a module that others have imported already, and tried in a fork."""

from __future__ import annotations

import ast
import dataclasses
import os
import resource
import signal
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "var" / "cosmic-ray")]  # its operators and their parser, nothing else of it

from cosmic_ray.ast import Visitor, ast_nodes, get_ast  # noqa: E402
from cosmic_ray.operators.provider import OperatorProvider  # noqa: E402

LEFT_OUT = ("BitOr", "BitAnd", "BitXor", "LShift", "RShift", "Variable", "Is_Eq", "IsNot_NotEq")
"""There are no bits; `is` stands beside None and members of enumerations only, where `==` says the same."""
REPLACEMENTS_MAX = 2
"""Of one arithmetic operator."""


class _Nth(Visitor):  # type: ignore[misc]
    """Mutates the n-th place that an operator finds."""

    def __init__(self, operator: Any, nth: int) -> None:
        self.operator, self.left = operator, nth

    def visit(self, node: Any) -> Any:
        for index, _ in enumerate(self.operator.mutation_positions(node)):
            node = self.operator.mutate(node, index) if self.left == 0 else node
            self.left -= 1
        return node


def mutants(source: str) -> Iterator[dict[str, Any]]:
    """Those that differ in more than annotations: operator, which of its places, line, text before and after, code."""
    provider, seen, replaced = OperatorProvider(), {"", _meaning(source)}, Counter[Any]()
    for name in (one for one in provider if not any(word in one for word in LEFT_OUT)):
        places = [place for node in ast_nodes(get_ast(source)) for place in provider[name]().mutation_positions(node)]
        for nth, (begins, _) in enumerate(places):
            arithmetic = name.startswith("ReplaceBinary")
            code = _Nth(provider[name](), nth).walk(get_ast(source)).get_code()
            meaning = _meaning(code)
            if meaning in seen or (arithmetic and replaced[begins] >= REPLACEMENTS_MAX):
                continue
            seen.add(meaning)
            replaced[begins] += arithmetic
            pairs = enumerate(zip(source.splitlines(), code.splitlines(), strict=False), 1)
            line, (old, new) = next((n, pair) for n, pair in pairs if pair[0] != pair[1])
            yield {"op": name, "nth": nth, "line": line, "old": old.strip(), "new": new.strip(), "code": code}


def _meaning(code: str) -> str:
    """The syntax without annotations; nothing for what is no Python."""
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return ""
    for node in ast.walk(tree):
        for name in {"annotation", "returns"} & set(node._fields):
            setattr(node, name, None)
    return ast.dump(tree)


def graft(module: types.ModuleType, source: str, *, all_of_it: bool = False) -> int:
    """Put the functions, defaults, properties and constants of `source` that differ into `module`; how many.

    Whoever imported a function has it too, for not the function is replaced but its code. What a dataclass is made
    with cannot be grafted. `all_of_it`: also what does not differ, as a control.
    """
    fresh = types.ModuleType(module.__name__)
    fresh.__dict__.update(__file__=module.__file__, __package__=module.__package__)
    sys.modules[module.__name__] = fresh
    try:
        exec(compile(source, str(module.__file__), "exec"), fresh.__dict__)  # noqa: S102
    finally:
        sys.modules[module.__name__] = module
    count = 0
    for name, new in list(vars(fresh).items()):
        old = vars(module).get(name)
        if isinstance(new, type) and new.__module__ == module.__name__ and isinstance(old, type):
            for key, inner in vars(new).items():
                was = vars(old).get(key)
                if isinstance(inner, types.FunctionType) and isinstance(was, property | staticmethod | classmethod):
                    setattr(old, key, inner)
                    count += 1
                else:
                    count += _graft_code(was, inner, all_of_it)
        elif isinstance(_bare(new), types.FunctionType):
            count += _graft_code(old, new, all_of_it)
        elif not isinstance(new, type | types.ModuleType) and name[:2] != "__" and _said(old) != _said(new):
            count += "at 0x" not in repr(new)
            for one in list(sys.modules.values()) if "at 0x" not in repr(new) else []:
                if getattr(one, "__dict__", {}).get(name) is old:
                    vars(one)[name] = new
    return count


def _bare(found: Any) -> Any:
    found = found.fget if isinstance(found, property) else getattr(found, "__func__", found)
    return getattr(found, "__wrapped__", found)


def _graft_code(old: Any, new: Any, always: bool) -> int:
    old, new = _bare(old), _bare(new)
    if not isinstance(old, types.FunctionType) or not isinstance(new, types.FunctionType):
        return 0
    was, now = (_said((one.__defaults__, one.__kwdefaults__, _code(one.__code__))) for one in (old, new))
    if new.__module__ != old.__module__ or (was == now and not always):
        return 0
    if old.__code__.co_freevars == new.__code__.co_freevars:
        old.__code__ = new.__code__
    old.__defaults__ = new.__defaults__ and tuple(map(_kept, old.__defaults__ or (), new.__defaults__))
    olds = old.__kwdefaults__ or {}
    old.__kwdefaults__ = new.__kwdefaults__ and {k: _kept(olds.get(k), v) for k, v in new.__kwdefaults__.items()}
    return 1


def _kept(old: Any, new: Any) -> Any:
    """A default that reads the same stays the object that it was: members of enumerations are compared by identity."""
    return old if _said(old) == _said(new) else new


def _said(value: Any) -> str:
    """As `repr`, but a set reads the same in whatever order it was put together: compiled anew, or read from a file."""
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}{sorted(map(_said, value))}"
    if isinstance(value, tuple | list):
        return f"{type(value).__name__}{list(map(_said, value))}"
    if isinstance(value, dict):
        return str([(_said(key), _said(inner)) for key, inner in value.items()])
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inside = [_said(getattr(value, one.name)) for one in dataclasses.fields(value)]
        return f"{type(value).__qualname__}{inside}"
    return repr(value)


def _code(one: types.CodeType) -> Any:
    inner = [_code(each) if isinstance(each, types.CodeType) else each for each in one.co_consts]
    return one.co_code, one.co_names, one.co_varnames, inner


def forked(work: Callable[[Callable[[], None]], str], cpu_s: int) -> str:
    """What `work` answers in a fork that may use so many seconds of CPU; else `time`, after so many calls of its
    argument."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reads)
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
        try:
            os.write(writes, work(lambda: os.write(writes, b".") and None).encode())
        finally:
            os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    late = os.WIFSIGNALED(status) and os.WTERMSIG(status) in {signal.SIGXCPU, signal.SIGKILL}
    return f"time after {said.count('.')} tests" if late else said.lstrip(".")
