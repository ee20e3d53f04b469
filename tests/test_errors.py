"""One tree, drawn in its own docstring; messages with a next step."""

from __future__ import annotations

import inspect
import re

import pytest

from fxlab import errors

ALL = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, errors.FxlabError)
]


@pytest.mark.parametrize("error", ALL)
def test_every_error_is_in_the_tree_and_documented(error):
    assert error.__name__ in errors.__doc__
    assert inspect.getdoc(error)


def test_the_tree_draws_no_error_that_is_not_there():
    drawn = re.findall(r"─ (\w+)", errors.__doc__)
    assert set(drawn) <= {error.__name__ for error in ALL}
    assert len(drawn) == len(ALL) - 1  # all but the root


def test_kinds_can_be_caught_as_python_knows_them():
    assert issubclass(errors.SessionNotFound, LookupError)
    assert issubclass(errors.InvalidParameter, ValueError)


def test_not_found_names_near_ones_and_the_next_step():
    error = errors.SessionNotFound.named("exec_2024", ["exec_2025", "other"])
    assert str(error) == (
        "no session named 'exec_2024'; did you mean 'exec_2025'?; "
        "list them with lab.sessions() or: fxlab sessions list"
    )


def test_a_long_name_is_cut():
    assert len(str(errors.SymbolNotFound.named("x" * 10_000, ["BTC"]))) < 300


def test_every_error_cuts_a_value_that_nobody_would_read():
    for error in (errors.InvalidInput, errors.SymbolNotFound):
        assert len(str(error(f"name={'x' * 10_000!r} is not a name; give a shorter one"))) < 400
    path = "/" + "x" * 350
    assert str(errors.ImportRefused(f"{path} is not there")) == f"{path} is not there"


def test_no_server_says_what_to_run():
    error = errors.QuestDBUnavailable.at("127.0.0.1", 9000, "refused")
    assert str(error).startswith("QuestDB is required but could not be reached at 127.0.0.1:9000")
    assert str(error).endswith("run: fxlab up (in Python: fxlab.up())")
