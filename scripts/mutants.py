"""A mutation pass over the money rules, each mutant in a fork of one process that has loaded the tests.

    make mutants ARGS='charging ledger'    files of models/domain; without names all that deal with money

Every test runs alone first, to see which lines it meets; then, as a control, all of them with every function grafted
anew but unchanged; then each mutant against the tests that meet its function. What is left, and the counts, come on
stderr, everything in var/mutants/results.jsonl; what stands there is not tried again. docs/mutants.md explains them.
"""

from __future__ import annotations

import argparse
import ast
import gc
import hashlib
import importlib
import json
import os
import sys
import types
from collections import Counter
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
from mutation import ROOT, forked, graft, mutants

RULES, OUT = ROOT / "models" / "domain", ROOT / "var" / "mutants"
MONEY = (
    *("charging", "settlement", "membership", "membership_actions", "membership_end", "membership_events"),
    *("membership_guarantee", "membership_state", "ledger", "returns", "pricing", "best_set", "vouchers", "benefits"),
    *("reconciliation", "differences", "difference_postings", "franchise", "accounts", "money", "periods", "drawers"),
    *("drawer_postings", "member_balance", "points", "points_ledger", "receipts", "invoices", "taxes"),
)
TESTS = ("tests/domain", "tests/actors", "tests/simulation/test_settlement_failures.py", "tests/integration")
COSTLY = frozenset({"embedded_postgres", "broker", "shared_broker", "_house"})
"""Who needs one of these is not run: a fork has no database."""
EXAMPLES_MAX = 40
CONTROL_S, ONE_TEST_S = 1_800, 120


class Pass:
    """The pytest plugin: instead of running the tests once, it runs them for each mutant."""

    def __init__(self, files: list[str], cpu_s: int) -> None:
        self.files, self.cpu_s, self.red = files, cpu_s, ""

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [one for one in items if not COSTLY & set(one.fixturenames) and not one.get_closest_marker("soak")]
        for item in items:
            test = getattr(item.obj, "__func__", item.obj)
            drawn = getattr(test, "_hypothesis_internal_use_settings", None)
            if drawn is not None:  # the same examples for every mutant, and no time for shrinking
                test._hypothesis_internal_use_settings = hypothesis.settings(
                    drawn, max_examples=min(drawn.max_examples, EXAMPLES_MAX), derandomize=True, database=None,
                    deadline=None, phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
                )  # fmt: skip

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.red = self.red or (report.nodeid if report.failed else "")

    def pytest_runtestloop(self, session: Any) -> bool:
        tests = {item.nodeid: item for item in session.items}
        met = self._met(tests)
        gc.collect()
        gc.freeze()

        def control(alive: Callable[[], None]) -> str:
            count = sum(graft(_module(one), (RULES / f"{one}.py").read_text("utf-8"), all_of_it=True) for one in MONEY)
            return self._first_red([tests[one] for one in met], alive) or f"green: {count} functions, {len(met)} tests"

        verdict = forked(control, CONTROL_S)
        _say(f"control {verdict}")
        for one in self.files if verdict.startswith("green") else []:
            self._try_all(one, tests, met)
        return True

    def _try_all(self, file: str, tests: dict[str, Any], met: dict[str, set[str]]) -> None:
        source, results = (RULES / f"{file}.py").read_text("utf-8"), OUT / "results.jsonl"
        known = results.read_text("utf-8").splitlines() if results.exists() else []
        done = {(one["file"], one["op"], one["nth"]) for one in map(json.loads, known)}
        counts, reds = Counter[str](), Counter[str]()
        for mutant in mutants(source):
            if (file, mutant["op"], mutant["nth"]) in done:
                continue
            code, places = mutant.pop("code"), _function_at(source, mutant["line"], file)
            whole = len(places) > source.count("\n")  # what no function is met by tests that only make values, too
            meets = [one for one in met if places & met[one] or (whole and not met[one])]
            meets.sort(key=lambda one: -reds[one])
            verdict = forked(self._trial(file, code, [tests[one] for one in meets]), self.cpu_s)
            reds[verdict.removeprefix("red ")] += 1
            counts[verdict.partition(" ")[0]] += 1
            with results.open("a", encoding="utf-8") as out:
                out.write(json.dumps({"file": file, **mutant, "result": verdict, "tests": len(meets)}) + "\n")
            if not verdict.startswith("red"):
                _say(f"{file} {mutant['line']}: {mutant['old']}  =>  {mutant['new']}  {verdict}")
        _say(f"{file}: {dict(counts)}")

    def _trial(self, file: str, code: str, tests: list[Any]) -> Callable[[Callable[[], None]], str]:
        def work(alive: Callable[[], None]) -> str:
            try:
                changed = graft(_module(file), code)
            except Exception as error:  # noqa: BLE001 - what cannot be loaded is found
                return f"red at loading: {error!r}"
            red = self._first_red(tests, alive) if changed else ""
            return f"red {red}" if red else "left" if changed else "ungrafted"

        return work

    def _met(self, tests: dict[str, Any]) -> dict[str, set[str]]:
        """Which lines of the rules (`file:line`) each test meets; without those that fail by themselves."""
        digest = hashlib.sha256()
        for path in sorted([*RULES.glob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "actors").glob("*.py")]):
            digest.update(path.read_bytes())
        digest.update("\n".join(tests).encode())
        kept = OUT / f"lines-{digest.hexdigest()[:16]}.json"
        if not kept.exists():
            said = {name: forked(self._lines(item), ONE_TEST_S) for name, item in tests.items()}
            kept.write_text(json.dumps({name: json.loads(one) for name, one in said.items() if one[:1] == "["}))
        met = json.loads(kept.read_text("utf-8"))
        return {name: set(lines) for name, lines in met.items() if name in tests}

    def _lines(self, item: Any) -> Callable[[Callable[[], None]], str]:
        def work(alive: Callable[[], None]) -> str:
            found, rules = set[str](), f"{RULES}{os.sep}"

            def trace(frame: types.FrameType, event: str, _arg: object) -> Any:
                path = frame.f_code.co_filename
                if event == "line":
                    found.add(f"{path[len(rules) : -3]}:{frame.f_lineno}")
                return trace if path.startswith(rules) else None

            sys.settrace(trace)
            red = self._first_red([item], alive)
            sys.settrace(None)
            return "" if red else json.dumps(sorted(found))

        return work

    def _first_red(self, items: list[Any], alive: Callable[[], None]) -> str:
        for item in items:
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            alive()
            if self.red:
                return self.red
        return ""


def _function_at(source: str, line: int, file: str) -> set[str]:
    """The lines of the innermost function around a line, or of the whole file where there is none."""
    functions = [one for one in ast.walk(ast.parse(source)) if isinstance(one, ast.FunctionDef)]
    spans = [range(one.lineno, (one.end_lineno or one.lineno) + 1) for one in functions]
    inner = min((span for span in spans if line in span), key=len, default=range(1, source.count("\n") + 2))
    return {f"{file}:{each}" for each in inner}


def _module(file: str) -> types.ModuleType:
    return importlib.import_module(f"models.domain.{file}")


def _say(text: str) -> None:
    print(text, file=sys.__stderr__, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="*", default=list(MONEY), help="files of models/domain, without .py")
    parser.add_argument("--seconds", type=int, default=20, help="CPU of one mutant at most")
    parser.add_argument("--tests", nargs="*", default=list(TESTS), help="files or folders of tests, all pure ones")
    asked = parser.parse_args()
    os.chdir(ROOT)
    OUT.mkdir(parents=True, exist_ok=True)
    words = "-q -n 0 -p no:cacheprovider -p no:unraisableexception -W ignore::pytest.PytestAssertRewriteWarning"
    sys.exit(pytest.main([*asked.tests, *words.split()], plugins=[Pass(asked.files, asked.seconds)]))
