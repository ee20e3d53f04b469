"""The log says what happens, to whoever asks for it, and never a secret."""

from __future__ import annotations

import io
import logging
import subprocess
import sys

import pytest
from markets import recorded_walk

import fxlab
from fxlab import errors


@pytest.fixture
def shown():
    """Return the log as `enable_logging` writes it, and leave none behind."""
    logger = logging.getLogger("fxlab")
    before = logger.handlers[:], logger.level
    yield io.StringIO()
    logger.handlers[:], level = before
    logger.setLevel(level)


def imported(lab, name):
    frame = recorded_walk(50, symbol="LOG").rename({"seq": "trade_id", "volume": "qty"})
    lab.import_frames({"prices": frame}, session_id=name)
    return name


def test_nothing_is_shown_unasked():
    code = "import logging, fxlab; logging.getLogger('fxlab.x').error('said'); fxlab.connect"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


def test_begins_and_ends_are_told(lab, unique, shown):
    fxlab.enable_logging(stream=shown)
    name = imported(lab, unique("log"))
    lines = shown.getvalue().splitlines()
    assert [line.partition(": ")[2] for line in lines] == [
        f"import of {name} begins: 50 rows",
        f"import of {name} is completed",
    ]
    assert all(" INFO fxlab." in line for line in lines)


def test_queries_are_told_at_debug_and_no_secret_ever(lab, db, unique, shown):
    fxlab.enable_logging("DEBUG", shown)
    imported(lab, unique("log"))
    db.check_login()
    lab.sessions()
    text = shown.getvalue()
    assert text.count("GET /exec: ") > 2
    assert text.count("PostgreSQL: ") > 0
    assert "tick_prices: 50 of 50 rows stored" in text
    for secret in (db.endpoint.password, db.endpoint.pg_password):
        assert len(secret) > 8
        assert secret not in text


def test_a_second_call_changes_the_level_and_tells_nothing_twice(lab, unique, shown):
    fxlab.enable_logging("DEBUG", io.StringIO())
    fxlab.enable_logging("INFO", shown)
    imported(lab, unique("log"))
    assert len(shown.getvalue().splitlines()) == 2
    fxlab.enable_logging("WARNING", shown)
    imported(lab, unique("log"))
    assert len(shown.getvalue().splitlines()) == 2


def test_an_unknown_level_is_refused():
    with pytest.raises(errors.InvalidParameter, match="level='LOUD' must be one of: DEBUG"):
        fxlab.enable_logging("LOUD")
