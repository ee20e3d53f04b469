"""The text that stands for a strategy: it changes with whatever changes what the strategy does."""

from __future__ import annotations

import linecache
import sys
from types import ModuleType

import polars as pl

import fxlab
from fxlab.backtester.strategy.strategy import get, source_of

NOTEBOOK = """
SIZE = 0.5
HIDDEN = [1]

def helper(x):
    return deeper(x) * 2

def deeper(x):
    return x + SIZE

def unused(x):
    return x

def mine():
    return fxlab.Signals(target=pl.lit(helper(0.1)))

def recursive(x=0):
    return recursive(x - 1) if x else 0
"""


def notebook(monkeypatch, text=NOTEBOOK, name="a_notebook"):
    """Run a text as a module that has its source, as a notebook's cells have."""
    module = ModuleType(name)
    module.__dict__.update(fxlab=fxlab, pl=pl)
    path = f"<{name}>"
    lines = text.splitlines(keepends=True)
    monkeypatch.setitem(linecache.cache, path, (len(text), None, lines, path))
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile(text, path, "exec"), module.__dict__)  # noqa: S102 - our own text
    return module


def test_the_source_begins_with_the_function():
    text = source_of(get("sma_cross").function)
    assert text.startswith("@strategy\ndef sma_cross(")


def test_helpers_and_constants_of_the_module_are_in_it(monkeypatch):
    text = source_of(notebook(monkeypatch).mine)
    assert text.startswith("def mine()")
    for part in ("def helper(x)", "def deeper(x)", "SIZE = 0.5"):
        assert part in text
    for part in ("unused", "HIDDEN", "class Signals"):
        assert part not in text
    assert "_fade" in source_of(get("mean_reversion").function)


def test_a_changed_helper_or_constant_is_another_source(monkeypatch):
    texts = [
        source_of(notebook(monkeypatch, NOTEBOOK.replace(old, new), f"book_{i}").mine)
        for i, (old, new) in enumerate(
            [("", ""), ("x + SIZE", "x - SIZE"), ("SIZE = 0.5", "SIZE = 0.6"), ("[1]", "[2]")]
        )
    ]
    assert texts[0] == texts[3]
    assert len(set(texts)) == 3


def test_a_function_that_calls_itself_has_an_end(monkeypatch):
    text = source_of(notebook(monkeypatch).recursive)
    assert text.count("def recursive") == 1


def test_values_that_a_function_closes_over_are_in_it():
    def maker(size):
        def made() -> fxlab.Signals:
            return fxlab.Signals(target=pl.lit(size))

        return made

    assert source_of(maker(0.5)) == source_of(maker(0.5)) != source_of(maker(0.7))


def test_a_function_without_source_is_told_from_another_by_its_bytecode():
    scopes = [{"fxlab": fxlab, "pl": pl} for _ in range(3)]
    for scope, size in zip(scopes, ("0.5", "0.5", "0.7"), strict=True):
        text = f"def typed() -> fxlab.Signals:\n    return fxlab.Signals(target=pl.lit({size}))"
        exec(compile(text, "<prompt>", "exec"), scope)  # noqa: S102 - our own text
    first, same, other = (get(scope["typed"]).source for scope in scopes)
    assert first == same != other
