"""Speeds of the catalogue and of reading a session among many, as ratios in one run.

    python benchmarks/catalogue.py [--sessions 1000] [--rows 50000] [--ticks 5000000] [--rounds 9]
                                   [--tiny]

Listing, and a letter typed into the picker, are compared with the bare query of the same page, a
read with one bare export of the same rows, and a second read, from the copy on this machine, with
the first. Of one large session, statistics and quality are compared with a bare aggregate of its
rows, and the zooms of its chart with the copy's read. A purge of one session among the others of
its week is compared with a bare copy of that week's partition.

Where a goal is a time, it stands beside the ratio for the size that was measured: list within
100 ms and one session within 150 ms, of 1,000 sessions of 50,000 rows, and statistics of 20 million
rows within 3 s (--ticks 20000000; of fewer rows in proportion).
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
from command import options, server
from market import generate
from run import Row, compare, raw_read
from turns import FEWEST

import fxlab
from fxlab import schema
from fxlab._questdb.client import QuestDB
from fxlab.sessions._candles import SessionCharts
from fxlab.widgets import SessionPicker

COLUMNS = ["timestamp", "seq", "price", "volume"]
BORN = datetime(2026, 1, 1, tzinfo=UTC)
AT_ONCE = 20
LIST_MS, READ_MS = 100, 150
STATISTICS_MS, STATISTICS_ROWS = 3_000, 20_000_000


def store(db: QuestDB, sessions: int, rows: int) -> None:
    """Store sessions alike, one an hour; the catalogue and the ticks are written in bulk."""
    ticks = generate(rows).frame().with_columns(symbol=pl.lit("BTC_USDT"))
    first, last = ticks["timestamp"][0], ticks["timestamp"][-1]
    frames, catalogue, started = [], [], time.perf_counter()
    for number in range(sessions):
        name, later = f"s-{number:05}", timedelta(hours=number)
        frames.append(
            ticks.with_columns(pl.col("timestamp") + later, session_id=pl.lit(name)).select(
                [pl.lit(None, kind).alias(column) if column not in (*ticks.columns, "session_id")
                 else pl.col(column).cast(kind) for column, kind in schema.PRICES.frame.items()]
            )
        )  # fmt: skip
        catalogue.append(
            {
                "session_id": name, "status": "completed", "exchange": "binance",
                "source": "synthetic", "symbols": '["BTC_USDT"]', "data_types": '["prices"]',
                "started": first + later, "ended": last + later, "records_collected": rows,
                "prices_count": rows, "notes": f"night {number}", "tags": '["benchmark"]',
                "created_at": BORN + timedelta(seconds=number), "updated_at": BORN,
            }
        )  # fmt: skip
        if len(frames) == AT_ONCE or number == sessions - 1:
            db.write(schema.PRICES, pl.concat(frames))
            frames.clear()
    db.write(schema.SESSIONS, pl.DataFrame(catalogue, schema=schema.SESSIONS.frame))
    db.wait_visible(schema.PRICES, schema.SESSIONS)
    print(f"{sessions:,} sessions of {rows:,} rows in {time.perf_counter() - started:.1f} s")


def rows_of(lab: fxlab.Lab, plain: fxlab.Lab, sessions: int, rounds: int) -> list[Row]:
    """Compare, with copies on this machine (`lab`) and without (`plain`)."""
    db = QuestDB(plain.endpoint)
    one = f"s-{sessions // 2:05}"
    bare = (
        "select session_id, status, symbols, records_collected, created_at "  # noqa: S608 - ours
        f"from {schema.SESSIONS.name} order by created_at desc limit 50"
    )
    ours, copied = plain.session(one), lab.session(one)
    picker = SessionPicker(plain)
    print("equal rows:", ours.prices(columns=COLUMNS).equals(raw_read(plain, one, COLUMNS)))
    print("equal copy:", copied.prices(columns=COLUMNS).equals(copied.prices(columns=COLUMNS)))
    return [
        compare(
            "page of the list / bare query",
            lambda: plain.session_page(limit=50),
            lambda: db.catalogue(bare),
            rounds,
            within(LIST_MS),
        ),
        compare(
            "filtered page of the list / bare query",
            lambda: plain.session_page(text=f"btc {sessions // 3}", limit=200),
            lambda: db.catalogue(bare),
            rounds,
            within(LIST_MS),
        ),
        compare(
            "letter typed into the picker / bare query",
            lambda: type_into(picker),
            lambda: db.catalogue(bare),
            rounds,
            "",
        ),
        compare(
            "bare export / our first read",
            lambda: raw_read(plain, one, COLUMNS),
            lambda: ours.prices(columns=COLUMNS),
            rounds,
            f">= 0.8, {within(READ_MS)}",
        ),
        compare(
            "first read / second read",
            lambda: ours.prices(columns=COLUMNS),
            lambda: copied.prices(columns=COLUMNS),
            rounds,
            ">= 10",
        ),
    ]


def within(milliseconds: float) -> str:
    """Return a goal for the time of our side, which stands first in a row."""
    return f"<= {milliseconds:,.0f} ms"


def type_into(picker: SessionPicker) -> None:
    """Type another letter into the filter: the list is asked for again."""
    picker.filter.value = "btc 9" if picker.filter.value == "btc" else "btc"


def analyses(lab: fxlab.Lab, ticks: int, rounds: int) -> list[Row]:
    """Compare what is said and drawn of one large session with bare passes over its rows."""
    frame = (
        generate(ticks)
        .frame()
        .with_columns(
            received_at=pl.col("timestamp")
            + pl.duration(microseconds=pl.int_range(pl.len()) % 40_000)
        )
    )
    lab.import_frame(frame.with_columns(symbol=pl.lit("BTC_USDT")), "prices", session_id="large")
    session, db = lab.session("large"), QuestDB(lab.endpoint)
    columns = ["timestamp", "price", "received_at"]
    session.prices(columns=columns)  # the copy is made
    charts = SessionCharts(session, "BTC_USDT")
    print(f"large session: {charts.whole['session'].layout.annotations[-1].text}")
    first, last = frame["timestamp"][0], frame["timestamp"][-1]
    aggregate = (
        "select symbol, count(), min(price), max(price), sum(volume) "  # noqa: S608 - ours
        f"from {schema.PRICES.name} where session_id = 'large' group by symbol"
    )

    def zoom(share: float) -> object:
        return charts.view("session", first, first + share * (last - first))

    def bare() -> object:
        return db.export(aggregate)

    def read() -> object:
        return session.prices(columns=columns)

    few, goal = max(rounds // 3, 1), within(STATISTICS_MS * ticks / STATISTICS_ROWS)
    return [
        compare(f"statistics of {ticks:,} / bare aggregate", session.statistics, bare, few, goal),
        compare(f"quality of {ticks:,} / bare aggregate", session.quality, bare, few, ""),
        compare(f"zoom on half of {ticks:,} ticks / read", lambda: zoom(0.5), read, rounds, ""),
        compare(f"zoom on a tenth of {ticks:,} ticks / read", lambda: zoom(0.1), read, rounds, ""),
    ]


def purges(lab: fxlab.Lab, rows: int, rounds: int) -> Row:
    """Compare a purge of one session with a bare copy of the partition that it shares."""
    db, rounds, states = QuestDB(lab.endpoint), max(rounds // 3, FEWEST), set[str]()
    ticks = generate(rows).frame().with_columns(symbol=pl.lit("BTC_USDT"))
    gone = [f"gone-{number}" for number in range(rounds + 1)]  # one of them to warm up
    for number, name in enumerate(gone):
        later = pl.col("timestamp") + timedelta(minutes=number)
        lab.import_frame(ticks.with_columns(later), "prices", session_id=name)
        lab.delete(name)
    first = lab.session("s-00000").started
    monday = (first - timedelta(days=first.weekday())).date()
    week = f"timestamp >= '{monday}' and timestamp < '{monday + timedelta(days=7)}'"
    copy = (
        f"create table partition_copy as (select * from {schema.PRICES.name} where {week}) "  # noqa: S608 - ours
        "timestamp(timestamp) partition by week"
    )

    def ours() -> None:
        states.update(lab.purge(gone.pop())["state"])

    def bare() -> None:
        db.execute(copy)
        db.execute("drop table partition_copy")

    ((held,),) = db.execute(f"select count() from {schema.PRICES.name} where {week}")  # noqa: S608 - ours
    row = compare(f"purge in a partition of {held:,} rows / bare copy", ours, bare, rounds, "")
    print("purged whole:", states == {"done"})
    return row


def main() -> None:
    """Run the comparisons and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=1_000)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--ticks", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    asked = options(parser, sessions=3, rows=25_000, ticks=25_000, rounds=2)
    with server(), fxlab.connect() as lab, fxlab.connect(cache_size=0) as plain:
        store(QuestDB(plain.endpoint), asked.sessions, asked.rows)
        for row in rows_of(lab, plain, asked.sessions, asked.rounds):
            print(row.line())
        print(purges(plain, asked.rows, asked.rounds).line())
        for row in analyses(lab, asked.ticks, asked.rounds):
            print(row.line())


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
