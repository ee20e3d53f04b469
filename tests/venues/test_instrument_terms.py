"""What listings say of sizes, fees and expiry, in all the forms that venues write it."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import polars as pl
import pytest

from fxlab import errors
from fxlab._ticks import instrument_terms, instruments_frame, listed_instruments
from fxlab.collect.venues import _kraken, _mexc


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"tick_size": "0.01000000"}, {"tick_size": 0.01}),
        ({"lot_size": 0.1, "contract": Decimal("0.001")}, {"lot_size": 0.0001}),
        ({"min_qty": "3", "contract": 0.1}, {"min_qty": 0.3}),
        ({"taker_bps": 0.0006, "fee_bps": 10_000}, {"taker_bps": 6.0}),
        ({"maker_bps": "-0.01", "fee_bps": 100}, {"maker_bps": -1.0}),
        ({"maker_bps": 0}, {"maker_bps": 0.0}),
        ({"settle": None, "expiry": None, "fee_tiers": []}, {}),
        ({"expiry": 7, "kind": "future"}, {"expiry": 7, "kind": "future"}),
        ({"expiry": "7", "kind": 7, "base": "B", "fee_tiers": "x"}, {"base": "B"}),
    ],
)
def test_numbers_and_texts_become_plain_numbers(said, kept):
    assert instrument_terms(**said) == kept


@pytest.mark.parametrize("odd", [None, "", "0", 0, -1, "x", "nan", "1e-30", True, [], "inf", 1e19])
def test_what_is_no_size_is_left_out(odd):
    assert instrument_terms(tick_size=odd, lot_size="2") == {"lot_size": 2.0}


def test_an_unknown_word_is_refused():
    with pytest.raises(errors.InvalidParameter, match="did you mean 'lot_size'"):
        instrument_terms(lotsize=1)


def test_the_frame_has_a_row_for_each_symbol_and_times_are_times():
    terms = {
        "C": {},
        "B": {"expiry": 1_000_000, "fee_tiers": [[0.0, 4.0, 1.0]]},
        "A": {"lot_size": 1.0},
    }
    frame = instruments_frame(terms)
    assert frame["symbol"].to_list() == ["A", "B"]
    assert frame["expiry"].to_list() == [None, datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)]
    assert frame["fee_tiers"].to_list() == [None, [[0.0, 4.0, 1.0]]]
    assert instruments_frame({}).schema == frame.schema


def test_a_frame_of_instruments_is_kept_as_listings_are():
    terms = {"B": {"expiry": 1_000_000, "fee_tiers": [[0.0, 4.0, 1.0]]}, "A": {"lot_size": 1.0}}
    assert listed_instruments(instruments_frame(terms)) == terms
    assert listed_instruments(pl.DataFrame({"symbol": ["A"], "lot_size": [1]})) == {"A": terms["A"]}


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (None, "instruments=None is no frame of instruments"),
        (pl.DataFrame({"lot_size": [1.0]}), "session.instruments"),
        (pl.DataFrame({"symbol": ["A", "A"]}), "'A' twice"),
        (pl.DataFrame({"symbol": ["A"], "lot": [1.0]}), "no 'lot'.*did you mean 'lot_size'"),
        (pl.DataFrame({"symbol": ["A"], "lot_size": [0.0]}), "lot_size=0.0 of A is none"),
        (pl.DataFrame({"symbol": ["A"], "taker_bps": [2e3]}), "taker_bps=2000.0 of A is none"),
        (pl.DataFrame({"symbol": ["A"], "expiry": ["2026"]}), "expiry='2026' of A is none"),
        (pl.DataFrame({"symbol": ["a b"]}), "is not a symbol"),
    ],
    ids=str,
)
def test_a_frame_that_is_none_of_instruments_is_refused(frame, words):
    with pytest.raises(errors.InvalidInput, match=words):
        listed_instruments(frame)


CONTRACT = {
    "symbol": "BTC_USD", "baseCoin": "BTC", "quoteCoin": "USD", "settleCoin": "BTC",
    "contractSize": 100, "priceScale": 1, "state": 0, "priceUnit": 0.5, "volUnit": 1, "minVol": 2,
    "takerFeeRate": 0.0006, "makerFeeRate": 0,
}  # fmt: skip


def test_the_lot_of_an_inverse_contract_is_no_step_of_base_units():
    terms = _mexc._instrument(CONTRACT).terms
    assert terms == {
        "kind": "perpetual", "base": "BTC", "quote": "USD", "settle": "BTC",
        "contract_size": 100.0, "tick_size": 0.5, "taker_bps": 6.0, "maker_bps": 0.0,
    }  # fmt: skip
    linear = _mexc._instrument(CONTRACT | {"settleCoin": "USD", "contractSize": 0.001}).terms
    assert (linear["lot_size"], linear["min_qty"]) == (0.001, 0.002)


PAIR = {"wsname": "XBT/USD", "pair_decimals": 1, "lot_decimals": 8}


def test_odd_fees_of_a_pair_cost_only_the_fees():
    for fees in (7, [[0]], [["a", "b"]], [[0, None]], None):
        assert "taker_bps" not in _kraken._instrument("XXBTZUSD", PAIR | {"fees": fees}).terms
    taker = _kraken._instrument("XXBTZUSD", PAIR | {"fees": [[0, 0.4], [10, "0.35"]]}).terms
    assert taker["taker_bps"] == 40.0
    assert not {"maker_bps", "fee_tiers"} & taker.keys()
