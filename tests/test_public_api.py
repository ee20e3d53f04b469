"""The public names: sorted, all there, all documented, cheap to import."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from importlib import metadata
from pathlib import Path

import pytest

import fxlab

PACKAGE = Path(fxlab.__file__).parent
WORD = re.compile(r"\w+")
DOORS = {"__aiter__", "__anext__", "__call__", "__enter__", "__getitem__", "__iter__", "__next__"}


def test_all_is_sorted_and_true():
    assert fxlab.__all__ == sorted(fxlab.__all__)
    assert set(fxlab.__all__) == set(fxlab._HOMES) | {"__version__"}
    assert dir(fxlab) == fxlab.__all__


@pytest.mark.parametrize("name", sorted(set(fxlab.__all__) - {"__version__", "indicators"}))
def test_public_names_are_documented_and_point_home(name):
    value = getattr(fxlab, name)
    assert len(inspect.getdoc(value) or "") > 20
    assert value.__module__ == fxlab._HOMES[name]
    assert value.__name__ == name


def test_version_is_the_installed_one():
    assert fxlab.__version__ == metadata.version("fxlab")


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'backtset'"):
        fxlab.backtset  # noqa: B018


INNER = {
    "CachedColumns", "Chunk", "Clock", "Job", "KernelState", "Market", "Message", "Plan",
    "Point", "QuestDB", "Run", "RunQuery", "RunStore", "Scope", "SessionAddress", "SessionQuery",
    "Space", "SweepStudy", "TickSource", "TrialResult",
}  # fmt: skip
"""Of attributes and constructors that are no user's; `Message` is a union of public classes,
`SessionQuery` and `RunQuery` are what `Lab.sessions` and `Lab.runs` take."""


def classes_of_ours():
    """Return the names of the package's classes, without the errors: they are fxlab.errors'."""
    paths = (path for path in PACKAGE.rglob("*.py") if path.name != "errors.py")
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in paths)
    return {node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}


OURS = classes_of_ours()


def functions_of(value):
    """Yield the functions that a user calls of a public name, and its properties."""
    if not inspect.isclass(value):
        yield value
        return
    for name, part in inspect.getmembers_static(value):
        found = getattr(part, "fget", None) or getattr(part, "__func__", part)
        found = getattr(found, "func", found)
        ours = str(getattr(found, "__module__", "")).startswith("fxlab")
        if ours and inspect.isfunction(found) and (name[0] != "_" or name in DOORS):
            yield found


def annotations_of(value):
    """Yield the annotations of a public name as text, aliases such as Message taken apart."""
    for function in functions_of(value):
        signature = inspect.signature(function)
        found = [one.annotation for one in signature.parameters.values()]
        for text in map(str, (*found, signature.return_annotation)):
            yield text
            for word in re.findall(r"\w+", text):
                yield str(function.__globals__.get(word, ""))
    if dataclasses.is_dataclass(value) or (isinstance(value, type) and issubclass(value, tuple)):
        told = inspect.getdoc(value)
        for name, text in inspect.get_annotations(value).items():
            if re.search(rf"\b{name}\b", told):
                yield str(text)


@pytest.mark.parametrize("name", sorted(set(fxlab.__all__) - {"__version__", "indicators"}))
def test_what_a_public_call_takes_and_returns_is_public(name):
    words = {word for text in annotations_of(getattr(fxlab, name)) for word in WORD.findall(text)}
    ours = {word for word in words & OURS if word[0] != "_"}
    assert ours - INNER <= set(fxlab.__all__)


def test_the_walk_sees_what_it_has_to():
    seen = {
        name: {w for text in annotations_of(getattr(fxlab, name)) for w in WORD.findall(text)}
        for name in ("replay", "Feed", "Lab", "Replay", "Collector", "Sweep")
    }
    assert {"Replay", "TimeSource", "Strategy"} <= seen["replay"]
    assert {"BookDelta", "Gap", "Instrument", "Subscription", "Trade"} <= seen["Feed"]
    assert {"ImportReport", "Receipt", "Reproduction", "SavedRun", "Session"} <= seen["Lab"]
    assert "ReplayBatch" in seen["Replay"]
    assert {"CollectorStatus", "Listener"} <= seen["Collector"]
    assert {"SweepOverfitting", "WalkForward"} <= seen["Sweep"]
