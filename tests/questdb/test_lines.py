"""Rows as bytes: encoded once, cut anywhere, sent twice, stored once."""

from __future__ import annotations

import dataclasses
from array import array
from datetime import UTC, datetime

import httpx
import pytest
from forwarder import Forwarder
from hypothesis import given, settings
from hypothesis import strategies as st

from fxlab._questdb import sql
from fxlab._questdb.ingest import LineEncoder, LinePost, Lines
from fxlab._questdb.sql import Scope
from fxlab.errors import BatchRefused, QuestDBLoginFailed, QuestDBUnavailable
from fxlab.schema import EVENTS, ORDERBOOK, PRICES, book_levels

NOON_US = 1_735_732_800_000_000
NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def encoder():
    return LineEncoder()


@pytest.fixture
def post(db):
    made = LinePost(db.endpoint)
    yield made
    made.close()


def trade(session_id, seq, **changes):
    row = {
        "session_id": session_id,
        "symbol": "BTC_USDT",
        "side": "buy",
        "origin": "live",
        "seq": seq,
        "trade_id": str(seq),
        "price": 100.0 + seq / 8,
        "volume": 1.0,
        "quote_volume": None,
        "received_at": NOON_US + 7,
        "timestamp": NOON_US + seq,
    }
    return row | changes


def stored(db, session_id, table=PRICES):
    db.wait_visible(table)
    return db.export(sql.rows(Scope(table, session_id), list(table.columns)))


def test_all_types_come_back_as_they_went(db, unique, encoder, post):
    name = unique()
    rows = [
        trade(name, 1, side=None, trade_id=None, received_at=None),
        trade(name, 2, trade_id='é"\n,=\\ x' * 9, price=5e-324, volume=1e300),
        trade(name, 2**62 + 1, quote_volume=0.0, received_at=NOON, timestamp=NOON),
    ]
    post.send([encoder.encode(PRICES, rows)])
    found = stored(db, name).sort("seq").to_dicts()
    for row, back in zip(rows, found, strict=True):
        for column in ("received_at", "timestamp"):
            value = back[column]
            back[column] = None if value is None else round(value.timestamp() * 1e6)
            if isinstance(row[column], datetime):
                row[column] = NOON_US
        assert back == row


def test_a_book_keeps_truth_nulls_and_great_numbers(db, unique, encoder, post):
    name = unique()
    row = {
        "session_id": name,
        "symbol": "A",
        "origin": "live",
        "seq": 2**53 + 1,
        "first_update_id": None,
        "is_snapshot": True,
        **dict.fromkeys(book_levels()),
        "bid_price_1": 0.1,
        "received_at": NOON_US,
        "timestamp": NOON_US,
    }
    post.send([encoder.encode(ORDERBOOK, [row])])
    (back,) = stored(db, name, ORDERBOOK).to_dicts()
    assert back | {"received_at": NOON_US, "timestamp": NOON_US} == row


def test_no_rows_are_no_bytes(encoder):
    assert encoder.encode(EVENTS, []).rows == 0
    assert encoder.encode(EVENTS, []).payload == b""


def test_every_part_stands_for_itself(db, unique, encoder, post):
    """Cut anywhere, and sent in any order: the same rows are stored."""
    name = unique()
    whole = encoder.encode(PRICES, [trade(name, seq) for seq in range(7)])
    first, second = whole.halves()
    assert (first.rows, second.rows) == (3, 4)
    for part in (second.part(1, 4), whole.part(6, 7), first, second.part(0, 1)):
        post.send([part])
    assert stored(db, name)["seq"].to_list() == list(range(7))


def test_several_batches_of_several_tables_go_in_one_request(db, unique, encoder, post):
    name = unique()
    event = {"session_id": name, "event": "gap", "seq": 1, "detail": "x", "timestamp": NOON_US}
    some, other = (encoder.encode(PRICES, [trade(name, seq)]) for seq in (1, 2))
    post.send([some, encoder.encode(EVENTS, [event]), other])
    db.wait_visible(PRICES, EVENTS)
    assert stored(db, name)["seq"].to_list() == [1, 2]
    assert len(db.execute(sql.raw_rows(EVENTS, name))) == 1


def test_twice_is_once(db, unique, encoder, post):
    name = unique()
    batch = encoder.encode(PRICES, [trade(name, seq) for seq in range(5)])
    post.send([batch])
    post.send([batch, batch])
    assert stored(db, name).height == 5


@given(st.lists(st.binary(max_size=5), min_size=1, max_size=12), st.data())
@settings(max_examples=100, deadline=None)
def test_parts_are_what_slices_are(rows, data):
    ends = array("Q", (sum(map(len, rows[: n + 1])) for n in range(len(rows))))
    whole = Lines("t", b"".join(rows), ends)
    first = data.draw(st.integers(0, len(rows) - 1))
    last = data.draw(st.integers(first + 1, len(rows)))
    part = whole.part(first, last)
    assert part.rows == last - first
    assert [part.part(n, n + 1).payload for n in range(part.rows)] == rows[first:last]
    if len(rows) > 1:
        left, right = whole.halves()
        assert abs(left.rows - right.rows) <= 1
        assert left.payload + right.payload == whole.payload


# ---- what the server says --------------------------------------------------------------------


def test_one_bad_row_and_nothing_of_its_request_is_stored(db, unique, encoder, post):
    name = unique()
    rows = [trade(name, seq) for seq in range(20)]
    rows[11]["seq"] = "eleven"
    with pytest.raises(BatchRefused, match="seq"):
        post.send([encoder.encode(PRICES, rows)])
    assert stored(db, name).height == 0


def test_a_table_that_does_not_exist_is_a_refusal(unique, encoder, post):
    nowhere = dataclasses.replace(PRICES, name="no_such_table")
    with pytest.raises(BatchRefused, match="no_such_table"):
        post.send([encoder.encode(nowhere, [trade(unique(), 1)])])


def test_a_wrong_password_is_no_fault_of_the_rows(db, unique, encoder):
    stranger = LinePost(dataclasses.replace(db.endpoint, password="wrong"))  # noqa: S106
    try:
        with pytest.raises(QuestDBLoginFailed, match="FXLAB_QUESTDB_PASSWORD"):
            stranger.send([encoder.encode(PRICES, [trade(unique(), 1)])])
    finally:
        stranger.close()


def test_nobody_there_names_host_and_port(db, unique, encoder, free_ports):
    port = free_ports(1)[0]
    lonely = LinePost(dataclasses.replace(db.endpoint, http_port=port))
    try:
        with pytest.raises(QuestDBUnavailable, match=f"{port}.*ConnectError"):
            lonely.send([encoder.encode(PRICES, [trade(unique(), 1)])])
    finally:
        lonely.close()


def test_a_lost_answer_is_sent_again_without_harm(db, unique, encoder):
    name = unique()
    batch = encoder.encode(PRICES, [trade(name, seq) for seq in range(5)])
    with Forwarder(db.endpoint.http_port, lost_answers=1) as between:
        post = LinePost(dataclasses.replace(db.endpoint, http_port=between.port))
        try:
            with pytest.raises(QuestDBUnavailable):
                post.send([batch])
            post.send([batch])
        finally:
            post.close()
    assert stored(db, name).height == 5


def test_a_server_that_never_answers_is_given_up(db, unique, encoder):
    with Forwarder(db.endpoint.http_port, stalled=True) as between:
        endpoint = dataclasses.replace(db.endpoint, http_port=between.port)
        post = LinePost(endpoint, answer_seconds=0.2)
        try:
            with pytest.raises(QuestDBUnavailable, match="Timeout"):
                post.send([encoder.encode(PRICES, [trade(unique(), 1)])])
        finally:
            post.close()


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (400, '{"message": "bad\n  line"}', BatchRefused, "refused rows: bad line"),
        (400, "plain words", BatchRefused, "plain words"),
        (400, "[1, 2]", BatchRefused, r"\[1, 2\]"),
        (413, "", BatchRefused, "refused rows"),
        (500, "x" * 5_000, QuestDBUnavailable, r"status 500: x{300}\)"),
        (503, '{"message": "busy"}', QuestDBUnavailable, "status 503: busy"),
        (401, "", QuestDBLoginFailed, "FXLAB_QUESTDB_PASSWORD"),
    ],
)
def test_answers_about_rows_and_answers_about_the_server(db, status, body, error, words):
    post = LinePost(db.endpoint)
    post.close()
    answer = httpx.MockTransport(lambda _: httpx.Response(status, text=body))
    post._http = httpx.Client(base_url="http://nowhere", transport=answer)
    try:
        with pytest.raises(error, match=words):
            post.send([])
    finally:
        post.close()
