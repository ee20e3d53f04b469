"""A strategy's signature is its form: parameters, checks, registry."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Annotated

import polars as pl
import pytest
from markets import SMALL, random_walk

import fxlab
from fxlab import errors
from fxlab.backtester.strategy import strategy as registry
from fxlab.backtester.strategy.strategy import Bounds, get


def example(
    *,
    window: Annotated[int, Bounds(1, 9)] = 5,
    bps: float = 1.5,
    flip: bool = False,
    side: str = "both",
) -> fxlab.Signals:
    """Do an example.

    Parameters
    ----------
    window
        ticks to look at
    bps
        a margin.
    flip
        the other way round
    """
    return fxlab.Signals(target=pl.lit(float(window) / 10))


def test_parameters_come_from_the_signature():
    found = get(example).parameters
    assert list(found) == ["window", "bps", "flip", "side"]
    assert [p.kind for p in found.values()] == [int, float, bool, str]
    assert [p.default for p in found.values()] == [5, 1.5, False, "both"]
    assert found["window"].bounds == Bounds(1, 9)
    assert [p.doc for p in found.values()] == [
        "ticks to look at",
        "a margin",
        "the other way round",
        "side",
    ]
    assert get(example).title == "Do an example."


def test_check_fills_in_defaults_and_types():
    assert get(example).check({"bps": 2}) == {
        "window": 5,
        "bps": 2.0,
        "flip": False,
        "side": "both",
    }
    assert type(get(example).check({"bps": 2})["bps"]) is float


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"windw": 3}, "did you mean 'window'"),
        ({"window": "3"}, "is not an int; window takes an int from 1 to 9"),
        ({"window": 10}, "out of range"),
        ({"window": True}, "is not an int"),
        ({"bps": float("nan"), "window": 3.0}, "is not an int"),
        ({"flip": 1}, "is not a bool"),
        ({"side": 3}, "is not a str"),
        ({"side": "x" * 201}, "longer than 200"),
        ({"x" * 10_000: 3}, "has no parameter"),
    ],
)
def test_bad_parameters_say_what_is_taken(given, words):
    with pytest.raises(errors.InvalidParameter, match=words) as raised:
        get(example).check(given)
    assert len(str(raised.value)) < 400


def test_texts_are_typed_by_the_signature():
    texts = {"window": "7", "bps": "0.5", "flip": "yes", "side": "long"}
    assert get(example).parse(texts) == {"window": 7, "bps": 0.5, "flip": True, "side": "long"}
    for text in ({"window": "7.5"}, {"flip": "maybe"}, {"bps": "much"}, {"nope": "1"}):
        with pytest.raises(errors.InvalidParameter):
            get(example).parse(text)


@pytest.mark.parametrize("word", ["nan", "inf", "-inf", "1e999"])
def test_a_number_that_is_not_finite_is_refused_by_name(word):
    with pytest.raises(errors.InvalidParameter, match=r"^bps=-?(nan|inf) is not a finite number;"):
        get(example).parse({"bps": word})
    with pytest.raises(errors.InvalidParameter, match="for no limit give a large one"):
        get(example).check({"bps": float(word)})


def test_names_are_found_or_near_ones_named():
    assert get("sma_cross").name == "sma_cross"
    with pytest.raises(errors.StrategyNotFound, match="did you mean 'sma_cross'"):
        get("sma_cros")
    with pytest.raises(errors.StrategyNotFound):
        get("x' OR '1'='1")


TICKS = random_walk(50)
CALLS = {
    "backtest": lambda odd: fxlab.backtest(TICKS, odd),
    "sweep": lambda odd: fxlab.sweep(TICKS, odd, {"fast": [2]}),
    "walk_forward": lambda odd: fxlab.walk_forward(
        TICKS, odd, {"fast": [2]}, train="1s", test="1s"
    ),
    "replay": lambda odd: fxlab.replay(TICKS, strategy=odd),
    "check_lookahead": lambda odd: fxlab.check_lookahead(TICKS, odd),
    "cost_ladder": lambda odd: fxlab.cost_ladder(TICKS, odd),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("odd", [pl.DataFrame({"price": [1.0]}), pl.Series([1]), 5, ["sma_cross"]])
def test_what_is_no_strategy_is_refused_with_the_right_call(call, odd):
    with pytest.raises(errors.StrategyNotFound, match=r'fxlab\.backtest\(session, "sma_cross"\)'):
        CALLS[call](odd)


def test_a_notebook_cell_can_be_run_twice(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    for value in (0.5, 0.25):

        @fxlab.strategy(name="mine")
        def mine(*, size: float = value) -> fxlab.Signals:
            return fxlab.Signals(target=pl.lit(size))

    assert get("mine").check() == {"size": 0.25}
    assert "mine" in registry.names()


def test_a_function_of_a_module_is_found_by_its_path(monkeypatch):
    module = ModuleType("my_strategies")
    module.example = example
    monkeypatch.setitem(sys.modules, "my_strategies", module)
    assert get("my_strategies:example").check()["window"] == 5
    for path in ("my_strategies:nope", "no_such_module:example", ":", "a:b:c"):
        with pytest.raises(errors.StrategyNotFound, match="module:function"):
            get(path)


def test_signatures_that_make_no_form_are_refused():
    def positional(fast: int = 1) -> fxlab.Signals: ...
    def no_default(*, fast: int) -> fxlab.Signals: ...
    def untyped(*, fast=1) -> fxlab.Signals: ...
    def exotic(*, fast: bytes = b"") -> fxlab.Signals: ...

    def unnamed(frame: pl.DataFrame) -> pl.DataFrame: ...

    for function in (positional, no_default, unnamed):
        with pytest.raises(errors.InvalidParameter, match="keyword-only with a default"):
            get(function)
    for function in (untyped, exotic):
        with pytest.raises(errors.InvalidParameter, match="annotated as int"):
            get(function)


def test_a_function_that_returns_no_signals_is_refused():
    def wrong() -> fxlab.Signals:
        return pl.lit(1.0)

    with pytest.raises(errors.InvalidParameter, match=r"returns fxlab\.Signals"):
        get(wrong).signals()


def test_listing_shows_every_shipped_strategy():
    listing = fxlab.strategies()
    assert set(SMALL) <= set(listing["strategy"])
    assert listing["summary"].str.ends_with(".").all()


def test_shipped_strategies_document_every_parameter():
    for name in SMALL:
        strategy = get(name)
        assert all(p.doc != p.name for p in strategy.parameters.values()), name
        assert strategy.source.lstrip().startswith("@strategy")


def test_a_frame_strategy_has_a_form_without_its_frame():
    def on_frames(ticks: pl.DataFrame, *, window: Annotated[int, Bounds(1, 9)] = 5) -> pl.DataFrame:
        return ticks.select(target=pl.lit(window / 10))

    found = get(on_frames)
    assert list(found.parameters) == ["window"]
    signals = found.signals({"window": 7})
    assert signals.roots is None
    assert signals.frame(pl.DataFrame({"price": [1.0]}))["target"].to_list() == [0.7]
    with pytest.raises(errors.InvalidParameter, match="out of range"):
        found.signals({"window": 10})


def test_signals_know_whose_they_are():
    assert get(example).signals({"window": 3}).owner == (
        "strategy 'example' (window=3, bps=1.5, flip=False, side='both')"
    )
    assert get("buy_and_hold").signals().owner == "strategy 'buy_and_hold' (exposure=1.0)"


def test_what_a_strategy_refuses_itself_keeps_its_words():
    with pytest.raises(errors.InvalidParameter, match="fast=9 must be below slow=3"):
        get("sma_cross").signals({"fast": 9, "slow": 3})
