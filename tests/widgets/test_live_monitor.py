"""The live monitor without a browser: clicks arrive, and what is shown is the truth."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from dataclasses import replace

import pytest
from status_cases import BUSY, GAP, SILENT, status

from fxlab.charts._style import PLOTLY
from fxlab.collect.feed import BookSnapshot, Event, Feed, Gap, Instrument, Trade
from fxlab.collect.venues import VENUES
from fxlab.errors import CollectionFailed, InvalidInput, VenueNotFound, VenueRefused
from fxlab.widgets import KeyGuard, LiveMonitor
from fxlab.widgets._base import PeriodicTimer
from fxlab.widgets._collect_panel import CollectForm, MonitorChart
from fxlab.widgets._figures import UNHEARD
from fxlab.widgets._forms import WRONG

PATIENCE = 120.0
HOSTILE = "<img src=x onerror=alert(1)>"


class Tide(Feed):
    """Two symbols; messages come when the test says so."""

    venue = "tide<b>"
    counts_trades = True

    def __init__(self, error=None):
        self.error = error
        self.wanted = asyncio.Queue()
        self.loop = None
        self.sent = 0

    async def instruments(self):
        """Return both."""
        return {name: Instrument(name, name.lower()) for name in ("BTC_USDT", "ETH_USDT")}

    async def messages(self, wanted):
        """Yield what the test sends, until it breaks the feed."""
        self.loop = asyncio.get_running_loop()
        while True:
            count = await self.wanted.get()
            if count is None:
                raise self.error
            yield [m for one in wanted.instruments for m in self.some(one.symbol, count)]
            self.sent += count

    def some(self, symbol, count):
        """Return the next trades, a book and an event."""
        now = time.time_ns() // 1_000
        bids, asks = [(99.5, 1.0)], [(100.25, 2.0)]
        trades = [
            Trade(symbol, number, "buy", 100.0 + number % 10 / 4, 0.5, now - 3_000, now)
            for number in range(self.sent + 1, self.sent + count + 1)
        ]
        said = Event("reconnect", None, now, None, f"cut: {HOSTILE}")
        return [*trades, BookSnapshot(symbol, self.sent + 1, bids, asks, now - 3_000, now), said]

    def send(self, count):
        """Send so many trades of each symbol; None breaks the feed."""
        self.loop.call_soon_threadsafe(self.wanted.put_nowait, count)


def until(holds, what=""):
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


class TideLab:
    """The lab, whose venue "binance" is a tide in the test's hands."""

    def __init__(self, lab):
        self.lab = lab
        self.tide = Tide()
        self.asked = []

    def collect(self, venue, symbols, *, url, **options):
        """Note what was asked for, and record the tide."""
        self.asked.append({"venue": venue, "symbols": symbols, "url": url, **options})
        return self.lab.collect(self.tide, symbols, settle=0.1, **options)


@pytest.fixture
def tide_lab(lab):
    return TideLab(lab)


@pytest.fixture
def recording(lab):
    """Start a recording of a tide, and end it."""
    tide = Tide()
    collector = lab.collect(tide, ["BTC_USDT", "ETH_USDT"], settle=0.1)
    until(lambda: tide.loop)
    yield tide, collector
    collector.request_stop()
    collector._thread.join(PATIENCE)


def rows_of(panel):
    """Return the table's cells by symbol and heading."""
    text = panel.numbers.value
    heads = re.findall(r"<th[^>]*>([^<]*)</th>", text)
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in text.split("<tr>")[2:]]
    return {row[0]: dict(zip(heads, row, strict=True)) for row in rows}


def traces_of(panel):
    """Return the lines of the picture."""
    panel.refresh()
    (live,) = panel.stage.children
    return live.figure.data


# ---- a whole recording -----------------------------------------------------------------------


def test_start_watch_stop(tide_lab, lab):
    panel = LiveMonitor(tide_lab, symbols="btc_usdt ETH_USDT", notes=HOSTILE, duration="1h")
    assert (panel.start.disabled, panel.stop.disabled) == (False, True)
    panel.start.click()
    assert panel.message.value == ""
    assert (panel.start.disabled, panel.stop.disabled) == (True, False)
    assert panel.form.symbols.disabled
    assert tide_lab.asked[0]["symbols"] == ["btc_usdt", "ETH_USDT"]

    tide = tide_lab.tide
    until(lambda: tide.loop)
    tide.send(50)
    until(lambda: rows_of(panel)["ETH_USDT"]["trades"] == "50")
    row = rows_of(panel)["BTC_USDT"]
    assert (row["last"], row["bid"], row["ask"], row["spread"]) == (
        "100.00",
        "99.50",
        "100.25",
        "0.75",
    )
    assert float(row["lag ms"]) == 3.0
    assert ">collecting</span>" in panel.state.value
    assert re.search(r"0:00:\d\d of 1:00:00, 100 trades, 2 books", panel.line.value)
    assert 0 < panel.bar.value < 0.1

    panel.stop.click()
    assert panel.stop.disabled
    until(lambda: panel.session is not None, panel.message.value)
    assert panel.session.status == "completed"
    assert panel.session.prices_count == 100
    assert ">completed</span>" in panel.state.value
    assert "completed: 100 trades and 2 books are stored in session" in panel.message.value
    assert rows_of(panel)["BTC_USDT"]["trades/s"] == "\u2013"
    assert (panel.start.disabled, panel.stop.disabled) == (False, True)
    assert not panel.form.symbols.disabled
    assert lab.session(panel.session.id).notes == HOSTILE


def test_a_second_recording_begins_anew(tide_lab):
    panel = LiveMonitor(tide_lab, symbols="BTC_USDT")
    sessions = []
    for count in (3, 5):
        tide = tide_lab.tide = Tide()
        panel.session = None
        panel.start.click()
        until(lambda tide=tide: tide.loop)
        tide.send(count)
        until(lambda count=count: rows_of(panel)["BTC_USDT"]["trades"] == str(count))
        panel.stop.click()
        until(lambda: panel.session is not None)
        sessions.append(panel.session)
    assert [session.prices_count for session in sessions] == [3, 5]
    assert len({session.id for session in sessions}) == 2


def test_a_recording_that_ends_by_itself_is_seen_to(lab):
    tide = Tide()
    with lab.collect(tide, "BTC_USDT", settle=0.1, duration="0.5s") as collector:
        panel = LiveMonitor(lab, collector)
        until(lambda: panel.session is not None)
    assert "completed: 0 trades" in panel.message.value
    assert panel.bar.value == 1.0


# ---- a recording that was there before -------------------------------------------------------


def test_it_watches_a_recording_and_hides_a_form_that_says_other_things(lab, recording):
    tide, collector = recording
    tide.send(14)
    panel = LiveMonitor(lab, collector)
    assert panel.form.layout.display == "none"
    until(lambda: rows_of(panel)["BTC_USDT"]["trades"] == "14")
    panel.stop.click()
    until(lambda: panel.session is not None)
    assert panel.session.id == collector.session_id
    assert panel.form.layout.display is None
    again = LiveMonitor(lab, collector)  # one that is over can be looked at, too
    assert again.session.id == collector.session_id
    assert ">completed</span>" in again.state.value


def test_closing_the_panel_ends_the_looking_and_not_the_recording(lab, recording):
    tide, collector = recording
    panel = LiveMonitor(lab, collector)
    pulse = panel._pulse
    panel.close()
    assert pulse._over.is_set()
    seen = panel.line.value
    tide.send(21)
    until(lambda: collector.status().trades == 42)
    assert collector.status().state == "collecting"
    assert panel.line.value == seen
    panel.refresh()  # a pulse that had begun
    assert LiveMonitor(lab, collector).collector is collector  # and another one takes over


def test_a_panel_that_is_closed_while_it_starts_stays_closed(tide_lab):
    before = set(threading.enumerate())
    panel = LiveMonitor(tide_lab, symbols="BTC_USDT")
    panel.close()
    panel.start.click()
    assert panel.collector is None
    assert panel._pulse is None
    until(lambda: tide_lab.tide.loop)
    new = set(threading.enumerate()) - before
    (left,) = [thread for thread in new if thread.name == "fxlab collector"]
    tide_lab.tide.error = VenueRefused("the test is over")
    tide_lab.tide.send(None)
    left.join(PATIENCE)


# ---- what goes wrong -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"symbols": ""}, "no symbol was given"),
        ({"symbols": "BTC_USDX"}, "did you mean &#x27;BTC_USDT&#x27;"),
        ({"symbols": HOSTILE}, "&lt;"),
        ({"duration": "soon"}, "duration=&#x27;soon&#x27; is not a duration"),
        ({"venue": "ccxt:"}, "no exchange is named"),
    ],
)
def test_what_stands_in_the_way_is_said_in_the_panel(tide_lab, form, words):
    panel = LiveMonitor(tide_lab, **{"symbols": "BTC_USDT", **form})
    panel.start.click()
    assert words in panel.message.value
    assert 'role="alert"' in panel.message.value
    assert HOSTILE not in panel.message.value
    assert (panel.start.disabled, panel.stop.disabled) == (False, True)
    assert panel.collector is None


def test_a_venue_that_refuses_later_ends_it_with_its_words(lab):
    tide = Tide(VenueRefused(f"451: not here {HOSTILE}"))
    collector = lab.collect(tide, "BTC_USDT", settle=0.1)
    until(lambda: tide.loop)
    panel = LiveMonitor(lab, collector)
    tide.send(3)
    tide.send(None)
    until(lambda: "451: not here &lt;img" in panel.message.value, panel.message.value)
    assert ">aborted</span>" in panel.state.value
    assert panel.session is None
    assert not panel.start.disabled
    with pytest.raises(VenueRefused):
        collector.wait()


# ---- what is shown of a status ---------------------------------------------------------------


class Told:
    """A recording that says what it is told to."""

    session_id = "live_told"

    def __init__(self, now):
        self.now = now
        self.stops = 0

    def status(self):
        """Return what the test says."""
        return self.now

    def request_stop(self):
        """Count."""
        self.stops += 1

    def wait(self, _timeout):
        """Fail, as a recording does that had to end."""
        raise CollectionFailed("it had to end")


@pytest.fixture
def still(lab, monkeypatch):
    """Return a maker of panels that look only when they are told to."""
    monkeypatch.setattr("fxlab.widgets._collect_panel.PeriodicTimer", lambda *_: Still())
    return lambda now: LiveMonitor(lab, Told(now))


class Still:
    """A pulse that does not beat."""

    def stop(self):
        """Do nothing."""


def test_an_outage_says_what_waits(still):
    panel = still(status("outage", message="no answer from 127.0.0.1:9000"))
    assert "outage: rows wait in the journal" in panel.state.value
    assert "1,234 rows wait in the journal, 0.6 of 2,000 MB" in panel.line.value
    assert "no answer from 127.0.0.1:9000" in panel.news.value
    assert "journal" not in still(status()).line.value


def test_the_newest_event_is_shown_and_all_text_is_escaped(still):
    odd = status(
        exchange=HOSTILE, session_id=HOSTILE, message=HOSTILE,
        newest=GAP._replace(symbol=HOSTILE),
        symbols=(SILENT, BUSY.__class__(HOSTILE)),
    )  # fmt: skip
    panel = still(odd)
    assert "gap in trades, 3 trades missing" in panel.news.value
    shown = "".join(part.value for part in (panel.state, panel.line, panel.news, panel.numbers))
    assert "<img" not in shown
    assert shown.count("&lt;img src=x onerror=alert(1)&gt;") == 5


def test_unknown_numbers_are_dashes(still):
    row = rows_of(still(status()))["ETH_USDT"]
    assert {row[name] for name in ("trades/s", "last", "spread", "lag ms")} == {"\u2013"}


def test_lines_grow_with_each_look_and_stay_in_the_notebook(still):
    panel = still(status())
    prices, silent, rates, no_rates = traces_of(panel)
    assert (len(prices.x), len(rates.x)) == (2, 2)
    assert (len(silent.x), len(no_rates.x)) == (0, 0)
    assert list(prices.y) == [0.0, 0.0]  # several symbols are drawn as their change
    assert list(rates.y) == [50.04, 50.04]
    panel.collector.now = status("completed")
    assert panel.refresh()
    (picture,) = panel.stage.children
    assert len(picture.output.outputs[0]["data"][PLOTLY]["data"]) == 4
    assert "it had to end" in panel.message.value


def test_only_a_change_of_state_is_sent_to_screen_readers(still):
    panel = still(status())
    changes = []
    panel.state.observe(lambda change: changes.append(change["new"]), "value")
    for now, count in ((status(elapsed=70.0), 0), (status("outage"), 1)):
        panel.collector.now = now
        panel.refresh()
        assert len(changes) == count


def test_stop_asks_once(still):
    panel = still(status())
    panel.stop.click()
    assert panel.stop.disabled
    assert panel.collector.stops == 1


def test_a_panel_reads_as_text(still):
    assert repr(still(status())).startswith("<LiveMonitor\n")


def test_every_control_has_a_label_and_lists_keep_their_keys(lab):
    def walk(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from walk(child)

    panel = LiveMonitor(lab)
    assert isinstance(panel.children[-1], KeyGuard)
    silent = {"HTML", "Message", "HBox", "VBox", "FloatProgress"}
    for widget in walk(panel):
        if hasattr(widget, "description") and type(widget).__name__ not in silent:
            assert widget.description, widget


# ---- the parts -------------------------------------------------------------------------------


def test_the_form_has_every_venue_and_reads_as_arguments():
    form = CollectForm(symbols=("A_B", "C_D"), book_depth=1, duration="10m", url=" http://x ")
    assert set(form.venue.options) == {*VENUES, "ccxt"}
    assert form.value == {
        "venue": "binance",
        "symbols": ["A_B", "C_D"],
        "book_depth": 1,
        "duration": "10m",
        "url": "http://x",
        "notes": "",
    }


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("depth", "1e9", "book_depth='1e9' is not a whole number from 0 to 10"),
        ("depth", "11", "book_depth='11' is not a whole number from 0 to 10"),
        ("duration", "soon", "duration='soon' is not a duration"),
    ],
)
def test_what_the_form_shows_is_what_is_recorded_or_it_is_red(name, text, words):
    form = CollectForm()
    field = getattr(form, name)
    field.set_state({"value": text})
    assert field.value == text
    assert WRONG in field._dom_classes
    with pytest.raises(InvalidInput, match=words):
        _ = form.value


def test_an_exchange_is_asked_for_only_with_the_bridge():
    form = CollectForm()
    assert form._bridge_row.layout.display == "none"
    form.venue.value = "ccxt"
    assert form._bridge_row.layout.display is None
    form.exchange.value = " okx "
    assert form.value["venue"] == "ccxt:okx"
    assert CollectForm(venue="ccxt:bybit").value["venue"] == "ccxt:bybit"


def test_an_unknown_venue_is_named_with_near_ones(lab):
    with pytest.raises(VenueNotFound, match="did you mean 'binance'"):
        LiveMonitor(lab, venue="binanse")


def test_empty_words_are_none():
    value = CollectForm().value
    assert (value["duration"], value["url"]) == (None, None)


def test_one_symbol_is_drawn_as_it_is_and_books_alone_by_their_middle():
    chart = MonitorChart(("A",))
    for number, one in enumerate((SILENT, BUSY)):
        chart.add(1e12 + number, status(symbols=(one.__class__("A", bid=one.bid, ask=one.ask),)))
    chart.show()
    price, rate = chart.live.figure.data
    assert list(price.y) == [pytest.approx((61_837.5 + 61_837.61) / 2)]
    assert list(price.x) == [1e12 + 1]
    assert len(rate.y) == 0
    chart.add(1e12 + 5, status(symbols=(replace(BUSY, symbol="A"),)))
    assert len(price.y) == 1
    chart.show()
    assert (len(price.y), list(rate.y)) == (2, [50.04])


def test_a_batch_run_has_the_first_picture_and_the_last():
    chart = MonitorChart(("A",))
    first = chart.live.output.outputs
    assert "fxlab-words" in first[1]["data"]["text/html"]  # where later words are written in place
    chart.add(1e12, status(symbols=(replace(BUSY, symbol="A"),)))
    chart.show()
    assert chart.live.output.outputs is first
    chart.keep("the end")
    picture, words = chart.live.output.outputs
    assert picture["data"]["text/plain"] == "the end"
    assert words["data"]["text/plain"].startswith("2001-09-09 01:46:40 to 01:46:40 UTC; A: ")
    assert "A: 50.04" in words["data"]["text/plain"]
    assert chart.live.output.outputs is not first


def test_a_browser_gets_new_data_in_place_once_it_has_said_that_it_can():
    live = MonitorChart(("A",)).live
    sent = []
    live.events.send = sent.append
    live.events.handle({"event": "ready"})
    before = live.output.outputs
    live.show()  # it may not hear: the figure is shown again
    assert (sent, live.output.outputs is before) == ([{"event": "ready"}], False)
    live.events.handle({"event": "redraws"})
    before = live.output.outputs
    live.show()
    assert live.output.outputs is before
    assert len(sent[1]["data"]) == 2
    assert sent[1]["words"] == live.output.outputs[1]["data"]["text/plain"]
    live.events.handle({"event": "ready"})  # a page that was loaded again
    assert live.output.outputs is not before
    assert not live.events.can_redraw  # that one has not said so yet


def test_a_page_of_jupyters_server_is_drawn_to_before_a_busy_kernel_hears_of_it(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "a notebook")
    live = MonitorChart(("A",)).live
    before = live.output.outputs
    live.show()
    assert live.output.outputs is not before


def test_a_page_that_was_too_busy_to_hear_is_asked_again_by_another_model():
    live = MonitorChart(("A",)).live
    deaf = live.events
    deaf.handle({"event": "ready"})
    for span in (UNHEARD, 2 * UNHEARD):
        before = live.events
        for _ in range(span):
            assert live.events is before
            live.show()
        assert live.events is not before
        assert live.children == (live.output, live.events)
        assert before.comm is None  # closed
        live.events.handle({"event": "ready"})
    live.events.handle({"event": "heard"})  # it has no plotly of its own, then
    heard = live.events
    for _ in range(5 * UNHEARD):
        live.show()
    assert live.events is heard


def test_a_gap_in_a_feed_is_in_the_status(lab):
    """What the panel calls the newest event is the newest row of the ledger."""

    class Holed(Tide):
        def some(self, symbol, _count):
            now = time.time_ns() // 1_000
            return [Gap(symbol, "orderbook", now, now + 1, 5, "test")]

    tide = Holed()
    with lab.collect(tide, "BTC_USDT", settle=0.1) as collector:
        until(lambda: tide.loop)
        tide.send(1)
        until(lambda: collector.status().newest)
        newest = collector.status().newest
    assert (newest.kind, newest.symbol, newest.amount) == ("gap", "BTC_USDT", 5)


def test_a_pulse_beats_until_it_is_told_or_done():
    beats = []
    done = threading.Event()

    def beat():
        beats.append(None)
        if len(beats) == 3:
            done.set()
        return len(beats) == 3

    pulse = PeriodicTimer(beat, 0.001, pytest.fail, pytest.fail)
    assert done.wait(PATIENCE)
    pulse.stop()
    assert len(beats) == 3


def told_of(story, *before):
    """Return what a timer tells of calls that raise, go on or end it."""
    told, done = [], threading.Event()

    def beat():
        now = story.pop(0)
        if isinstance(now, Exception):
            raise now
        if now:
            done.set()
        return bool(now)

    PeriodicTimer(
        beat, 0.001, lambda error: told.append(str(error)), lambda: told.append("well"), *before
    )
    assert done.wait(PATIENCE)
    return told


def test_a_pulse_tells_an_error_once_and_beats_on():
    story = [ValueError("a"), ValueError("a"), ValueError("b"), None, ValueError("b"), None, True]
    assert told_of(story) == ["a", "b", "well", "b", "well"]


def test_a_panel_says_why_it_stands_still_and_moves_again(lab, monkeypatch):
    beats = []
    monkeypatch.setattr(
        "fxlab.widgets._collect_panel.PeriodicTimer", lambda *given: beats.append(given) or Still()
    )
    told = Told(status())
    panel = LiveMonitor(lab, told)
    beat, _, failed, recovered = beats[0]
    with monkeypatch.context() as patch:
        patch.setattr(told, "status", lambda: {}["gone"])
        with pytest.raises(KeyError) as caught:
            beat()
    failed(caught.value)
    assert "KeyError: &#x27;gone&#x27;" in panel.message.value
    assert panel.message.failed
    assert beat() is False
    recovered()
    assert panel.message.value == ""


# ---- beside an event loop --------------------------------------------------------------------


def test_a_kernel_hears_clicks_while_it_records(tide_lab):
    async def holds(that):
        while not that():  # noqa: ASYNC110 - another thread makes it so
            await asyncio.sleep(0.01)

    async def story():
        panel = LiveMonitor(tide_lab, symbols="BTC_USDT")
        panel.start.click()
        assert ">asking binance</span>" in panel.state.value
        assert panel.start.disabled
        assert panel.stop.disabled
        await holds(lambda: panel.collector is not None)
        await holds(lambda: tide_lab.tide.loop is not None)
        tide_lab.tide.send(9)
        await holds(lambda: rows_of(panel)["BTC_USDT"]["trades"] == "9")
        panel.stop.click()
        await holds(lambda: panel.session is not None)
        return panel

    panel = asyncio.run(asyncio.wait_for(story(), PATIENCE))
    assert panel.session.prices_count == 9


def test_a_first_picture_that_fails_is_tried_again(lab, monkeypatch):
    class Late(Told):
        """A recording that cannot be asked at first."""

        asked = 0

        def status(self):
            self.asked += 1
            if self.asked < 3:
                raise KeyError("not yet")
            return self.now

    beats = []
    monkeypatch.setattr(
        "fxlab.widgets._collect_panel.PeriodicTimer", lambda *given: beats.append(given) or Still()
    )
    panel = LiveMonitor(lab, Late(status()))
    assert "KeyError: &#x27;not yet&#x27;" in panel.message.value
    assert panel.stage.children == ()
    assert panel.stop.disabled is False
    ((beat, *_, told),) = beats
    assert told == repr(KeyError("not yet"))
    with pytest.raises(KeyError):
        beat()
    assert beat() is False
    assert len(panel.stage.children) == 1
    assert "BTC_USDT" in panel.numbers.value


def test_a_pulse_tells_that_what_was_shown_before_it_is_well():
    assert told_of([ValueError("a"), None, True], repr(ValueError("a"))) == ["well"]
