"""No value reaches SQL unchecked, and no other module writes SQL."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tick_files import HOSTILE_IDS, HOSTILE_SYMBOLS

from fxlab import errors, schema
from fxlab._questdb import sql
from fxlab._questdb.sql import Scope

PACKAGE = Path(__file__).parents[2] / "fxlab"
TAKING_ID = {
    "ticks": lambda value: sql.rows(Scope(schema.PRICES, value, "BTC"), ["price"]),
    "bins": lambda value: sql.bins(Scope(schema.PRICES, value, "BTC"), "1h"),
    "counts": lambda value: sql.count_by_symbol(Scope(schema.PRICES, value)),
    "trades": lambda value: sql.trade_statistics(Scope(schema.PRICES, value)),
    "books": lambda value: sql.book_statistics(Scope(schema.ORDERBOOK, value)),
    "intervals": lambda value: sql.intervals(Scope(schema.PRICES, value)),
    "skews": lambda value: sql.skews(Scope(schema.PRICES, value)),
    "minutes": lambda value: sql.minutes(Scope(schema.PRICES, value)),
    "outside": lambda value: sql.outside(Scope(schema.PRICES, value), 1.0, 2.0),
    "doubles": lambda value: sql.doubles(Scope(schema.PRICES, value)),
    "session": lambda value: sql.raw_rows(schema.SESSIONS, value),
    "run": lambda value: sql.runs(run_id=value),
    "fills": sql.fills,
}
TAKING_SYMBOL = {
    "ticks": lambda value: sql.rows(Scope(schema.PRICES, "s", value), ["price"]),
    "sessions": lambda value: sql.SessionFilter(symbol=value).where,
}


@pytest.mark.parametrize("build", TAKING_ID.values(), ids=TAKING_ID)
@pytest.mark.parametrize("hostile", HOSTILE_IDS, ids=range(len(HOSTILE_IDS)))
def test_a_hostile_id_never_becomes_sql(build, hostile):
    with pytest.raises(errors.InvalidIdentifier, match="is not a session id"):
        build(hostile)


@pytest.mark.parametrize("build", TAKING_SYMBOL.values(), ids=TAKING_SYMBOL)
@pytest.mark.parametrize("hostile", HOSTILE_SYMBOLS, ids=range(len(HOSTILE_SYMBOLS)))
def test_a_hostile_symbol_never_becomes_sql(build, hostile):
    with pytest.raises(errors.InvalidIdentifier, match="is not a symbol"):
        build(hostile)


def test_enough_hostile_ids_are_tried():
    assert len(set(HOSTILE_IDS)) >= 33


@pytest.mark.parametrize("value", [None, 7, b"x", ["x"]])
def test_an_id_that_is_no_text_is_refused(value):
    with pytest.raises(errors.InvalidIdentifier):
        sql.raw_rows(schema.SESSIONS, value)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_free_text_stays_inside_its_quotes(value):
    literal = sql.text(value)
    assert literal[0] == literal[-1] == "'"
    assert literal[1:-1].replace("''", "") == value.replace("'", "")
    assert literal[1:-1].replace("''", "'") == value


def test_free_text_is_found_by_the_server_as_it_is(db):
    for value in ("it's", "'; drop table tick_prices; --", "a''b", "%_\\", "\\'", "é😀", "\n"):
        assert db.execute(f"select {sql.text(value)}") == [[value]]


def test_a_nul_is_no_text():
    with pytest.raises(errors.InvalidInput, match="NUL"):
        sql.text("a\0b")


@pytest.mark.parametrize("column", ["nope", "price; drop", 'price"', "*", "count()", ""])
def test_a_column_must_be_of_the_table(column):
    with pytest.raises(errors.InvalidParameter, match="no column named"):
        sql.columns(schema.PRICES, ["price", column])


def test_a_column_nearly_right_is_suggested():
    with pytest.raises(errors.InvalidParameter, match="did you mean 'quote_volume'"):
        sql.columns(schema.PRICES, ["quote_volum"])


@pytest.mark.parametrize("bad", ['x"y', "x y", "x;", "", "1x", "é"])
def test_a_name_is_an_identifier(bad):
    with pytest.raises(errors.InvalidInput, match="not the name"):
        sql.name(bad)


@pytest.mark.parametrize("bad", [-1, 1.5, "5", True, None, 2**31])
def test_a_count_is_a_whole_number(bad):
    with pytest.raises(errors.InvalidParameter, match="limit="):
        sql.sessions(sql.SessionFilter(), ["notes"], limit=bad)
    with pytest.raises(errors.InvalidParameter, match="offset="):
        sql.sessions(sql.SessionFilter(), ["notes"], offset=bad)


def test_choices_come_from_their_list():
    with pytest.raises(errors.InvalidParameter, match="did you mean 'completed'"):
        assert sql.SessionFilter(status="complete").where
    with pytest.raises(errors.InvalidParameter, match="did you mean 'started'"):
        sql.sessions(sql.SessionFilter(), ["notes"], sort="start")
    with pytest.raises(errors.InvalidParameter, match="not a step"):
        sql.bins(Scope(schema.PRICES, "s"), "1h; drop table x")


def test_times_are_integers():
    where = Scope(schema.PRICES, "s", "BTC", 5, 9).where
    assert (
        where == "session_id = 's' and symbol = 'BTC' and \"timestamp\" >= 5 and \"timestamp\" < 9"
    )
    with pytest.raises(ValueError, match="invalid literal"):
        _ = Scope(schema.PRICES, "s", start="1 or 1=1").where


def test_sessions_being_deleted_are_left_out_unless_asked_for():
    assert "status not in ('deleting', 'deleted')" in sql.SessionFilter().where
    assert "status = 'deleted'" in sql.SessionFilter(status="deleted").where


SQL_STARTS = ("select ", "insert ", "create ", "alter ", "drop ", "truncate ", "update ", "delete ")


def _texts(tree: ast.AST):
    """Yield (line, text) of strings in a module, docstrings aside."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in docstrings:
            yield node.lineno, node.value


def test_no_other_module_writes_sql():
    for path in PACKAGE.rglob("*.py"):
        if path.name in (
            "sql.py",
            "sql_tables.py",
            "journal.py",
        ):  # the journal is SQLite
            continue
        for line, text in _texts(ast.parse(path.read_text(encoding="utf-8"))):
            assert not text.startswith(SQL_STARTS), f"{path.name}:{line} {text!r}"
