"""`fxlab collect` and `fxlab verify` as people type them."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import pytest
from scripted_feed import FOREVER, SYMBOL, Scripted, trade, trades
from test_cli import fxlab, one_error

from fxlab._questdb.ingest import LineEncoder, LinePost
from fxlab.collect.feed import ChannelRow
from fxlab.schema import PRICES


@pytest.fixture
def venue(monkeypatch, server):
    """Return a function that puts a feed of one's own in the place of all venues."""
    opened = []

    def stand_in(feed):
        def open_feed(name, *, url, clock=None):
            opened.append((name, url))
            return feed

        monkeypatch.setattr("fxlab.collect.venues.open_feed", open_feed)
        return opened

    return stand_in


def test_channels_are_recorded_that_the_venue_has(venue, lab, unique):
    class Perpetual(Scripted):
        channels = ("mark", "funding")

    name = unique("live")
    at = trade(1).time
    rows = [trade(1), ChannelRow(SYMBOL, "mark", {"mark_price": 99.5}, at, at + 9)]
    venue(Perpetual(rows, after=None))
    words = ("collect", "binance", SYMBOL, "--book-depth", "0", "--settle", "0s")
    answer = fxlab(*words, "--session", name, "--channel", "funding", "--channel", "mark")
    assert answer.exit_code == 0, answer.output
    session = lab.session(name)
    assert session.data_types == ("prices", "mark", "funding")
    assert session.mark_prices()["mark_price"].to_list() == [99.5]
    error = one_error(fxlab(*words, "--channel", "liquidations"))
    assert "gives no liquidations to record; it has mark, funding" in " ".join(error.split())
    error = one_error(fxlab(*words, "--channel", "marc"))
    assert "channels='marc' is no channel; did you mean" in " ".join(error.split())


LISTED = {"kind": "spot", "base": "BTC", "tick_size": 0.01, "lot_size": 1e-05, "taker_bps": 40}
TIERS = {"maker_bps": 25, "fee_tiers": [[0.0, 40.0, 25.0], [10_000.0, 35.0, 20.0]]}


def test_what_the_venue_lists_is_shown_and_kept(venue, unique):
    name = unique("live")
    venue(Scripted([trade(1)], after=None, terms=LISTED | TIERS))
    for words in (("instruments", "binance"), ("collect", "binance", SYMBOL, "--session", name)):
        answer = fxlab(*words)
        assert answer.exit_code == 0, answer.output
        assert words[0] == "collect" or "0.00001" in answer.output
    told = json.loads(fxlab("instruments", "binance", SYMBOL, "--json").output)
    assert (told[0]["lot_size"], told[0]["fee_tiers"]) == (1e-05, TIERS["fee_tiers"])
    assert ",1e-05," in fxlab("instruments", "binance", "--csv").output
    text = fxlab("sessions", "show", name).output
    assert "0.00001" in text
    assert "fee_tiers" not in text
    (row,) = json.loads(fxlab("sessions", "show", name, "--json").output)["instruments"]
    assert (row["symbol"], row["taker_bps"], row["expiry"]) == (SYMBOL, 40.0, None)


def test_a_recording_from_its_first_word_to_its_proof(venue, lab, unique):
    name = unique("live")
    feed = Scripted([*trades(1, 2, 4)], after=None)
    opened = venue(feed)
    answer = fxlab(
        "collect", "binance", "btc_usdt", "--session", name, "--book-depth", "0", "--settle", "0s",
        "--no-backfill", "--notes", "a note", "--tag", "a", "--tag", "b", "--url", "http://x:1",
    )  # fmt: skip
    assert answer.exit_code == 0, answer.output
    assert opened == [("binance", "http://x:1")]
    assert f"recording session {name}; stop it with Ctrl-C" in answer.output
    words = " ".join(answer.output.split())
    assert f"session {name}: completed, 3 trades, 0 books, open gaps: 1" in words
    assert f"fxlab verify {name}" in words
    session = lab.session(name)
    assert (session.notes, session.tags, session.data_types) == ("a note", ("a", "b"), ("prices",))
    assert feed.asked == []

    answer = fxlab("verify", f"session_{name}")
    assert answer.exit_code == 0, answer.output
    words = " ".join(answer.output.split())
    assert "3 rows recorded, 3 found, 1 trades known to be missing: whole" in words

    shown = json.loads(fxlab("sessions", "show", name, "--gaps", "--json").output)
    assert (shown["session"]["gaps_count"], shown["session"]["gaps_resynced"]) == (1, 0)
    assert [(gap["missing"], gap["state"]) for gap in shown["gaps"]] == [(1, "open")]

    encoder, post = LineEncoder(), LinePost(lab._db.endpoint)
    row = {"session_id": name, "symbol": SYMBOL, "origin": "live", "seq": 3, "price": 1.0}
    post.send([encoder.encode(PRICES, [row | {"timestamp": trade(3).time}])])
    lab._db.wait_visible(PRICES)
    post.close()
    answer = fxlab("verify", name)
    assert answer.exit_code == 1
    words = " ".join(answer.output.split())
    assert "3 rows were recorded and 4 are there" in words


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_well_and_the_handlers_come_back(venue, unique, lab, number):
    class Interrupting(Scripted):
        async def messages(self, wanted):
            async for batch in super().messages(wanted):
                yield batch
                if batch is self.batches[-1]:
                    # The command has not begun to listen, and nothing tells when it has.
                    while signal.getsignal(number) is mine:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                    os.kill(os.getpid(), number)

    name, before = unique("live"), signal.getsignal(number)
    venue(Interrupting(trades(1), trades(2), after=FOREVER))
    signal.signal(number, lambda *_: None)  # a late one must not end the tests
    try:
        mine = signal.getsignal(number)
        answer = fxlab("collect", "binance", SYMBOL, "--session", name, "--settle", "0s")
        assert answer.exit_code == 0, answer.output
        assert signal.getsignal(number) is mine
    finally:
        signal.signal(number, before)
    assert f"session {name}: completed, 2 trades" in " ".join(answer.output.split())
    again = f"fxlab collect binance {SYMBOL} --settle 0s --session {name} --resume"
    assert answer.output.splitlines()[-1] == f"go on with it by: {again}"
    assert lab.session(name).status == "completed"


def test_a_service_begins_its_session_and_goes_on_with_it(venue, lab, unique):
    name = unique("always")
    words = ("binance", SYMBOL, "--session", name, "--book-depth", "0", "--auto-resume")
    for number in (1, 2):
        venue(Scripted([trade(number)], after=None))
        answer = fxlab("collect", *words)
        assert answer.exit_code == 0, answer.output
    assert lab.session(name).prices(columns=["seq"])["seq"].to_list() == [1, 2]


def test_going_on_by_the_command_line(venue, lab, unique):
    name = unique("live")
    for number, words in ((1, ()), (2, ("--resume",))):
        venue(Scripted(trades(number), after=None))
        answer = fxlab("collect", "binance", SYMBOL, "--session", name, "--settle", "0s", *words)
        assert answer.exit_code == 0, answer.output
    assert lab.session(name).prices_count == 2


def test_a_feed_that_breaks_is_one_sentence_and_exit_code_1(venue, unique):
    venue(Scripted(trades(1), after=RuntimeError("own goal")))
    answer = fxlab("collect", "binance", SYMBOL, "--session", unique("live"))
    assert answer.exit_code == 1
    assert "own goal" in answer.output
    assert "Traceback" not in answer.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("binance", "BTC_USDX"), "BTC_USDT"),
        (("binance", SYMBOL, "--duration", "soon"), "soon"),
        (("binance", SYMBOL, "--duration", "0s"), "duration"),
        (("binance", SYMBOL, "--book-depth", "11"), "--book-depth 11"),
        (("binance", SYMBOL, "--no-trades", "--book-depth", "0"), "nothing to record"),
        (("binance", SYMBOL, "--journal-limit", "5"), "--journal-limit 5"),
        (("binance", SYMBOL, "--session", "a b"), "'a b'"),
        (("binance", SYMBOL, "--session", "never_was", "--resume"), "never_was"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else "",
)
def test_what_stands_in_the_way_is_said_in_one_line(venue, words, said):
    venue(Scripted())
    assert said in one_error(fxlab("collect", *words))


def test_a_venue_that_nobody_knows(server):
    said = one_error(fxlab("collect", "binanse", SYMBOL))
    assert "binanse" in said
    assert "binance" in said


def test_nothing_to_verify(server, unique):
    name = unique("nowhere")
    assert name in one_error(fxlab("verify", name))
