"""Tables of 80 columns: ids whole, numbers as in the notebook, lists that say what is cut."""

from __future__ import annotations

import polars as pl
import typer
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fxlab._cli import app, common, text_form

IDS = [f"exec_20240808_235413_{n:08x}_backtest" for n in range(3)]
WIDE = pl.DataFrame(
    {
        "run_id": IDS,
        "strategy": ["mean_reversion", "bracket_breakout", "sma_cross"],
        "notes": ["a long remark about what was tried in this run and why " * 3] * 3,
        "total_return": [-0.0127297, 0.5, None],
        "max_drawdown": [-0.25, -0.125, -0.0625],
        **{f"tags_of_{name}": ["night, long, euro"] * 3 for name in ("one", "two", "three")},
    }
)


def drawn(frame: pl.DataFrame, width: int = 80) -> tuple[str, list[str]]:
    table, _, missing = text_form.lay_out(text_form.columns_of_frame(frame), width)
    console = Console(width=width, no_color=True)
    with console.capture() as seen:
        console.print(table)
    return seen.get(), missing


def test_ids_are_never_cut_and_what_is_left_out_is_named():
    text, missing = drawn(WIDE)
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines())
    assert "…" not in text
    for each in IDS:
        assert each in text
    (line,) = missing
    names, _, where = line.removeprefix("too narrow for: ").partition("; ")
    assert where == "--json and --csv have every column"
    assert set(names.split(", ")) < set(WIDE.columns) - {"run_id"}
    kept = [name for name in WIDE.columns if name not in names.split(", ")]
    heads = text.split("───")[0].replace("\n", "").replace(" ", "")
    assert all(part in heads for name in kept for part in name.split("_"))


def test_numbers_are_in_their_units():
    text, missing = drawn(WIDE.select("strategy", "total_return", "max_drawdown"))
    assert not missing
    assert "-1.27%" in text.replace(" %", "%")
    assert "-0.0127" not in text
    assert "50.00%" in text.replace(" %", "%")


CELLS = st.sampled_from(
    [None, "", " ", "/srv/ticks/2026/BTC_USDT.csv.gz", "x" * 90, "refused", IDS[0]]
)


@given(st.integers(1, 7), st.integers(0, 3), st.integers(20, 120), st.data())
def test_whatever_stands_in_a_table_is_drawn_in_any_width(columns, rows, width, data):
    """A column may be empty, of paths alone, or of words that are longer than the terminal."""
    names = ["session_id", "path", "state", "reason", "rows_good", "sha256", "updated_at"][:columns]
    cells = [data.draw(st.lists(CELLS, min_size=rows, max_size=rows)) for _ in names]
    text, _ = drawn(
        pl.DataFrame(dict(zip(names, cells, strict=True)), dict.fromkeys(names, str)), width
    )
    assert text.strip()


def test_a_list_that_is_cut_says_of_how_many(capsys):
    frame = pl.DataFrame({"session_id": [f"night_{n}" for n in range(50)]})
    common.show_frame(frame, total=1_475)
    shown = capsys.readouterr().out
    assert "50 of 1,475" in shown
    assert all(name in shown for name in frame["session_id"])
    common.show_frame(frame, most=3)
    shown = capsys.readouterr().out
    assert "3 of 50" in shown
    assert "night_3" not in shown


def listings(command, words=()):
    """Yield the words and options of each command that lists."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from listings(inner, (*words, name))
    if words and words[-1] in {"list", "strategies", "deleted", "contents"}:
        yield words, {option for one in command.params for option in one.opts}


def test_each_listing_has_json_and_csv():
    found = dict(listings(typer.main.get_command(app)))
    assert {("sessions", "list"), ("runs", "list"), ("sweeps", "list")} <= set(found)
    for words, options in found.items():
        assert {"--json", "--csv"} <= options, words
