"""The command line as people type it: words out, one red sentence when something is wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from http.client import FORBIDDEN
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from markets import recorded_walk
from typer.testing import CliRunner, Result

from fxlab import _log
from fxlab._cli import app
from fxlab._cli import server as server_commands
from fxlab._questdb.server import ServerStatus
from fxlab.collect._files import importer
from fxlab.config import Settings
from fxlab.errors import StrategyNotFound
from fxlab.lab import Lab

COMMANDS = (
    "up",
    "down",
    "status",
    "doctor",
    "backup",
    "restore",
    "settings",
    "lab",
    "demo",
    "import",
    "sessions",
    "backtest",
    "strategies",
    "cost-ladder",
    "compare-runs",
    "check-lookahead",
    "runs",
    "sweeps",
    "batch",
    "nightly",
    "nights",
)


def fxlab(*words: str) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(app, list(words))


def one_error(result: Result) -> str:
    """Return the only line on standard error of a command that failed on purpose."""
    assert result.exit_code == 1, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("Error: ")
    assert "Traceback" not in result.output
    return lines[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str):
    shown = fxlab("--help").stdout
    assert command in shown
    answer = fxlab(command, "--help")
    assert answer.exit_code == 0
    assert "Usage" in answer.stdout


def test_as_a_module_and_its_exit_code():
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-m", "fxlab", "backtest", "sma_cross"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert answer.stderr.startswith("Error: session_id is required")


# ---- the machine -----------------------------------------------------------------------------


def test_up_and_status_show_the_server_and_no_password(server: ServerStatus):
    for command in ("up", "status"):
        answer = fxlab(command)
        assert answer.exit_code == 0
        assert str(server.pid) in answer.stdout
        assert server.endpoint is not None
        assert server.endpoint.password not in answer.stdout
        assert server.endpoint.pg_password not in answer.stdout


def test_status_prints_the_console_and_of_a_server_of_one_s_own_nothing_else(
    server: ServerStatus, monkeypatch: pytest.MonkeyPatch
):
    assert server.endpoint is not None
    embedded = json.loads(fxlab("status", "--json").stdout)
    assert embedded["console"] == server.endpoint.http_url
    assert embedded["health"] == f"http://127.0.0.1:{Settings.load().questdb_health_port}"
    login = (server.endpoint.user, server.endpoint.password or "")
    assert "Healthy" in httpx.get(embedded["health"], auth=login).text
    monkeypatch.setenv("FXLAB_QUESTDB_HOST", "127.0.0.1")
    own = json.loads(fxlab("status", "--json").stdout)
    assert set(own) == {"state", "console", "user", "PostgreSQL", "message"}
    assert (own["state"], own["console"]) == ("external", server.endpoint.http_url)
    assert str(server.root) not in str(own)


def test_status_and_down_without_a_server(
    server_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FXLAB_HOME", str(tmp_path))
    status = fxlab("status")
    assert status.exit_code == 3
    assert "fxlab up" in status.stdout
    down = fxlab("down")
    assert (down.exit_code, down.stdout) == (0, "no embedded server was running\n")


def test_an_error_on_purpose_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("FXLAB_HOME", str(tmp_path))
    monkeypatch.setenv("FXLAB_QUESTDB_MEMORY", "[red]lots[/red]")
    assert "FXLAB_QUESTDB_MEMORY='[red]lots[/red]'" in one_error(fxlab("up"))


def test_debug_shows_where_it_came_from():
    plain = fxlab("backtest", "some_session", "sma_cros")
    assert "did you mean 'sma_cross'" in one_error(plain)
    debug = fxlab("--debug", "backtest", "some_session", "sma_cros")
    assert isinstance(debug.exception, StrategyNotFound)


def test_settings_tell_value_and_source(server_settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FXLAB_QUESTDB_PASSWORD", "do-not-tell")
    shown = fxlab("settings").stdout
    line = next(line for line in shown.splitlines() if "questdb_http_port" in line)
    assert str(server_settings.questdb_http_port) in line
    assert "FXLAB_QUESTDB_HTTP_PORT" in line
    assert "do-not-tell" not in shown
    for name in server_settings.sources:
        assert name in shown


def test_doctor_is_well_with_a_server(server: ServerStatus):
    answer = fxlab("doctor")
    assert answer.exit_code == 0, answer.output
    assert "verified" in answer.stdout
    assert "MEND" not in answer.stdout


def test_doctor_fails_with_the_next_step(
    server_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FXLAB_HOME", str(tmp_path / "nowhere"))
    answer = fxlab("doctor")
    assert answer.exit_code == 1
    assert "MEND" in answer.stdout


# ---- notebooks -------------------------------------------------------------------------------


@pytest.fixture
def jupyter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[list[str], dict]]:
    """Catch the command that would become JupyterLab, in an empty working folder."""
    caught: list[tuple[list[str], dict]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        server_commands.os, "execve", lambda _, words, env: caught.append((words, env))
    )
    return caught


def test_lab_passes_options_on_and_lowers_no_guard(server: ServerStatus, jupyter, tmp_path: Path):
    (tmp_path / "notebooks").mkdir()
    assert fxlab("lab", "notebooks", "--no-browser", "--port", "8889").exit_code == 0
    words, environment = jupyter[0]
    guard = ["--allow-root"] if os.geteuid() == 0 else []
    assert words[1:] == ["-m", "jupyterlab", *guard, "--no-browser", "--port", "8889", "notebooks"]
    for weak in ("ip=", "token", "allow_origin", "disable_check_xsrf", "password"):
        assert not any(weak in word for word in words)
    assert environment["FXLAB_HOME"] == str(server.root.parent)
    assert "FXLAB_QUESTDB_HOST" not in environment


def test_lab_takes_a_folder_and_refuses_what_is_none(server: ServerStatus, jupyter, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    assert fxlab("lab", "mine", "--no-browser").exit_code == 0
    assert jupyter[0][0][-2:] == ["--no-browser", "mine"]
    assert "yours is not a folder" in one_error(fxlab("lab", "yours"))


def test_lab_copies_the_shipped_notebooks_once(
    server: ServerStatus, jupyter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shipped = tmp_path / "site" / "fxlab" / "notebooks"
    shipped.mkdir(parents=True)
    (shipped / "a.ipynb").write_text("shipped")
    (shipped / "b.ipynb").write_text("shipped")
    (shipped / "01_quickstart.ipynb").write_text("shipped")
    (shipped / "batch").mkdir()
    (shipped / "batch" / "jobs.toml").write_text("shipped")
    (tmp_path / "notebooks").mkdir()  # of another project
    monkeypatch.setattr(server_commands, "__file__", str(shipped.parent / "_cli" / "server.py"))
    assert fxlab("lab").exit_code == 0
    copy = tmp_path / "fxlab-notebooks"
    assert jupyter[0][0][-2:] == ["--LabApp.default_url=/lab/tree/01_quickstart.ipynb", copy.name]
    (copy / "a.ipynb").write_text("mine now")
    (copy / "b.ipynb").unlink()
    assert fxlab("lab").exit_code == 0
    assert (copy / "a.ipynb").read_text() == "mine now"
    assert (copy / "b.ipynb").read_text() == "shipped"
    assert (copy / "batch" / "jobs.toml").read_text() == "shipped"


def test_lab_starts_a_jupyterlab_that_asks_for_its_token(
    server: ServerStatus, tmp_path: Path, free_ports: Callable[[int], list[int]]
):
    port = free_ports(1)[0]
    (tmp_path / "01_quickstart.ipynb").write_text("{}")
    command = [sys.executable, "-m", "fxlab", "lab", str(tmp_path), "--no-browser"]
    command.append("--IdentityProvider.token=of-the-test")
    with (tmp_path / "log").open("w") as log:
        jupyter = subprocess.Popen([*command, f"--port={port}"], stdout=log, stderr=log)
    try:
        answer = _wait_for(f"http://127.0.0.1:{port}/api/contents", jupyter)
        assert answer.status_code == FORBIDDEN
        sessions = f"http://127.0.0.1:{port}/fxlab/api/data-collection/sessions"
        assert httpx.get(sessions, trust_env=False).status_code == FORBIDDEN
        token = {"Authorization": "token of-the-test"}
        found = httpx.get(sessions, headers=token, params={"limit": 1}, trust_env=False, timeout=60)
        assert found.json()["limit"] == 1
    finally:
        jupyter.terminate()
        jupyter.wait(120)
    assert "/lab/tree/01_quickstart.ipynb" in (tmp_path / "log").read_text()


def _wait_for(address: str, process: subprocess.Popen, seconds: float = 180.0) -> httpx.Response:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            return httpx.get(address, trust_env=False)
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"{address} did not answer")


# ---- sessions and backtests ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sma_cross"], "session_id is required"),
        ([], "fxlab sessions list"),
        (["some", "sma_cross", "-p", "fst=1"], "did you mean 'fast'"),
        (["some", "sma_cross", "-p", "fast"], "is not NAME=VALUE"),
        (["some", "sma_cross", "-p", "fast=x"], "fast='x' is not an int"),
        (["some", "sma_cross", "-p", "fast=1", "-p", "fast=2"], "given twice"),
        (["some", "sma_cross", "--latency", "soon"], "--latency soon"),
    ],
)
def test_a_wrong_backtest_is_refused_before_a_server_is_asked(words: list[str], told: str):
    assert told in one_error(fxlab("backtest", *words))


def test_strategies_are_listed_with_their_parameters():
    shown = fxlab("strategies").stdout
    assert "sma_cross" in shown
    assert "fast=50, slow=200" in shown


def test_an_unknown_session_is_one_sentence(server: ServerStatus, unique: Callable[..., str]):
    missing = unique("missing")
    for words in (["sessions", "show", missing], ["backtest", missing, "sma_cross"]):
        assert f"no session named '{missing}'" in one_error(fxlab(*words))


def test_copies_are_listed_and_cleared(server: ServerStatus, lab: Lab, unique: Callable[..., str]):
    session = unique("copies")
    lab.import_frames({"prices": recorded_walk(30_000, symbol="BTC_USDT")}, session_id=session)
    lab.session(session).prices()
    assert session in fxlab("cache", "list").stdout
    assert "bytes are free again" in fxlab("cache", "clear", session).stdout
    assert session not in fxlab("cache", "list").stdout


def test_an_import_takes_its_numbers(
    server: ServerStatus,
    tmp_path: Path,
    unique: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
):
    folder = tmp_path / unique("numbers")
    folder.mkdir()
    rows = [f"{1723161255 + n},A,1,1" for n in range(40)]
    for name, lines in (("a", rows), ("b", [*rows[:39], "no tick"])):
        text = "\n".join(["timestamp,symbol,price,qty", *lines, ""])
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    given: dict[str, Any] = {}
    levels: list[str] = []
    run = importer.import_sources

    def spy(*places: Any, **options: Any) -> importer.ImportReport:
        given.update(options)
        return run(*places, **options)

    monkeypatch.setattr(importer, "import_sources", spy)
    monkeypatch.setattr(_log, "enable_logging", levels.append)
    numbers = ("--batch-size", "7", "--workers", "2", "--max-bad", "0.025", "--verbose")
    done = fxlab("import", str(folder), *numbers, "--json")
    assert done.exit_code == 0, done.output
    told = [(row["rows"], row["quarantined"], row["state"]) for row in json.loads(done.stdout)]
    assert told == [(40, 0, "imported"), (39, 1, "imported")]
    how = given["how"]
    assert (how.batch_size, given["workers"], how.max_bad, levels) == (7, 2, 0.025, ["INFO"])
    again = fxlab("import", str(folder), "--max-bad", "0.024")
    assert "--max-bad 0.024 allows" in one_error(again)


def test_an_import_that_keeps_going_lists_what_is_refused(
    server: ServerStatus, tmp_path: Path, unique: Callable[..., str]
):
    folder = tmp_path / unique("going")
    folder.mkdir()
    (folder / "a.csv").write_text("timestamp,symbol,price,qty\n1723161255,A,1,1\n")
    (folder / "b.csv").write_text("timestamp,price,qty\n1723161255,1,1\n")
    assert "--symbol BTC_USDT" in one_error(fxlab("import", str(folder)))
    done = fxlab("import", str(folder), "--keep-going", "--json")
    assert done.exit_code == 1
    (line,) = json.loads(done.stdout)
    assert (line["session_id"], line["state"]) == (f"{folder.name}_a", "imported")
    assert f"{folder.name}_b is refused: " in done.stderr
    assert "--symbol BTC_USDT" in done.stderr
    (folder / "b.csv").unlink()
    assert fxlab("import", str(folder), "--keep-going").exit_code == 0


def test_import_takes_a_symbol_a_folder_and_tells_what_it_rounded(
    server: ServerStatus, tmp_path: Path, unique: Callable[..., str]
):
    session, folder = unique("cli"), tmp_path / "days"
    folder.mkdir()
    for day, seconds in enumerate(("1723161255.342000372", "1723247655.342")):
        lines = f"timestamp,price,qty\n{seconds},50000.5,0.001\n"
        (folder / f"{day}.csv").write_text(lines, encoding="utf-8")
    (folder / "notes.txt").write_text("words", encoding="utf-8")
    assert "--symbol BTC_USDT" in one_error(fxlab("import", str(folder), "--session", session))
    only = ("imports", "list", "--session", session)
    (refused,) = json.loads(fxlab(*only, "--json").stdout)
    assert (refused["path"], refused["state"]) == ("days/0.csv", "refused")
    assert "--symbol BTC_USDT" in refused["reason"]
    words = ["import", str(folder), "--session", session, "--symbol", "BTC_USDT"]
    done = fxlab(*words)
    assert done.exit_code == 0, done.output
    told = " ".join(done.stdout.split())
    assert "timestamp is finer than a microsecond in 1 of 1 rows" in told
    assert "notes.txt" in done.stdout.replace("\n", "")
    again = fxlab(*words, "--exchange", "kraken", "--tag", "clean")
    assert again.exit_code == 0, again.output
    assert "updated" in again.stdout or "updat" in again.stdout
    assert session in fxlab("sessions", "list", "--exchange", "kraken", "--text", session).stdout
    shown = json.loads(fxlab("sessions", "show", session, "--imports", "--json").stdout)
    told = [(row["path"], row["state"], row["rows_good"]) for row in shown["imports"]]
    assert told == [("days/0.csv", "done", 1), ("days/1.csv", "done", 1)]
    assert "1 of 3 shown; --limit shows more" in fxlab(*only, "--limit", "1").output
    assert fxlab(*only, "--state", "done", "--csv").stdout.count("done") == 2
    assert "no such files" in fxlab(*only, "--state", "failed").output
    assert "choose one of: started, done" in one_error(fxlab(*only, "--state", "well"))
    assert "finer than a microsecond" in fxlab("sessions", "show", session, "--imports").stdout


def test_from_files_to_a_saved_report(
    server: ServerStatus, shared_data: Path, tmp_path: Path, unique: Callable[..., str]
):
    """One story: dry run, import, list, show, backtest."""
    session = unique("cli")
    folder = shared_data / "seed_csv_tree" / "session_exec_20240809_000000_1f0a9b3c"
    words = ["import", str(folder), "--session", session, "--exchange", "binance", "--tag", session]
    dry = fxlab(*words, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "dry run" in dry.stdout
    assert "no such sessions" in fxlab("sessions", "list", "--text", session).stdout

    done = fxlab(*words)
    assert done.exit_code == 0, done.output
    assert "10,166" in done.stdout
    listed = fxlab("sessions", "list", "--symbol", "BTC_USDT", "--text", session).stdout
    assert session in listed
    assert "completed" in listed
    assert session not in fxlab("sessions", "list", "--exchange", "kraken").stdout
    shown = fxlab("sessions", "show", session).stdout
    assert "10,166" in shown
    assert "BTC_USDT" in shown

    report = tmp_path / "out"
    options = ["-p", "fast=20", "-p", "slow=100", "--fee-bps", "1", "--latency", "50ms"]
    ran = fxlab("backtest", session, "sma_cross", *options, "--report", str(report), "--save")
    assert ran.exit_code == 0, ran.output
    assert f"sma_cross(fast=20, slow=100, allow_short=False) on {session}" in ran.stdout
    for part in ("final_equity", "fingerprint", "saved: exec_", f"report: {report}"):
        assert part in ran.stdout
    assert len(list(report.glob("*.html"))) == 1


@pytest.fixture(scope="module")
def with_a_spike(lab, unique):
    """Return the id of a session of two hours in which one price is twice the others."""
    name = unique("quality")
    times = [1_723_161_255.5 + n for n in range(7_200)]
    prices = [200.0 if n == 3_000 else 100.0 + n % 3 for n in range(7_200)]
    frame = pl.DataFrame({"timestamp": times, "price": prices, "qty": 1.0})
    frame = frame.with_columns(symbol=pl.lit("BTC_USDT"))
    lab.import_frame(frame, "prices", session_id=name)
    return name


def test_quality_is_shown_with_its_reasons(lab, with_a_spike):
    quality = lab.session(with_a_spike).quality()
    assert quality.score < 100
    shown = fxlab("sessions", "show", with_a_spike, "--quality")
    assert shown.exit_code == 0, shown.output
    assert str(quality.score) in shown.stdout
    assert all(reason in shown.output for reason in quality.reasons)
    told = json.loads(fxlab("sessions", "show", with_a_spike, "--quality", "--json").stdout)
    assert told["score"] == {"score": quality.score}
    (checks,) = told["checks"]
    assert checks["outliers"] == 1
    assert "checks" not in json.loads(fxlab("sessions", "show", with_a_spike, "--json").stdout)


# ---- letters, and what is not there ------------------------------------------------------------

FEW_LETTERS = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "cp1252"},
    {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
]
NOTES = "Zoë's desk — 東京 ₿"


@pytest.fixture(scope="module")
def one_tick(lab, unique):
    """Return the id of a session with one tick, and notes in many letters."""
    name = unique("letters")
    frame = pl.DataFrame({"timestamp": [1_723_161_255.5], "price": [1.5], "qty": [1.0]})
    frame = frame.with_columns(symbol=pl.lit("BTC_USDT"))
    lab.import_frame(frame, "prices", session_id=name, notes=NOTES, tags=("naïve",))
    return name


@pytest.mark.parametrize("variables", FEW_LETTERS, ids=lambda one: "-".join(one.values()))
@pytest.mark.parametrize(
    "words", ["sessions show {}", "sessions list --text {}", "sessions show ₿"]
)
def test_letters_that_a_terminal_cannot_hold_are_replaced(one_tick, variables, words):
    done = subprocess.run(
        [sys.executable, "-m", "fxlab", *words.format(one_tick).split()],
        env=os.environ | variables,
        capture_output=True,
        check=False,
    )
    assert done.returncode == ("₿" in words), done.stderr
    assert b"Traceback" not in done.stderr
    if words == "sessions show {}":
        assert b"s desk " in done.stdout
        assert b" ?? ?" in done.stdout


@pytest.mark.parametrize("variables", FEW_LETTERS, ids=lambda one: "-".join(one.values()))
def test_json_is_exact_with_few_letters(one_tick, variables):
    done = subprocess.run(
        [sys.executable, "-m", "fxlab", "sessions", "show", one_tick, "--json"],
        env=os.environ | variables,
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["session"]["notes"] == NOTES


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("sessions show {}", "statistics"),
        ("backtest {} sma_cross", "no closed trades"),
        ("ladder {} buy_and_hold", "as given"),
        ("replay {} --speed inf --strategy sma_cross", "no closed trades"),
        ("check {} sma_cross", "sma_cross was not tried: 1 ticks of BTC_USDT are too few"),
        ("sweep {} sma_cross -g fast=3,5 -g slow=13", "no point has a sharpe_per_period"),
        ("walk-forward {} sma_cross -g fast=3 --train 1h --test 1h", "do not fit into"),
        ("walk-forward {two} sma_cross -g fast=3 --train 1h --test 1h", "none of 9 windows was"),
        ("backtest {} sma_cross --start 2030-01-01", "has no ticks of BTC_USDT"),
        ("sessions list --text no-such-text-anywhere", "no such sessions; bring ticks in with"),
    ],
)
def test_what_is_missing_is_said_in_words(lab, unique, one_tick, words, said):
    two = unique("two")
    if "{two}" in words:
        day = {"timestamp": [0.0, 36_000.0], "price": [1.5, 1.5], "qty": [1.0, 1.0]}
        frame = pl.DataFrame(day).with_columns(
            pl.col("timestamp") + 1.7e9, symbol=pl.lit("BTC_USDT")
        )
        lab.import_frame(frame, "prices", session_id=two)
    shown = fxlab(*words.format(one_tick, two=two).split()).output
    assert said in shown
    assert not re.search(r"\b(nan|inf|None|null)\b", shown)
