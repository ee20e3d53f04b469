"""The public names: sorted, all there, all documented, cheap to import."""

from __future__ import annotations

import inspect
from importlib import metadata

import pytest

import fxlab


def test_all_is_sorted_and_true():
    assert fxlab.__all__ == sorted(fxlab.__all__)
    assert set(fxlab.__all__) == set(fxlab._HOMES) | {"__version__"}
    assert dir(fxlab) == fxlab.__all__


@pytest.mark.parametrize("name", sorted(set(fxlab.__all__) - {"__version__", "indicators"}))
def test_public_names_are_documented_and_point_home(name):
    value = getattr(fxlab, name)
    assert len(inspect.getdoc(value) or "") > 20
    module, _, attribute = fxlab._HOMES[name].partition(":")
    assert value.__module__ == module
    assert value.__name__ == attribute


def test_version_is_the_installed_one():
    assert fxlab.__version__ == metadata.version("fxlab")


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'backtset'"):
        fxlab.backtset  # noqa: B018
