"""Kill, cut, stall and garble everything around a recording, and count what is left of it.

Each test reconciles the mock venue's truth with the database and prints a line: ``sent N stored N
lost 0 duplicated 0``, gaps injected and found. The short form runs with all other tests;
``scripts/faults`` runs the long one and shows the lines.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
import reconcile
import reconcile_books
from collect_processes import Command, Recording, Server, eventually, read_to_the_end
from conftest import settings_at
from forwarder import Forwarder

import fxlab
from fxlab._questdb import server as embedded
from fxlab.collect._config import Plan
from fxlab.collect.collector import Collector
from fxlab.collect.feed import Clock
from fxlab.collect.venues import open_feed
from fxlab.config import Settings
from fxlab.lab import Lab
from fxlab.mock import Faults, MockVenue, generated
from fxlab.sessions.session import Session

pytestmark = pytest.mark.faults

LONG = os.environ.get("FXLAB_FAULTS") == "long"
PAIR = ("BTC_USDT", "ETH_USDT")
HOUR_NS = 3_600 * 10**9
JOURNAL = 2_000_000
"""Bytes that a journal may have where it is to be full soon."""
ENOUGH = 200
"""Trades from which on a recording is under way."""


def often(short, long):
    """Return a number for the form that runs."""
    return long if LONG else short


@pytest.fixture(scope="module")
def settings(server_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return settings_at(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def machine(settings: Settings) -> Iterator[Server]:
    """Start a server that the tests may kill."""
    server = Server(settings)
    server.up()
    yield server
    embedded.down(settings)


@pytest.fixture
def private(machine: Server, settings: Settings) -> Iterator[Lab]:
    machine.up()
    with fxlab.connect(settings) as connected:
        yield connected
    machine.resume()  # a test that failed half-way may have left it paused


def market(*symbols: str, rate: float = 400.0, seed: int = 5, book_rate: float = 20.0, **more):
    return generated(symbols or PAIR[:1], rate=rate, seed=seed, book_rate=book_rate, **more)


def happened(venue: MockVenue, symbol: str = PAIR[0]) -> int:
    return len(venue.truth.deals[symbol])


def some_more(venue: MockVenue) -> None:
    """Wait until enough has happened."""
    wanted = happened(venue) + ENOUGH
    eventually(lambda: happened(venue) > wanted, "trades came")


def quiet(venue: MockVenue) -> None:
    """Let the venue fall silent, and what it said arrive."""
    venue.stall()
    read_to_the_end(venue.url)
    time.sleep(0.5)  # frames that came late by a fault are still on their way through the recorder


# ---- (3) the recording process is killed -----------------------------------------------------


def test_a_killed_recorder_goes_on_where_it_was(
    private: Lab, settings: Settings, tmp_path: Path, unique
):
    name, rng = unique("killed"), random.Random(3)
    kills, killed_at = often(3, 20), []
    words = (*PAIR, "--session", name, "--settle", "1s")
    with MockVenue(market(*PAIR)) as venue:
        for number in range(kills):
            again = ("--resume",) if number else ()
            with Recording(
                settings, tmp_path / f"{number}.log", venue.url, *words, *again
            ) as recording:
                if not number:
                    eventually(lambda: has_books(private.session(name)), "books came")
                time.sleep(rng.uniform(0.2, 2.0))
                recording.kill()
                killed_at.append(datetime.now(UTC))
        with Recording(settings, tmp_path / "last.log", venue.url, *words, "--resume") as recording:
            mark = {symbol: venue.truth.deals[symbol].last(1)[0].id for symbol in PAIR}
            eventually(lambda: newer(private.session(name), mark), "it records again")
            time.sleep(3.0)  # for the holes that it left, which it asks for after a second
            quiet(venue)
            recording.stop()
        session = private.session(name)
        reconcile.trades(
            f"(3) recorder killed x{kills}", private, session, venue, gaps=reconcile.COVERED
        )
        for symbol in PAIR:
            reconcile_books.compare(f"(3) recorder killed x{kills}", session, venue, symbol)
            assert reconcile.uncovered(session, symbol, killed_at) == []
    assert session.status == "completed"
    with Command(settings, tmp_path / "verify.log", "verify", name) as command:
        assert command.wait() == 0, command.said
    assert "whole" in command.said


def newer(session: Session, mark: dict[str, int]) -> bool:
    """Return whether trades after so many are stored of each symbol."""
    return all((session.prices(one)["seq"].max() or 0) > mark[one] for one in mark)


def has_books(session: Session, symbols: tuple[str, ...] = PAIR) -> bool:
    return all(session.orderbook(symbol).height for symbol in symbols)


def test_what_a_killed_recorder_left_is_closed_by_the_next_start(
    private: Lab, settings: Settings, tmp_path: Path, unique
):
    name = unique("left")
    with MockVenue(market()) as venue:
        words = (PAIR[0], "--session", name)
        with Recording(settings, tmp_path / "log", venue.url, *words) as recording:
            eventually(lambda: has_books(private.session(name), PAIR[:1]), "books came")
            some_more(venue)
            recording.kill()
            killed_at = happened(venue)
        assert private.session(name).status == "collecting"
        damaged = settings.home / "journals" / "0_damaged.journal"
        damaged.write_bytes(b"no database" * 1_000)
        with pytest.warns(UserWarning, match="0_damaged.*look at its disk"):
            lab = fxlab.connect(settings)
        damaged.unlink()
        damaged.with_suffix(".lock").unlink(missing_ok=True)
        with lab:
            session = lab.session(name)
            receipt = lab.verify(name)
    assert session.status == "aborted"
    stored = session.prices(PAIR[0], columns=("seq", "timestamp"))
    truth = venue.truth.deals[PAIR[0]].frame()
    lag = killed_at - stored.height
    reconcile.say(f"(3) killed and not resumed: {receipt}; on their way when it died: {lag}")
    assert receipt.whole, str(receipt)
    assert stored["seq"].to_list() == truth["id"][: stored.height].to_list()
    assert session.ended == max(
        stored["timestamp"].max(), session.orderbook(PAIR[0])["timestamp"].max()
    )
    assert not list((settings.home / "journals").glob("*"))


# ---- (1) (2) the server is killed, or answers nothing ------------------------------------------


# This process asks the killed server too: what is left of a connection goes with the garbage.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_killed_servers_cost_nothing(
    private: Lab, machine: Server, settings: Settings, tmp_path: Path, unique
):
    name, rng = unique("server"), random.Random(1)
    kills, killed_at = often(2, 5), []
    words = (*PAIR, "--session", name, "--settle", "1s")
    with (
        MockVenue(market(*PAIR)) as venue,
        Recording(settings, tmp_path / "log", venue.url, *words) as recording,
    ):
        for _ in range(kills):
            time.sleep(rng.uniform(0.5, 2.0))
            machine.kill()
            killed_at.append(datetime.now(UTC))
            time.sleep(rng.uniform(0.0, 1.0))
            machine.up()
        time.sleep(1.0)
        quiet(venue)
        recording.stop()
        session = private.session(name)
        reconcile.trades(f"(1) server killed x{kills}", private, session, venue)
        for symbol in PAIR:
            reconcile_books.compare(f"(1) server killed x{kills}", session, venue, symbol)
    assert session.status == "completed"
    outages = [
        (ended - timedelta(seconds=float(detail.split()[-2])), ended)
        for ended, detail in reconcile.events(session, "db_outage")
        .select("to_time", "detail")
        .rows()
    ]
    reconcile.say(f"(1) outages in the ledger: {len(outages)}")
    late = timedelta(seconds=2)  # the sender may have had nothing to send at first
    assert all(any(a - late <= one <= b for a, b in outages) for one in killed_at)
    # A server that comes up may take one request and then none for a while: that is no new outage.
    begun = [a for (_, b), (a, _) in pairwise(sorted(outages)) if a - b > late]
    assert len(begun) + 1 <= kills


def test_a_server_that_does_not_answer_holds_nothing_up(
    private: Lab, machine: Server, settings: Settings, tmp_path: Path, unique
):
    name, seconds = unique("paused"), often(4.0, 12.0)
    words = (PAIR[0], "--session", name, "--settle", "1s")
    with (
        MockVenue(market(rate=1_000)) as venue,
        Recording(settings, tmp_path / "log", venue.url, *words) as recording,
    ):
        some_more(venue)
        machine.pause()
        before, at_pause = journal_rows(recording.journal), happened(venue)
        time.sleep(seconds)
        meanwhile = happened(venue) - at_pause
        # The socket is read and journaled all the time, as fast as a busy machine lets it.
        read = "what happened meanwhile is journaled"
        eventually(lambda: journal_rows(recording.journal) >= 0.9 * meanwhile, read)
        waiting = journal_rows(recording.journal)
        machine.resume()
        time.sleep(0.5)
        quiet(venue)
        recording.stop()
        session = private.session(name)
        reconcile.trades(f"(2) server paused {seconds:g} s", private, session, venue)
    late = slowest(session)
    reconcile.say(
        f"(2) rows waiting in the journal {before} -> {waiting} (trades meanwhile {meanwhile}); "
        f"slowest arrival {late / 1e3:.0f} ms after the trade"
    )
    assert reconcile.events(session, "db_outage").height == 1
    assert session.status == "completed"


def journal_rows(path: Path) -> int:
    """Return how many rows wait in a journal, as another process sees them."""
    import sqlite3

    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:
        return file.execute("select coalesce(sum(length(ends) / 8), 0) from batches").fetchone()[0]


def slowest(session) -> int:
    """Return the longest time from a trade to its arrival, in microseconds."""
    rows = session.prices(PAIR[0], columns=("timestamp", "received_at", "origin"))
    live = rows.filter(pl.col("origin") == "live")
    return int((live["received_at"] - live["timestamp"]).dt.total_microseconds().max())


# ---- (4) answers of the server are lost --------------------------------------------------------


def test_lost_answers_store_nothing_twice(
    private: Lab, settings: Settings, machine: Server, tmp_path: Path, unique
):
    name, cuts = unique("answers"), often(10, 100)
    with (
        MockVenue(market(*PAIR, rate=500)) as venue,
        Forwarder(private.endpoint.http_port) as network,
    ):
        through = by_address(settings, private, settings.home, network.port)
        words = (*PAIR, "--session", name, "--settle", "1s")
        with Recording(through, tmp_path / "log", venue.url, *words) as recording:
            for _ in range(cuts):
                network.lost_answers = 1
                eventually(lambda: network.lost_answers == 0, "an answer was lost")
                time.sleep(0.05)
            quiet(venue)
            recording.stop()
        session = private.session(name)
        reconcile.trades(f"(4) lost answers x{cuts}", private, session, venue)
        for symbol in PAIR:
            reconcile_books.compare(f"(4) lost answers x{cuts}", session, venue, symbol)


# ---- (5) (6) (8) frames that come twice, late, garbled, or not at all --------------------------


def test_frames_sent_often_and_shuffled_are_stored_once(
    private: Lab, settings: Settings, tmp_path: Path, unique
):
    name, late = unique("shuffled"), often(2.0, 5.0)
    faults = Faults(seed=5, duplicate=1.0, delay=0.7, delay_seconds=late, swap=0.1)
    words = (*PAIR, "--session", name, "--settle", f"{late + 2:g}s", "--book-depth", "0")
    with (
        MockVenue(market(*PAIR, books=False, trades=often(2_000, 8_000)), faults=faults) as venue,
        Recording(settings, tmp_path / "log", venue.url, *words) as recording,
    ):
        assert venue.wait(120)
        read_to_the_end(venue.url)
        time.sleep(1.0)
        recording.stop()
        session = private.session(name)
        case = f"(5) each frame up to 3 times, within {late:g} s"
        reconcile.trades(case, private, session, venue)
        sent = sum(venue.ledger()["frames"]["binance"].values())
    doubles = private.verify(name).ids["doubles"].sum()
    reconcile.say(f"{case}: {sent:,} frames, {doubles:,} of them again")
    assert sent == doubles + session.prices_count
    assert sent > 1.5 * session.prices_count


def test_garbled_frames_are_set_aside_and_nothing_else(
    private: Lab, settings: Settings, tmp_path: Path, unique
):
    name, wanted = unique("garbled"), often(300, 1_000)
    faults = Faults(seed=6, garbage=0.1)
    words = (PAIR[0], "--session", name, "--settle", "1s")
    with (
        MockVenue(market(rate=600, seed=6), faults=faults) as venue,
        Recording(settings, tmp_path / "log", venue.url, *words) as recording,
    ):
        eventually(lambda: garbled(venue) > wanted / 5, "some frames are garbled")
        before = recording.rss()
        eventually(lambda: garbled(venue) > wanted, "enough frames are garbled")
        grown = recording.rss() - before
        quiet(venue)
        recording.stop()
        session = private.session(name)
        reconcile.trades(f"(6) {garbled(venue)} garbled frames", private, session, venue)
        reconcile_books.compare(f"(6) {garbled(venue)} garbled frames", session, venue, PAIR[0])
        made = garbled(venue)
    told = reconcile.events(session, "quarantine")
    reconcile.say(
        f"(6) garbled {made} quarantined {told['count'].sum()} in {told.height} events, "
        f"memory {grown / 1e6:+.1f} MB"
    )
    assert told["count"].sum() == made
    assert told["detail"].str.len_chars().min() > 5
    assert grown < 20e6


def garbled(venue: MockVenue) -> int:
    """Return how many garbled frames were sent; a silent venue sends none."""
    faults = [one["fault"] for one in venue.ledger()["faults"]]
    end = faults.index("stall") if "stall" in faults else len(faults)
    return faults[:end].count("garbage")


@pytest.mark.parametrize("backfill", [True, False])
def test_lost_connections_and_frames_are_known_exactly(
    private: Lab, settings: Settings, tmp_path: Path, unique, backfill: bool
):
    name = unique("holes")
    seconds = often(8.0, 60.0)
    faults = Faults(
        seed=8,
        drop=0.02,
        cut_seconds=often(2.0, 3.0),
        stall_at=seconds / 3,
        stall_seconds=often(1.5, 40.0),
    )
    words = (*PAIR, "--session", name, "--settle", "1s", "--backfill")
    words = words if backfill else (*words[:-1], "--no-backfill")
    with (
        MockVenue(market(*PAIR, seed=8), faults=faults) as venue,
        Recording(settings, tmp_path / "log", venue.url, *words) as recording,
    ):
        time.sleep(seconds)
        quiet(venue)
        recording.stop()
        session = private.session(name)
        case = f"(8) cuts, a stall, drops, backfill {'on' if backfill else 'off'}"
        reconcile.trades(case, private, session, venue, backfill=backfill)
        for symbol in PAIR:
            reconcile_books.compare(case, session, venue, symbol)
        counts = venue.ledger()["counts"]
    told = session.events()["event"].value_counts().rows()
    reconcile.say(f"{case}: injected {counts}; the ledger has {dict(told)}")


@pytest.mark.parametrize("where", ["binance_futures", "bybit_linear", "kraken", "mexc", "okx_swap"])
def test_other_venues_lose_nothing_either(
    private: Lab, settings: Settings, tmp_path: Path, unique, where: str
):
    name = unique(where)
    faults = Faults(seed=12, duplicate=0.1, swap=0.02, cut_seconds=3.0, garbage=0.01)
    words = (*PAIR, "--session", name, "--settle", "1s")
    with (
        MockVenue(market(*PAIR, rate=200, seed=12), faults=faults) as venue,
        Recording(settings, tmp_path / "log", venue.url, *words, venue=where) as recording,
    ):
        time.sleep(often(5.0, 30.0))
        quiet(venue)
        time.sleep(1.0)
        recording.stop()
        session = private.session(name)
        case = f"(8) {where}: doubles, swaps, cuts, garbage"
        if where in {"bybit_linear", "mexc"}:
            reconcile.uncounted_trades(case, session, venue, where)
        else:
            gaps = reconcile.MENDED if where == "kraken" else reconcile.EXACT
            reconcile.trades(case, private, session, venue, gaps=gaps, name=where)
    assert private.verify(name).whole


def test_every_lost_change_of_a_book_is_a_gap(
    private: Lab, settings: Settings, tmp_path: Path, unique
):
    name, symbols = unique("books"), [f"{base}_USDT" for base in ("ADA", "BTC", "ETH", "SOL")]
    faults = Faults(seed=9, drop=0.06, duplicate=0.05, stale_snapshots=2)
    with (
        MockVenue(market(*symbols, rate=20, seed=9, book_rate=100), faults=faults) as venue,
        Recording(
            settings, tmp_path / "log", venue.url, *symbols, "--session", name, "--settle", "1s"
        ) as recording,
    ):
        time.sleep(often(8.0, 60.0))
        quiet(venue)
        recording.stop()
        session = private.session(name)
        reconcile.trades("(8) dropped changes", private, session, venue)
        found = [
            reconcile_books.compare("(8) dropped changes", session, venue, symbol)
            for symbol in symbols
        ]
    assert sum(one.dropped for one in found) >= often(3, 30)


# ---- (7) the clock of this machine is set ------------------------------------------------------


def test_a_clock_that_is_set_changes_no_time_of_a_trade(private: Lab, settings: Settings, unique):
    moved = [0]
    clock = Clock(wall=lambda: time.time_ns() + moved[0], monotonic=time.monotonic_ns)
    name = unique("clock")
    with MockVenue(market()) as venue:
        feed = open_feed("binance", url=venue.url, clock=clock)
        plan = Plan.of("binance", PAIR[:1], session_id=name, settle="1s")
        with Collector(private._db, feed, plan, settings.home, clock).start():
            for hours in (-1, 0, 1, 0):
                some_more(venue)
                moved[0] = hours * HOUR_NS
            some_more(venue)
            quiet(venue)
        session = private.session(name)
        reconcile.trades("(7) clock -1 h, back, +1 h, back", private, session, venue)
        reconcile_books.compare("(7) clock -1 h, back, +1 h, back", session, venue, PAIR[0])
    steps = reconcile.events(session, "clock_step")
    reconcile.say(f"(7) in the ledger: {steps['detail'].to_list()}")
    hours = [round(float(text.split()[-2]) / 3600, 3) for text in steps["detail"]]
    assert sorted(hours) == [-1, -1, 1, 1]
    assert session.duration_seconds is not None
    assert 0 <= session.duration_seconds < 60
    gaps = reconcile.events(session, "gap").filter(pl.col("to_time") < pl.col("from_time"))
    assert gaps.is_empty()


# ---- (9) it is asked to stop -------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_a_recording_well(
    private: Lab, settings: Settings, tmp_path: Path, unique, number
):
    name = unique("signal")
    with (
        MockVenue(market()) as venue,
        Recording(settings, tmp_path / "log", venue.url, PAIR[0], "--session", name) as recording,
    ):
        some_more(venue)
        quiet(venue)
        recording.stop(number)
        session = private.session(name)
        reconcile.trades(f"(9) {signal.Signals(number).name}", private, session, venue)
    assert session.status == "completed"
    assert f"session {name}: completed" in recording.said


def test_a_kernel_that_restarts_completes_its_recording(
    private: Lab, settings: Settings, tmp_path: Path, unique
):
    from jupyter_client.manager import KernelManager

    name = unique("kernel")
    with MockVenue(market()) as venue:
        cell = (
            "import fxlab\nlab = fxlab.connect()\n"
            f"lab.collect('binance', '{PAIR[0]}', url='{venue.url}', session_id='{name}')"
        )
        manager = KernelManager(kernel_name="python3")
        manager.start_kernel(env={**os.environ, **settings.environment()}, cwd=str(tmp_path))
        try:
            client = manager.blocking_client()
            client.start_channels()
            client.wait_for_ready(60)
            answer = client.execute_interactive(cell, timeout=60, output_hook=lambda _: None)
            assert answer["content"]["status"] == "ok", answer
            some_more(venue)
            quiet(venue)
            client.stop_channels()
            manager.restart_kernel()
        finally:
            manager.shutdown_kernel(now=True)
            manager.cleanup_resources()
        session = private.session(name)
        reconcile.trades("(9) kernel restarted", private, session, venue)
    assert session.status == "completed"


# ---- (10) the journal is full ------------------------------------------------------------------


def test_a_full_journal_ends_a_recording_loudly_and_loses_nothing(
    private: Lab, machine: Server, settings: Settings, tmp_path: Path, unique
):
    names = {"budget": unique("budget"), "disk": unique("disk")}
    homes = {"budget": settings, "disk": by_address(settings, private, tmp_path / "small")}
    words = {"budget": ("--journal-limit", str(JOURNAL // 2)), "disk": ()}
    with contextlib.ExitStack() as stack:
        limits = {"budget": None, "disk": stack.enter_context(small_disk(homes["disk"].home))}
        venues, recordings = {}, {}
        for what, name in names.items():
            venues[what] = stack.enter_context(MockVenue(market(rate=3_000, seed=10, books=False)))
            recordings[what] = stack.enter_context(
                Recording(
                    homes[what],
                    tmp_path / f"{what}.log",
                    venues[what].url,
                    *(PAIR[0], "--session", name, "--book-depth", "0", *words[what]),
                    limit=limits[what],
                )
            )
        machine.pause()
        gave_up("budget", recordings["budget"], "wait for the database, and journal_limit is")
        gave_up("disk", recordings["disk"], f"the journal {recordings['disk'].journal} cannot be")
        machine.resume()
        if limits["disk"] is None:
            with pytest.warns(UserWarning, match="disk is full.*it is kept"):
                fxlab.connect(homes["disk"]).close()
            small = str(homes["disk"].home / "journals")
            subprocess.run(["mount", "-o", "remount,size=20m", small], check=True)
        for what, name in names.items():
            with fxlab.connect(homes[what]) as lab:
                aborted_whole(f"(10) journal full ({what})", lab, name, venues[what])


@contextlib.contextmanager
def small_disk(home: Path) -> Iterator[Callable[[], None] | None]:
    """Make the disk of a home's journals small; or return what makes its files small."""
    folder = home / "journals"
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={JOURNAL}", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (JOURNAL, JOURNAL))
        return
    try:
        yield None
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def by_address(settings: Settings, lab: Lab, home: Path, port: int | None = None) -> Settings:
    """Return settings with another home that reach the same server by its address."""
    real = lab.endpoint
    return settings.replace(
        home=home,
        questdb_host=real.host,
        questdb_http_port=port or real.http_port,
        questdb_user=real.user,
        questdb_password=real.password,
        questdb_pg_password=real.pg_password,
    )


def gave_up(what: str, recording: Recording, why: str) -> None:
    """Wait until a recording has ended by itself, and said why."""
    assert recording.wait(120) == 1, recording.said
    said = " ".join(recording.said.split())
    reconcile.say(f"(10) journal full ({what}), it says: {said[-300:]}")
    assert why in said
    assert "Traceback" not in recording.said


def aborted_whole(case: str, lab: Lab, name: str, venue: MockVenue) -> None:
    """Assert that a session has everything that was journaled, from the first trade on."""
    session, receipt = lab.session(name), lab.verify(name)
    stored = session.prices(PAIR[0], columns=("seq",))["seq"]
    truth = venue.truth.deals[PAIR[0]].frame()["id"][: stored.len()]
    reconcile.say(f"{case}: {receipt}")
    assert session.status == "aborted"
    assert receipt.whole, str(receipt)
    assert stored.to_list() == truth.to_list()
    assert stored.len() > ENOUGH


# ---- (11) there is no server -------------------------------------------------------------------


def test_without_a_server_nothing_begins(settings: Settings, tmp_path: Path):
    nowhere = settings_at(tmp_path / "home")
    with MockVenue(market()) as venue:
        words = ("collect", "binance", PAIR[0], "--url", venue.url)
        with Command(nowhere, tmp_path / "log", *words) as command:
            assert command.wait() == 1, command.said
        assert happened(venue) == 0
    said = " ".join(command.said.split())
    reconcile.say(f"(11) no server: {said}")
    assert "the embedded server does not run" in said
    assert "fxlab up" in said
    assert "Traceback" not in said
    assert not list(tmp_path.glob("home/**/*"))
