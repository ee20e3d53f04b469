"""The commands that doubt a result, and those that run unwatched."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import subprocess
import sys
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from markets import recorded_walk
from typer.testing import CliRunner

import fxlab
from fxlab._cli import app
from fxlab._cli.common import systemd_service
from fxlab._cli.sweep import NIGHTLY, TIMER, crontab_line
from fxlab.batcher._jobs import BatchJob, checked_sweeps, load_jobs
from fxlab.sweeper._results import COMPARISON

EXAMPLES = Path(__file__).parents[2] / "notebooks" / "batch"
PEEKING = '''
import polars as pl
import fxlab

def peeks(*, ahead: int = 1) -> fxlab.Signals:
    """See."""
    rise = pl.col("price").shift(-ahead) - pl.col("price")
    return fxlab.Signals(target=pl.when(rise > 0).then(1.0).otherwise(0.0))
'''


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def session(lab, unique):
    made = unique("judged")
    lab.import_frames({"prices": recorded_walk(2_000, symbol="BTC")}, session_id=made)
    return lab.session(made)


def one_error(answer):
    assert answer.exit_code == 1, answer.output
    (line,) = answer.stderr.splitlines()
    return line


# ---- assumptions on the command line ---------------------------------------------------------


def test_a_backtest_takes_all_assumptions(session, lab, tmp_path):
    costs = tmp_path / "costs.toml"
    costs.write_text("[execution]\nslippage_bps = 9\nmax_leverage = 2\nlatency = '1s'\n")
    answer = run(
        *("backtest", session.id, "sma_cross", "-p", "fast=3", "-p", "slow=9", "--save"),
        *("-x", costs, "-x", "rebalance=0.5", "-x", "slippage_bps=3", "--maker-bps", "-1"),
        *("--taker-bps", "2", "--latency", "lognormal:20ms,0.5"),
    )
    assert answer.exit_code == 0, answer.output
    terms = fxlab.Execution(
        taker_bps=2.0,
        maker_bps=-1.0,
        slippage_bps=3,
        max_leverage=2,
        rebalance=0.5,
        latency=fxlab.Latency.lognormal("20ms", 0.5),
    )
    same = fxlab.backtest(session, "sma_cross", {"fast": 3, "slow": 9}, execution=terms)
    assert f"fingerprint {same.fingerprint}" in answer.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--fill", "boook"], "--fill boook is not a fill rule; known: next_trade, book. did you"),
        (["-x", "max_leverag=2"], "did you mean 'max_leverage'"),
        (["-x", "book"], "neither a TOML file nor NAME=VALUE"),
        (["-x", "nowhere.toml"], "nowhere.toml cannot be read"),
        (["--latency", "lognorm:1ms,1"], "did you mean 'lognormal'"),
        (["-x", "queue=true"], "use --fill book, or -x queue=False"),
    ],
)
def test_wrong_assumptions_are_refused_before_a_server_is_asked(words, told):
    for command in ("backtest", "cost-ladder"):
        assert told in one_error(run(command, "some", "sma_cross", *words))


def test_a_book_fill_without_books_offers_the_other_rule(session):
    told = one_error(run("backtest", session.id, "sma_cross", "--fill", "book"))
    assert "use --fill next_trade" in told


# ---- ladder, compare, check ------------------------------------------------------------------


def test_a_ladder_has_a_rung_a_row(session):
    answer = run(
        "cost-ladder", session.id, "sma_cross", "-p", "fast=3", "-p", "slow=9", "--fee-bps", 1
    )
    assert answer.exit_code == 0, answer.output
    for words in ("no costs", "double", "latency 250ms", "sma_cross", "fee 1 bps"):
        assert words in answer.stdout


def test_runs_are_compared_by_their_ids(session, lab):
    saved = [
        fxlab.backtest(session, "sma_cross", {"fast": fast, "slow": 12}).save(lab)
        for fast in (2, 3)
    ]
    answer = run("compare-runs", *saved)
    assert answer.exit_code == 0, answer.output
    for words in ("what differs", "fast=2", "fast=3", "total_return", "best"):
        assert words in answer.stdout
    same = run("compare-runs", saved[0], saved[0])
    assert "nothing that made these runs differs" in same.stdout
    assert "no run named" in one_error(run("compare-runs", saved[0], f"{saved[1]}x"))
    assert "two or more" in one_error(run("compare-runs", saved[0]))


def test_saved_runs_are_listed_and_shown(session, lab):
    saved = fxlab.backtest(session, "sma_cross", {"fast": 4, "slow": 12}).save(lab)
    listed = run("runs", "list", "--limit", "1000", "--json")
    assert saved in {row["run_id"] for row in json.loads(listed.stdout)}
    shown = run("runs", "show", saved)
    assert shown.exit_code == 0, shown.output
    for words in (saved, "sma_cross", session.id, "total_return"):
        assert words in shown.stdout
    parts = json.loads(run("runs", "show", saved, "--json").stdout)
    assert parts["run"]["parameters"] == {"fast": 4, "slow": 12, "allow_short": False}
    assert parts["metrics"][0].keys() == {"metric", "value"}
    assert "fxlab runs list" in one_error(run("runs", "show", f"{saved}x"))


def test_kept_sweeps_are_listed_and_shown(session, lab):
    grid = {"fast": [2, 3], "slow": [7]}
    # Capital of its own: other tests keep points of the usual study of this session.
    (kept,) = fxlab.sweep(session, "sma_cross", grid, lab=lab, capital=4_321).sweep_ids
    listed = run("sweeps", "list", "--limit", "1000", "--json")
    assert kept in {row["sweep_id"] for row in json.loads(listed.stdout)}
    parts = json.loads(run("sweeps", "show", kept, "--json").stdout)
    assert parts["sweep"]["done"] == 2
    assert [(row["fast"], row["state"]) for row in parts["points"]] == [(2, "done"), (3, "done")]
    assert kept in run("sweeps", "show", kept).stdout
    assert "fxlab sweeps list" in one_error(run("sweeps", "show", f"{kept}x"))


@pytest.mark.parametrize("group", ["runs", "sweeps"])
def test_bare_groups_list_as_they_did(lab, group):
    for words in ([], ["--limit", "3"], ["--json"], ["--limit", "2", "--csv"]):
        assert run(group, *words).stdout == run(group, "list", *words).stdout
    assert "show" in run(group, "--help").stdout
    assert run(group, "nothing").exit_code == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [("check", "check-lookahead"), ("ladder", "cost-ladder"), ("compare", "compare-runs")],
)
def test_old_spellings_work_and_are_hidden(old, new):
    named = re.findall(r"^  ([a-z-]+)", run("--help").stdout, re.MULTILINE)
    assert new in named
    assert old not in named
    assert (
        run(old, "--help").stdout.split("\n", 2)[2] == run(new, "--help").stdout.split("\n", 2)[2]
    )


def test_a_check_tells_honest_from_peeking(session, tmp_path):
    honest = run(
        "check-lookahead", session.id, "sma_cross", "-p", "fast=3", "-p", "slow=9", "--cuts", "4"
    )
    assert honest.exit_code == 0, honest.output
    assert "sma_cross saw no future in 12 trials at 4 cuts" in honest.stdout

    # A strategy in a file of the working directory is found by its path.
    (tmp_path / "my_ideas.py").write_text(PEEKING)
    package = os.pathsep.join([str(EXAMPLES.parents[1])])
    peeking = subprocess.run(
        [sys.executable, "-c", "from fxlab._cli import main; main()", "check-lookahead", session.id,
         "my_ideas:peeks", "--rows", "500"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": package, "PYTHONSAFEPATH": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert peeking.returncode == 1, peeking.stderr
    assert "sees the future" in peeking.stderr


# ---- batch and nightly -----------------------------------------------------------------------


def test_a_batch_passes_its_options_on_and_fails_with_a_job(monkeypatch, tmp_path):
    given = {}
    table = pl.DataFrame(
        {
            "job": ["good", "bad"],
            "state": ["done", "failed"],
            "error": [None, "ValueError: [red]no[/red]"],
            "session": ["s", "s"],
            "notebook": ["a", "b"],
            "report": ["a", None],
        }
    )
    failed = table.filter(pl.col("state") == "failed")

    def fake(file, **options):
        given.update(options, file=file)
        return SimpleNamespace(table=table, failed=failed)

    monkeypatch.setattr(fxlab, "batch", fake, raising=False)
    words = ("--workers", "3", "--no-check", "--again", "--notebook", "own.ipynb",
             "--timeout", "30m", "-p", "fast=5", "-p", "slow = 1e2", "-p", "on=true",
             "-p", "word=true x", "-p", 'text="5"', "-p", "day=2026-01-31",
             "-p", "inf=inf")  # fmt: skip
    answer = run("batch", "jobs.toml", "--out", tmp_path, *words)
    assert answer.exit_code == 1
    assert "bad: ValueError: [red]no[/red]" in answer.stdout
    assert given == {
        "file": Path("jobs.toml"),
        "out": tmp_path,
        "workers": 3,
        "check_lookahead": False,
        "again": True,
        "notebook": "own.ipynb",
        "timeout": "30m",
        "dry_run": False,
        "parameters": {"fast": 5, "slow": 100.0, "on": True, "word": "true x", "text": "5",
                       "day": date(2026, 1, 31), "inf": math.inf},
    }  # fmt: skip
    assert type(given["parameters"]["fast"]) is int
    assert type(given["parameters"]["on"]) is bool


def test_a_parameter_of_the_command_line_is_that_of_every_job(session, tmp_path):
    plan, out = tmp_path / "jobs.toml", tmp_path / "out"
    plan.write_text(
        f'[defaults]\nsession = "{session.id}"\nstrategy = "sma_cross"\n'
        "[[job]]\nparameters = { fast = 3, slow = 30 }\n[[job]]\nparameters = { slow = 60 }\n"
    )

    def jobs(*words):
        answer = run("batch", plan, "--out", out, "--dry-run", "--json", *words)
        assert answer.exit_code == 0, answer.output
        return [row["job"] for row in json.loads(answer.stdout)]

    def refused(*words):
        return one_error(run("batch", plan, "--out", out, *words))

    before, own = jobs(), jobs("-p", "fast=7")
    assert ["fast=3" in before[0], "fast=7" in own[0], "fast=7" in own[1]] == [True] * 3
    assert ["slow=30" in own[0], "slow=60" in own[1]] == [True, True]
    assert "job 1: sma_cross has no parameter 'fst'; did you mean 'fast'" in refused("-p", "fst=7")
    for value in ("nan", "inf", "1.5", "2026-01-31", "true", "x", "'7'", "[7]"):
        assert "job 1: fast=" in refused("-p", f"fast={value}")
    assert "is the same as job 1" in refused("-p", "slow=50", "-p", "fast=7")
    assert "-p fast is given twice" in refused("-p", "fast=1", "-p", "fast=2")
    assert "is not NAME=VALUE" in refused("-p", "fast")
    assert not out.exists()


def test_a_dry_run_of_a_batch_runs_nothing(session, tmp_path):
    plan, out = tmp_path / "jobs.toml", tmp_path / "out"
    plan.write_text(
        f'[defaults]\nsession = "{session.id}"\nstrategy = "sma_cross"\n'
        '[[job]]\nname = "a [red]b"\n[[job]]\nparameters = { fast = 3 }\n'
    )
    answer = run("batch", plan, "--out", out, "--dry-run")
    assert answer.exit_code == 0, answer.output
    assert "nothing was run: 2 waiting; without --dry-run, the waiting ones are" in answer.stdout
    rows = json.loads(run("batch", plan, "--out", out, "--dry-run", "--json").stdout)
    assert rows[0]["job"] == "a [red]b"
    assert [row["state"] for row in rows] == ["waiting", "waiting"]
    assert len({row["folder"] for row in rows}) == 2
    assert not out.exists()
    told = one_error(run("batch", plan, "--out", out, "--timeout", "0s"))
    assert "--timeout 0s leaves no time to run" in told


def test_a_night_from_its_file(session, tmp_path):
    plan, out = tmp_path / "nights.toml", tmp_path / "nights"
    plan.write_text(
        f'[[sweep]]\nsessions = ["{session.id}"]\nstrategy = "sma_cross"\n'
        "parameters = { fast = [2, 3], slow = { from = 5, to = 15, step = 5 } }\n"
    )
    first = run("nightly", plan, "--out", out)
    assert first.exit_code == 0, first.output
    assert "1 sweeps, 0 failed; 6 points, 0 of them from before" in first.stdout
    assert "6 points, 6 of them from before" in run("nightly", plan, "--out", out).stdout

    plan.write_text(plan.read_text() + '[[sweep]]\nname = "x"\ntag = "nobody"\n'
                    'strategy = "sma_cross"\nparameters = { fast = 2 }\n')  # fmt: skip
    second = run("nightly", plan, "--out", out)
    assert second.exit_code == 1
    assert "against the night before 1 new, 1 not compared" in second.stdout
    whole = json.loads(run("nightly", plan, "--out", out, "--json").stdout)
    assert [row["sweep"] for row in whole["rows"]] == ["sma_cross", "x"]
    changes = [(row["sweep"], row["change"], row["note"]) for row in whole["comparison"]
               if row["session"] is None]  # fmt: skip
    assert changes == [("sma_cross", "new", ""), ("x", "not compared", "failed tonight")]
    assert "x: no completed session has the tag 'nobody'" in second.stdout

    plan.write_text(
        f'[defaults]\nsplits = {{ train = "20s", folds = 2 }}\nsessions = ["{session.id}"]\n'
        'strategy = "sma_cross"\nparameters = { fast = [2, 3], slow = 9 }\n[[sweep]]\n'
    )
    dry = tmp_path / "dry"
    answer = run("nightly", plan, "--out", dry, "--dry-run")
    assert answer.exit_code == 0, answer.output
    assert "train 20s, folds 2" in answer.stdout
    assert "nothing was run; without --dry-run, it is" in answer.stdout
    assert not dry.exists()

    kept = json.loads(run("nights", "list", "--text", "nights.toml", "--json").stdout)
    own = [row for row in kept if row["page"].startswith(str(out))]
    assert [row["rank"] for row in own] == [1, 2, 3, 4, 5, 6, None]
    shown = run("nights", "--top", "1", "--text", "nights.toml sma_cross")
    assert "sma_cross" in shown.stdout
    assert run("nights", "--text", "no-such-word").stdout.startswith("no night has all these words")


def test_a_night_fails_with_a_report(monkeypatch, tmp_path):
    table = pl.DataFrame({"sweep": ["a"], "state": ["done"], "error": [None]})
    given = {}

    def fake(_file, **options):
        given.update(options)
        return SimpleNamespace(
            table=table,
            failed=table.clear(),
            comparison=pl.DataFrame(schema=COMPARISON),
            changes=pl.DataFrame(schema=COMPARISON),
            unused=[],
            failures=["report of [red]a: ValueError: no"] if options["top"] else [],
        )

    monkeypatch.setattr(fxlab, "nightly", fake, raising=False)
    plan = tmp_path / "nights.toml"
    plan.write_text("")
    answer = run("nightly", plan, "--out", tmp_path, "--top", "2", "--timeout", "30m")
    assert answer.exit_code == 1
    assert "report of [red]a: ValueError: no" in answer.stdout
    whole = {"out": tmp_path, "dry_run": False, "workers": None, "on_failure": None}
    assert given == whole | {"top": 2, "keep": None, "timeout": "30m"}
    off = ("--top", "0", "--keep", "all", "--timeout", "none", "--on-failure", "")
    assert run("nightly", plan, "--out", tmp_path, *off).exit_code == 0
    none = {"top": 0, "keep": "all", "timeout": "none", "on_failure": ""}
    assert given == whole | none
    assert run("nightly", plan, "--out", tmp_path, "--keep", "3").exit_code == 0
    assert given == whole | {"top": None, "keep": 3, "timeout": None}


def on_failure(tmp_path, *lines):
    """Return a command, and the file in which it leaves what it read."""
    script, heard = tmp_path / "hook.py", tmp_path / "heard; touch $HOME.txt"
    source = ["import pathlib, sys", f"pathlib.Path({str(heard)!r}).write_text(sys.stdin.read())"]
    script.write_text("\n".join([*source, *lines]))
    return shlex.join([sys.executable, str(script)]), heard


def test_a_failure_is_told_to_a_command(session, tmp_path):
    plan, out = tmp_path / "nights.toml", tmp_path / "nights"
    good = (
        f'[[sweep]]\nsessions = ["{session.id}"]\nstrategy = "sma_cross"\n'
        "parameters = { fast = [2, 3], slow = 9 }\n"
    )
    bad = '[[sweep]]\nname = "$(x)"\ntag = "nobody"\nstrategy = "sma_cross"\nparameters.fast = 2\n'
    command, heard = on_failure(tmp_path)
    plan.write_text(good)
    assert run("nightly", plan, "--out", out, "--on-failure", command).exit_code == 0
    assert not heard.exists()

    plan.write_text(good + bad)
    answer = run("nightly", plan, "--out", out, "--on-failure", command, "--json")
    assert answer.exit_code == 1
    assert len(json.loads(answer.stdout)["rows"]) == 2
    assert "2 sweeps, 1 failed" in heard.read_text()
    assert "$(x): no completed session has the tag 'nobody'" in heard.read_text()

    heard.unlink()
    plan.write_text("[[sweeps]]\n")
    assert "did you mean 'sweep'" in one_error(
        run("nightly", plan, "--out", out, "--on-failure", command)
    )
    assert heard.read_text().startswith("the night did not end: InvalidParameter: the plan has no")


def test_the_command_of_a_failure_stands_in_the_plan_too(tmp_path):
    plan, out = tmp_path / "nights.toml", tmp_path / "nights"
    (command, heard), other = on_failure(tmp_path), tmp_path / "other"
    other.mkdir()
    another, another_heard = on_failure(other)
    plan.write_text(f"[night]\non_failure = {json.dumps(command)}\n[[sweeps]]\n")
    assert "did you mean 'sweep'" in one_error(run("nightly", plan, "--out", out))
    assert heard.read_text().startswith("the night did not end: InvalidParameter: ")

    heard.unlink()
    for given in (another, ""):
        one_error(run("nightly", plan, "--out", out, "--on-failure", given))
    assert not heard.exists()
    assert another_heard.exists()
    plan.write_text("[night]\non_failur = 'x'\n")
    assert "did you mean 'on_failure'" in one_error(run("nightly", plan, "--out", out))
    plan.write_text("[night]\non_failure = 'no-such-program'\n")
    assert "there is no program 'no-such-program'" in one_error(run("nightly", plan, "--out", out))
    assert not out.exists()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["sys.exit('no mail today')"], "on_failure ended with code 1: no mail today"),
        (["import time", "time.sleep(600)"], "on_failure did not run to its end"),
    ],
)
def test_a_command_that_fails_is_named_and_changes_nothing(tmp_path, monkeypatch, lines, words):
    monkeypatch.setattr("fxlab.batcher.runner.HOOK_TIMEOUT", 5)
    command, _ = on_failure(tmp_path, *lines)
    answer = run("nightly", tmp_path / "no.toml", "--out", tmp_path, "--on-failure", command)
    assert answer.exit_code == 1
    assert words in answer.output
    assert "no.toml cannot be read" in answer.stderr


@pytest.mark.parametrize(
    ("command", "words"),
    [("echo 'half", "is no command"), ("no-such-program x", "there is no program")],
)
def test_a_command_that_cannot_run_is_refused_before_the_night(tmp_path, command, words):
    out = tmp_path / "out"
    told = one_error(run("nightly", "nights.toml", "--out", out, "--on-failure", command))
    assert words in told
    assert not out.exists()


def test_the_line_for_the_crontab_stands_in_the_help():
    shown = CliRunner().invoke(app, ["nightly", "--help"], env={"COLUMNS": "200"}).stdout
    assert "0 2 * * * cd /path/to/research && .venv/bin/fxlab nightly nights.toml" in shown


def read_as_cron(line):
    """Return what cron hands to the shell: an escaped % is one, a bare one ends the command."""
    *when, command = line.split(" ", 5)
    assert when == ["0", "2", "*", "*", "*"]
    made, escaped = "", False
    for letter in command:
        if escaped:
            made = made[:-1] + letter if letter == "%" else made + letter
            escaped = False
        elif letter == "%":
            break
        else:
            made += letter
            escaped = letter == "\\"
    return made


def read_as_systemd(text):
    """Return the sections of a unit: values by name, each as often as it is there."""
    sections = {}
    for line in filter(None, text.splitlines()):
        if line.startswith("["):
            own = sections.setdefault(line.strip("[]"), {})
        else:
            name, _, value = line.partition("=")
            assert "%" not in value.replace("%%", "")
            own.setdefault(name, []).append(value.replace("%%", "%"))
    return sections


HOSTILE = [
    "plain", "50%", "50% off", r"a\%b c", "it's", "$HOME", "`id`; $(id)", 'a "b" \\', "*", "",
    "naïve ☃", "%n %%", "-x=1", "#",
]  # fmt: skip


@pytest.mark.parametrize("reader", [read_as_cron, lambda line: line.split(" ", 5)[5]])
def test_a_crontab_hands_each_word_on(tmp_path, reader):
    """With a cron that takes the backslash away, and with one that leaves it."""
    folder = tmp_path / "100% 'my' $folder"
    folder.mkdir()
    script = folder / "show.py"
    script.write_text(
        "import json, os, sys\n"
        "print(json.dumps([os.getcwd(), *sys.argv[1:]]))\nprint(os.environ['FXLAB_HOME'])\n"
    )
    log = folder / "the log%.txt"
    words = [sys.executable, str(script), *HOSTILE]
    line = crontab_line(words, str(folder), str(log), {"FXLAB_HOME": "50% '$HOME'"})
    done = subprocess.run(["sh", "-c", reader(line)], check=True, capture_output=True)
    assert done.stdout == b""
    told, home = log.read_text().splitlines()
    assert json.loads(told) == [str(folder), *HOSTILE]
    assert home == "50% '$HOME'"


def test_a_service_hands_each_word_on():
    words = ["/opt/50% off/fxlab", *HOSTILE]
    service = read_as_systemd(
        systemd_service(
            words, "/data/50% off", {"FXLAB_HOME": "/a b/50%"}, NIGHTLY, ("Type=oneshot",)
        )
    )
    own = service["Service"]
    assert own["Type"] == ["oneshot"]
    assert own["WorkingDirectory"] == ["/data/50% off"]
    assert [shlex.split(each) for each in own["Environment"]] == [["FXLAB_HOME=/a b/50%"]]
    (command,) = own["ExecStart"]
    assert "$" not in command.replace("$$", "")
    assert [word.replace("$$", "$") for word in shlex.split(command)] == words
    timer = read_as_systemd(TIMER)
    assert timer["Timer"] == {"OnCalendar": ["*-*-* 02:00:00"], "Persistent": ["true"]}
    assert timer["Install"] == {"WantedBy": ["timers.target"]}


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """Stand beside a plan, where no night can be run and no server be reached."""

    def refused(*_args, **_options):
        raise AssertionError("nothing runs")

    for name in ("nightly", "connect"):
        monkeypatch.setattr(fxlab, name, refused, raising=False)
    folder = tmp_path / "50% off"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in [name for name in os.environ if name.startswith("FXLAB_")]:
        monkeypatch.delenv(name)
    plan = folder / "my nights.toml"
    plan.write_text('[[sweep]]\ntag = "x"\nstrategy = "sma_cross"\nparameters = { fast = 5 }\n')
    return folder


def schedule(*words):
    """Return the parts of a schedule, and the whole text of it."""
    whole = ("nightly", "my nights.toml", "--out", "nights", *words, "--print-schedule")
    text, as_json = run(*whole), run(*whole, "--json")
    assert (text.exit_code, as_json.exit_code) == (0, 0), text.output
    return json.loads(as_json.stdout), text.stdout


def test_the_schedule_is_this_command_with_whole_paths(planned, monkeypatch):
    monkeypatch.setenv("FXLAB_HOME", "/data/home")
    monkeypatch.setenv("FXLAB_QUESTDB_PASSWORD", "hush")
    options = ["--workers", "2", "--top", "3", "--keep", "30", "--timeout", "30m"]
    parts, text = schedule(*options, "--on-failure", "echo 'oh no'")
    assert not (planned / "nights").exists()
    assert "hush" not in text
    assert "# Left out, for it is secret: FXLAB_QUESTDB_PASSWORD" in text
    assert "systemctl --user enable --now fxlab-nightly.timer" in text
    assert all(part in text for part in parts.values())

    cd, folder, _, home, *command, _, log, _ = shlex.split(read_as_cron(parts["crontab"]))
    assert (cd, folder, log) == ("cd", str(planned), str(planned / "nights.log"))
    assert home == "FXLAB_HOME=/data/home"
    assert Path(command[0]).is_absolute()
    plan, out = str(planned / "my nights.toml"), str(planned / "nights")
    given = command[command.index("nightly") + 1 :]
    assert given[:-1] == [plan, "--out", out, *options, "--on-failure"]
    program, said = shlex.split(given[-1])
    assert Path(program).is_absolute()
    assert said == "oh no"
    service = read_as_systemd(parts["service"])["Service"]
    assert shlex.split(service["ExecStart"][0]) == command


def test_a_schedule_without_options_has_none(planned):
    parts, _ = schedule()
    command = shlex.split(read_as_systemd(parts["service"])["Service"]["ExecStart"][0])
    assert command[-2:] == ["--out", str(planned / "nights")]
    assert "FXLAB_" not in parts["crontab"]


def test_a_schedule_has_the_command_of_the_plan_with_its_whole_path(planned):
    plan = planned / "my nights.toml"
    plan.write_text("[night]\ntop = 3\non_failure = 'echo oh'\n" + plan.read_text())
    for words, said in (((), ["oh"]), (("--on-failure", ""), [])):
        parts, _ = schedule(*words)
        command = shlex.split(read_as_systemd(parts["service"])["Service"]["ExecStart"][0])
        assert "--top" not in command  # the plan's word, when the night comes
        assert command[-2] == "--on-failure"
        program = shlex.split(command[-1])
        assert program[1:] == said
        assert all(Path(word).is_absolute() for word in program[:1])
    plan.write_text("[night]\ntop = -1\n")
    whole = ("nightly", "my nights.toml", "--out", "n", "--on-failure", "", "--print-schedule")
    assert "--top -1 is not a number of points" in one_error(run(*whole))


def test_a_schedule_of_what_cannot_run_is_refused(planned):
    told = one_error(run("nightly", "none.toml", "--out", "nights", "--print-schedule"))
    assert "none.toml cannot be read" in told
    told = one_error(run("nightly", "my nights.toml", "--out", "a\nb", "--print-schedule"))
    assert "which no crontab can hold; rename it" in told


def test_a_recording_is_printed_as_a_service_that_goes_on(planned, monkeypatch):
    monkeypatch.setenv("FXLAB_HOME", "/data/home")
    words = ["collect", "binance", "*_USDT", "--session", "night", "--notes", "50% off"]
    done = run(*words, "--service")
    assert done.exit_code == 0, done.output
    plain = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    unit = read_as_systemd("\n".join(plain))
    own = unit["Service"]
    command = shlex.split(own["ExecStart"][0])
    assert Path(command[0]).is_absolute()
    assert command[command.index("collect") :] == [*words, "--auto-resume"]
    assert (own["Restart"], own["WorkingDirectory"]) == (["always"], [str(planned)])
    assert own["Environment"] == ["FXLAB_HOME=/data/home"]
    assert unit["Install"] == {"WantedBy": ["default.target"]}
    assert "systemctl --user enable --now fxlab-night" in done.stdout
    assert "Restart=on-failure" in run(*words, "--duration", "8h", "--service").stdout
    assert "needs --session NAME" in one_error(run("collect", "binance", "BTC", "--service"))
    told = one_error(run(*words, "--book-depth", "11", "--service"))
    assert "is not a number of levels" in told


def test_a_plan_that_is_not_there_is_one_sentence(tmp_path):
    for command in ("batch", "nightly"):
        told = one_error(run(command, tmp_path / "none.toml", "--out", tmp_path / "out"))
        assert "none.toml cannot be read" in told


def test_the_shipped_plans_are_possible():
    jobs = [BatchJob.of(job) for job in load_jobs(EXAMPLES / "jobs.toml", "job")]
    assert [job.strategy for job in jobs] == ["sma_cross", "mean_reversion", "mean_reversion"]
    assert [job.execution.fill for job in jobs] == ["next_trade", "next_trade", "book"]
    assert len(checked_sweeps(load_jobs(EXAMPLES / "nights.toml", "sweep"))) == 2
