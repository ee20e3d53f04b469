"""Pages of batches and nights: what comes from outside is text on them, whatever it looks like."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from markets import random_walk

import fxlab
from fxlab import _html
from fxlab.batcher._jobs import SCHEMA
from fxlab.batcher.batch import SHOWN, render_batch
from fxlab.batcher.nightly import render_all, render_night

HOSTILE = "</script></style><script>alert('1')</script>\"'"
TEMPLATES = Path(_html.__file__).with_name("templates")


def scripts(page):
    """Return the script elements of a page by their first words."""
    return [one[:40] for one in re.findall(r"<script.*?</script>", page, re.DOTALL)]


def batch_row(**other):
    texts = dict.fromkeys(
        ("job", "state", "session", "run_id", "error", "notebook", "report", "terms"), HOSTILE
    )
    figures = dict.fromkeys(SHOWN, 1.0)
    return {**texts, "from_before": True, "sparkline": "", "seconds": 2.0, **figures, **other}


def night_row(**other):
    texts = dict.fromkeys(("sweep", "state", "strategy", "parameters", "error"), HOSTILE)
    whole = {**dict.fromkeys(SCHEMA), **texts, "sessions": [HOSTILE], "seconds": 2.0}
    return whole | {"metric": "total_return"} | other


def test_a_batch_shows_hostile_texts_as_they_are():
    page = render_batch([batch_row()], HOSTILE)
    assert scripts(page) == []
    # Words, seven in the row (two of them are links), three in what went wrong.
    assert page.count("&lt;script&gt;") == 11
    assert "</style>" in page.split("</head>")[0]
    assert page.count("</style>") == 1
    assert page.count('href="') == 3


def test_a_job_that_waits_has_dashes():
    row = batch_row(run_id=None, error=None, notebook=None, report=None, seconds=None)
    page = render_batch([row], "words")
    cells = re.findall(r"<td[^>]*>(.*?)</td>", page)
    assert (cells[1], cells[3], cells[-1]) == (_html.NOTHING,) * 3
    assert "What went wrong" not in page


def test_a_night_shows_hostile_texts_as_they_are():
    @fxlab.strategy
    def hostile(*, word: str = HOSTILE) -> fxlab.Signals:
        """Hold."""
        return fxlab.Signals(target=pl.lit(1.0), lookback=0)

    ticks = random_walk(500, symbol=HOSTILE)
    found = fxlab.sweep(ticks, hostile, {"word": [HOSTILE, "b"]})
    page = render_night(date(2026, 1, 1), [night_row()], {HOSTILE: found})
    first, *others = scripts(page)
    assert "plotly.js v" in first
    assert all(one.startswith("<script>Plotly.newPlot(") for one in others)
    assert page.count("</script>") == 1 + len(others)
    assert page.count("&lt;script&gt;") >= 7


def test_all_nights_show_hostile_folders_as_they_are(tmp_path):
    folder = tmp_path / "<script>alert(1)<"
    folder.mkdir()
    (folder / "index.html").touch()
    assert scripts(render_all(tmp_path)) == []


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.j2")), ids=lambda path: path.name)
def test_templates_trust_scripts_and_pictures_of_our_own_only(path):
    trusted = re.findall(r"([\w.]+)\|safe", path.read_text(encoding="utf-8"))
    assert set(trusted) <= {"source", "row.sparkline"}
