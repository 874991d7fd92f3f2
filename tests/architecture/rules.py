"""The conventions as functions of a file's text: each returns what offends, as `line: what`."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("runtime", "actors", "devices", "gateway", "models")
LINES_MAX = 500
POLL_S_MAX = 0.05
"""An asyncio.sleep up to this is a poll between two looks at a condition; a longer one is a guess."""

# Recognition scores, the wait of RetryLater and the statistics of a stage are measures, not money.
NO_MONEY = {"errors.py", "evidence.py", "face_quality.py", "liveness.py", "recognition.py"}

MEASURES = {"liveness"}
"""Fields in files with money that are no money."""

Rule = Callable[[str], Iterator[str]]


def _calls(tree: ast.AST) -> Iterator[tuple[int, str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func), node


def _imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, node.module or ""


def sleeps(text: str) -> Iterator[str]:
    """time.sleep in a test, or an asyncio.sleep that is longer than a poll."""
    if "sleep" not in text and "wait_for_timeout" not in text:
        return
    tree = ast.parse(text)
    for line, name, call in _calls(tree):
        if name == "time.sleep" or name.endswith(".wait_for_timeout"):
            yield f"{line}: {name}"
        if name in {"asyncio.sleep", "anyio.sleep"} and call.args:
            seconds = call.args[0]
            if (
                isinstance(seconds, ast.Constant)
                and isinstance(seconds.value, (int, float))
                and seconds.value > POLL_S_MAX
            ):
                yield f"{line}: {name}({seconds.value})"
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "time" and any(n.name == "sleep" for n in node.names):
            yield f"{node.lineno}: from time import sleep"


IMPURE = {
    "datetime.now", "datetime.utcnow", "datetime.today", "datetime.datetime.now", "datetime.datetime.utcnow",
    "date.today", "datetime.date.today", "time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns",
    "time.perf_counter", "time.sleep", "uuid.uuid1", "uuid.uuid4", "uuid4", "uuid.uuid7", "os.urandom", "os.getenv",
    "open", "print", "input", "asyncio.sleep", "asyncio.run", "asyncio.create_task",
}  # fmt: skip
IMPURE_MODULES = {"random", "secrets", "socket", "subprocess", "threading", "logging", "urllib.request", "sqlite3"}


def impurities(text: str) -> Iterator[str]:
    """Clocks, chance, input and output in code that must be a function of its arguments; floats aside."""
    tree = ast.parse(text)
    for line, name, _ in _calls(tree):
        if name in IMPURE:
            yield f"{line}: {name}()"
    for line, module in _imports(tree):
        if module in IMPURE_MODULES:
            yield f"{line}: import {module}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Await):
            yield f"{node.lineno}: await"


def floats(text: str) -> Iterator[str]:
    """Float literals, annotations, calls and true division: money is integer fen."""
    tree = ast.parse(text)
    measured = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) in MEASURES
        for part in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in measured:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, float):
            yield f"{node.lineno}: {node.value}"
        elif isinstance(node, ast.Name) and node.id == "float":
            yield f"{node.lineno}: float"
        elif isinstance(node, (ast.BinOp, ast.AugAssign)) and isinstance(node.op, ast.Div):
            yield f"{node.lineno}: / (use //, or divmod)"


def class_names(text: str) -> Iterator[str]:
    """A class called a model of something; a table class not called a row."""
    if not re.search(r"class\s+\w*model|table\s*=", text, re.IGNORECASE):
        return
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ClassDef):
            continue
        if "model" in node.name.lower():
            yield f"{node.lineno}: class {node.name}"
        is_table = any(k.arg == "table" and ast.unparse(k.value) == "True" for k in node.keywords)
        if is_table and not node.name.endswith("Row"):
            yield f"{node.lineno}: table class {node.name} is no …Row"


UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError)\b")
BARE_EXCUSES = re.compile(r"#\s*(noqa(?!: ?[A-Z]+\d+)|type:\s*ignore(?!\[))", re.IGNORECASE)


def unfinished(text: str) -> Iterator[str]:
    """Stubs and notes to oneself, and suppressions that do not say what they suppress."""
    for number, line in enumerate(text.splitlines(), 1):
        if found := UNFINISHED.search(line):
            yield f"{number}: {found.group()}"
        if found := BARE_EXCUSES.search(line):
            yield f"{number}: {found.group()} without a code"


def too_long(text: str) -> Iterator[str]:
    """A file that is a question to answer."""
    if (lines := text.count("\n")) > LINES_MAX:
        yield f"{lines} lines, {LINES_MAX} at most"


PLACES = re.compile(r"(?<![\w.])/(work|root|home/\w+)/|(?<!\w)/Users/\w+/")
WORKPLACE = re.compile(r"\b(claude|chatgpt|copilot|anthropic|openai|sub-?agents?)\b", re.IGNORECASE)


def foreign_places(text: str) -> Iterator[str]:
    """Paths of somebody's machine, and talk of anything but the project."""
    for number, line in enumerate(text.splitlines(), 1):
        for pattern in (PLACES, WORKPLACE):
            if found := pattern.search(line):
                yield f"{number}: {found.group()}"


INDEX = re.compile(r"(--(extra-)?index-url|--find-links|https?://|@ file:|pypi\.org|pythonhosted)", re.IGNORECASE)


def index_hosts(text: str) -> Iterator[str]:
    """A lock names versions and hashes, never where to get them."""
    for number, line in enumerate(text.splitlines(), 1):
        if found := INDEX.search(line):
            yield f"{number}: {found.group()}"


def unhashed(text: str) -> Iterator[str]:
    """Requirements without exact version or hash."""
    for block in re.sub(r"#.*", "", text).replace("\\\n", " ").splitlines():
        if block.strip() and not (re.match(r"\S+==\S+", block) and "--hash=sha256:" in block):
            yield block.strip()[:60]


def real_parts(text: str) -> Iterator[str]:
    """Engines, sockets and processes in tests of what is pure."""
    banned = {
        "ray",
        "socket",
        "subprocess",
        "psycopg",
        "paho",
        "sqlalchemy",
        "sqlmodel",
        "httpx",
        "onnxruntime",
        "runtime",
    }
    for line, name in _imports(ast.parse(text)):
        if name.split(".")[0] in banned and not name.startswith("runtime.testing"):
            yield f"{line}: import {name}"


def ray_decorators(text: str) -> Iterator[str]:
    """Where a class becomes a Ray actor."""
    if "remote" not in text:
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "ray.remote":
            yield f"{node.lineno}: ray.remote"


# --- the files ---------------------------------------------------------------------------------------------


def python_files(*folders: str) -> list[Path]:
    """Our Python files under `folders`, without what is vendored."""
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if "vendor" not in path.parts]


def text_files() -> list[Path]:
    """Everything that we wrote: code, configuration, documents, templates."""
    kinds = {
        ".py",
        ".md",
        ".yaml",
        ".yml",
        ".toml",
        ".sh",
        ".html",
        ".css",
        ".js",
        ".mjs",
        ".json",
        ".conf",
        ".ini",
        ".txt",
    }
    folders = [*PACKAGES, "configs", "docs", "scripts", "tests", "requirements", ".ci"]
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*")) if path.is_file()]
    found += [path for path in sorted(ROOT.iterdir()) if path.is_file()]
    return [
        path
        for path in found
        if (path.suffix in kinds or path.name in {"Makefile", "run"})
        and not {"vendor", "__pycache__", "cases"} & set(path.parts)
    ]


@cache
def text_of(path: Path) -> str:
    """Read once for all rules."""
    return path.read_text(encoding="utf-8")


def offences(files: list[Path], rule: Rule) -> list[str]:
    """All findings of `rule`, each with its file."""
    return [f"{path.relative_to(ROOT)}:{finding}" for path in files for finding in rule(text_of(path))]
