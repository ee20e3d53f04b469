"""A receipt is whole, or it names what is not: against a database that somebody changed."""

from __future__ import annotations

import pytest
from scripted_feed import NOON, PATIENCE, SYMBOL, Scripted, trade, trades

from fxlab import errors
from fxlab._questdb.ingest import LineEncoder, LinePost
from fxlab.collect.feed import BookDelta, BookSnapshot
from fxlab.demo import generate
from fxlab.schema import ORDERBOOK, PRICES

BOOK = BookSnapshot(SYMBOL, 10, [(99.0, 1.0), (98.0, 2.0)], [(101.0, 3.0)], NOON, NOON + 7)
CHANGE = BookDelta(SYMBOL, 11, 12, [(99.0, 0.0)], [], NOON + 9, NOON + 12)


@pytest.fixture
def record(lab, unique):
    """Return a function that records messages and returns the session's id."""

    def run(*messages, **options):
        feed = Scripted(messages, after=None, **options)
        collector = lab.collect(feed, SYMBOL, session_id=unique("live"), settle=0)
        return collector.wait(PATIENCE).id

    return run


@pytest.fixture
def put(db):
    """Return a function that stores a row behind everybody's back."""
    encoder, post = LineEncoder(), LinePost(db.endpoint)

    def store(session_id, table, **values):
        row = {"session_id": session_id, "symbol": SYMBOL, "origin": "live"} | values
        post.send([encoder.encode(table, [row])])
        db.wait_visible(table)

    yield store
    post.close()


def columns(one):
    """Return a trade as its row."""
    return {
        "side": one.side,
        "seq": one.id,
        "trade_id": str(one.id),
        "price": one.price,
        "volume": one.volume,
        "quote_volume": one.price * one.volume,
        "received_at": one.received,
        "timestamp": one.time,
    }


def test_a_recording_is_whole_and_shows_its_sums(lab, record):
    history = trades(3, origin="backfill")
    receipt = lab.verify(record(*trades(1, 2, 4, 4), BOOK, CHANGE, history=history))
    assert receipt.whole
    assert receipt.problems == ()
    lines = {(line["data_type"], line["origin"]): line for line in receipt.lines.to_dicts()}
    assert {key: line["rows"] for key, line in lines.items()} == {
        ("prices", "live"): 3, ("prices", "backfill"): 1, ("orderbook", "live"): 2,
    }  # fmt: skip
    for line in lines.values():
        assert line["whole"]
        assert line["rows"] == line["rows_found"]
        assert line["checksum"] == line["checksum_found"]
        assert len(line["checksum"]) == 16
    (ids,) = receipt.ids.to_dicts()
    assert ids == {
        "symbol": SYMBOL, "ids_seen": 4, "ids_found": 4, "ids_missing": 0, "doubles": 1,
        "gaps": 1, "gaps_filled": 1,
    }  # fmt: skip
    assert "6 rows recorded, 6 found, 0 trades known to be missing: whole" in str(receipt)
    page = receipt._repr_html_()
    assert "whole" in page
    assert "trade ids" in page


def test_the_id_may_have_its_old_beginning(lab, record):
    assert lab.verify("session_" + record(*trades(1))).whole


def test_progress_is_told_up_to_the_end_and_may_stop_it(lab, record):
    name = record(*trades(1, 2), BOOK)
    heard = []
    lab.verify(name, progress=lambda share, _: heard.append(share))
    assert heard == sorted(heard)
    assert heard[-1] == pytest.approx(1.0)

    def stop(share, text):
        raise errors.Cancelled("enough")

    with pytest.raises(errors.Cancelled, match="enough"):
        lab.verify(name, progress=stop)


def test_a_row_more_is_named(lab, record, put):
    name = record(*trades(1, 2), BOOK)
    put(name, PRICES, **columns(trade(3)))
    receipt = lab.verify(name)
    assert not receipt.whole
    assert receipt.problems == (
        f"prices of {SYMBOL} (live): 2 rows were recorded and 3 are there",
        f"{SYMBOL}: 2 trade ids were seen and 3 are there",
    )
    whole = {line["data_type"]: line["whole"] for line in receipt.lines.to_dicts()}
    assert whole == {"prices": False, "orderbook": True}


def test_rows_of_an_origin_that_was_not_recorded_are_named(lab, record, put):
    name = record(*trades(1, 2))
    put(name, PRICES, **columns(trade(2)) | {"seq": 9, "origin": "csv"})
    assert f"prices of {SYMBOL} (csv): 0 rows were recorded and 1 are there" in (
        lab.verify(name).problems
    )


@pytest.mark.parametrize(
    "change",
    [
        {"price": 100.250000001},
        {"volume": 0.25},
        {"side": "sell"},
        {"side": None},
        {"received_at": NOON + 41},
    ],
    ids=repr,
)
def test_a_changed_trade_is_named(lab, record, put, change):
    """The same identity with another value replaces the row: the count does not tell."""
    name = record(*trades(1, 2))
    put(name, PRICES, **columns(trade(1)) | change)
    receipt = lab.verify(name)
    assert receipt.problems == (
        f"prices of {SYMBOL} (live): the rows are not those that were recorded",
    )
    assert receipt.lines["rows_found"].to_list() == [2]


def test_the_same_row_again_changes_nothing(lab, record, put):
    name = record(*trades(1, 2))
    put(name, PRICES, **columns(trade(1)))
    assert lab.verify(name).whole


def test_a_changed_book_is_named(lab, record, put):
    name = record(*trades(1), BOOK)
    put(
        name,
        ORDERBOOK,
        seq=10,
        is_snapshot=True,
        bid_price_1=99.0,
        bid_qty_1=1.5,
        received_at=NOON + 7,
        timestamp=NOON,
    )
    assert lab.verify(name).problems == (
        f"orderbook of {SYMBOL} (live): the rows are not those that were recorded",
    )


def test_an_import_has_no_receipt_and_says_so(lab, unique):
    name = unique("made")
    ticks, _ = generate(seconds=5)
    lab.import_frame(ticks, "prices", session_id=name)
    with pytest.raises(errors.InvalidParameter, match="was imported and has no receipt"):
        lab.verify(name)


def test_one_that_runs_has_none_yet(lab, unique):
    feed = Scripted(trades(1))
    with lab.collect(feed, SYMBOL, session_id=unique("live")) as collector:
        with pytest.raises(errors.InvalidParameter, match="is still being recorded"):
            lab.verify(collector.session_id)
        feed.all_said()


def test_no_session_at_all(lab, unique):
    with pytest.raises(errors.SessionNotFound):
        lab.verify(unique("nowhere"))
