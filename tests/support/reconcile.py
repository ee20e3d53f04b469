"""A venue's trades beside those in the database: one line a symbol, and what it has to say.

Both sides are counted by somebody else than the collector: the mock venue knows every trade that
happened and which of them it never told; the rows are read from the database. A test prints the
line, so that a run of all faults ends in a table, and asserts it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl

from fxlab.lab import Lab
from fxlab.mock import MockVenue
from fxlab.sessions.session import Session

Ids = tuple[int, int]
EXACT, COVERED, MENDED = "exact", "covered", "mended"
COLUMNS = ("seq", "timestamp", "price", "volume", "side", "origin", "trade_id")


@dataclass(frozen=True)
class Account:
    """One symbol's trades.

    Attributes
    ----------
    sent
        Trades that a collector had to get: on the stream, or by asking for them.
    stored, lost, duplicated, foreign
        Distinct trades in the database; those of `sent` that are not; rows too many; trades that
        never happened, or not like this.
    backfilled
        Of `stored`, those that were asked for.
    injected, found, invented
        Gaps that the venue made; that the ledger has; that it has without a reason.
    """

    case: str
    symbol: str
    sent: int
    stored: int
    lost: int
    duplicated: int
    foreign: int
    backfilled: int
    injected: frozenset[Ids]
    found: frozenset[Ids]
    killed: int = 0
    """Trades that were on their way through a process that was killed, and asked for again."""

    @property
    def missed(self) -> list[Ids]:
        """Return gaps that the venue made and the ledger does not have."""
        return sorted(one for one in self.injected if not self._covered(one))

    @property
    def invented(self) -> list[Ids]:
        """Return gaps of the ledger in which everything had been told."""
        return sorted(
            one
            for one in self.found
            if not any(one[0] <= b and a <= one[1] for a, b in self.injected)
        )

    def _covered(self, gap: Ids) -> bool:
        return any(first <= gap[0] and gap[1] <= last for first, last in self.found)

    def __str__(self) -> str:
        killed = f", {self.killed} in killed hands" if self.killed else ""
        return (
            f"{self.case}, {self.symbol}: sent {self.sent:,} stored {self.stored:,} "
            f"lost {self.lost} duplicated {self.duplicated} (foreign {self.foreign}, "
            f"{self.backfilled:,} by backfill{killed}); gaps injected {len(self.injected)} "
            f"found {len(self.found)} missed {len(self.missed)} invented {len(self.invented)}"
        )


def say(line: object) -> None:
    """Print a line of the table of faults."""
    sys.stdout.write(f"\n  {line}")
    sys.stdout.flush()


def trades(
    case: str,
    lab: Lab,
    session: Session,
    venue: MockVenue,
    *,
    backfill: bool = True,
    gaps: str = EXACT,
    name: str = "binance",
) -> list[Account]:
    """Compare all symbols' trades, print the lines, and assert that nothing is lost or doubled.

    Parameters
    ----------
    backfill
        Whether trades that were never told had to be asked for.
    gaps
        `EXACT` if the ledger has to have the venue's gaps and no others; `COVERED` if it may have
        more, as after a kill; `MENDED` if it may have fewer, as where the venue repeats trades.
    name
        The venue.
    """
    said = venue.ledger()["venues"][name]
    found = [_account(case, session, venue, symbol, said[symbol], backfill) for symbol in said]
    for one in found:
        say(str(one).replace("missed", "made smaller by repeats") if gaps == MENDED else one)
        assert (one.lost, one.duplicated, one.foreign) == (0, 0, 0), str(one)
        assert one.stored == one.sent, str(one)
        assert gaps == MENDED or one.missed == [], str(one)
        assert gaps == COVERED or one.invented == [], str(one)
        assert gaps != EXACT or one.found == one.injected, str(one)
    receipt = lab.verify(session.id)
    assert receipt.whole, str(receipt)
    return found


def _account(
    case: str, session: Session, venue: MockVenue, symbol: str, said: dict, backfill: bool
) -> Account:
    stored = session.prices(symbol, columns=COLUMNS)
    reach = stored["seq"].max() if backfill else None
    truth, unsent, tail = _heard(venue, symbol, said, reach)
    heard = truth.filter(~_inside(pl.col("id"), unsent))
    wanted = truth if backfill else heard
    asked = stored.filter(pl.col("origin") == "backfill")
    gaps = frozenset(one for one in gap_ids(session, symbol) if one[0] < tail)
    return Account(
        case,
        symbol,
        sent=wanted.height,
        stored=stored["seq"].n_unique(),
        lost=wanted.join(stored, left_on="id", right_on="seq", how="anti").height,
        duplicated=stored.height - stored["seq"].n_unique(),
        foreign=_as_told(stored).join(_as_told(truth), on=_SAME, how="anti").height,
        backfilled=asked.height,
        injected=frozenset(unsent),
        found=gaps,
        killed=asked.filter(~_inside(pl.col("seq"), unsent), pl.col("seq") < tail).height,
    )


def _heard(
    venue: MockVenue, symbol: str, said: dict, reach: int | None = None
) -> tuple[pl.DataFrame, list[Ids], int]:
    """Return the trades that somebody could know of, and the ranges of ids never told of.

    Of the last trades nobody may have been told. Who asks the venue at the end, and knows of ids up
    to `reach`, has to have all up to there. The third is the first id of those.
    """
    unsent = [(first, last) for first, last in said["unsent"]]
    first = said["sent_first_id"]
    truth = venue.truth.deals[symbol].frame()
    truth = truth.filter(pl.col("id").is_between(first, first + said["happened"] - 1))
    if unsent and unsent[-1][1] == truth["id"][-1]:
        tail = unsent.pop()[0]
        return truth.filter(pl.col("id") < max(tail, (reach or 0) + 1)), unsent, tail
    return truth, unsent, truth["id"][-1] + 1


_SAME = ["id", "time", "price", "quantity", "bought"]


def _as_told(trades: pl.DataFrame) -> pl.DataFrame:
    """Return trades of either side in the same columns; times as coarse as the venue tells them."""
    if "seq" in trades.columns:
        trades = trades.select(
            pl.col("seq").alias("id"),
            pl.col("timestamp").dt.epoch("us").alias("time"),
            "price",
            pl.col("volume").alias("quantity"),
            (pl.col("side") == "buy").alias("bought"),
        )
    return trades.select(_SAME).with_columns(pl.col("time") // 1_000)


def _inside(ids: pl.Expr, ranges: list[Ids]) -> pl.Expr:
    return pl.any_horizontal(pl.lit(value=False), *(ids.is_between(a, b) for a, b in ranges))


def uncounted_trades(case: str, session: Session, venue: MockVenue, name: str) -> None:
    """Compare trades of a venue whose ids tell no holes: what was sent, and the times of gaps."""
    for symbol, said in venue.ledger()["venues"][name].items():
        truth, unsent, _ = _heard(venue, symbol, said)
        sent = _as_told(truth.filter(~_inside(pl.col("id"), unsent))).drop("id")
        rows = session.prices(symbol, columns=COLUMNS)
        asked = pl.col("origin") == "backfill"
        stored, live, filled = (
            _as_told(some).drop("id") for some in (rows, rows.filter(~asked), rows.filter(asked))
        )
        lost = _minus(sent, stored).height
        happened = _as_told(truth).drop("id")
        foreign = _minus(live, sent).height + _minus(filled, happened).height
        spans = [
            (one["from_time"], one["to_time"]) for one in gap_details(session, symbol, "prices")
        ]
        holes = [truth.filter(_inside(pl.col("id"), [one]))["time"] for one in unsent]
        moments = [(_moment(times.min()), _moment(times.max())) for times in holes]
        missed = [one for one in moments if not any(a <= one[0] <= one[1] <= b for a, b in spans)]
        breaks = sum(one["fault"] in ("cut", "stall") for one in venue.ledger()["faults"])
        say(
            f"{case}, {symbol}: sent {sent.height:,} stored {stored.height:,} lost {lost} "
            f"duplicated or foreign {foreign}; gaps injected {len(unsent)} missed {len(missed)}, "
            f"breaks {breaks} told {len(spans)}"
        )
        assert (lost, foreign, missed) == (0, 0, [])
        # Nobody can know of a break whether there was a trade in it.
        assert len(spans) <= breaks


def _minus(some: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    """Return rows that `others` does not have, or not as often."""
    names = some.columns
    numbered = [
        one.with_columns(pl.int_range(pl.len()).over(names).alias("copy")) for one in (some, others)
    ]
    return numbered[0].join(numbered[1], on=[*names, "copy"], how="anti")


def _moment(time: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time)


def gap_ids(session: Session, symbol: str) -> Iterator[Ids]:
    """Yield the ranges of ids that the ledger calls gaps."""
    for detail in gap_details(session, symbol, "prices"):
        yield detail["first_id"], detail["last_id"]


def gap_details(session: Session, symbol: str, what: str) -> list[dict]:
    """Return what the ledger says of a symbol's gaps of a kind."""
    rows = session.events().filter(pl.col("event") == "gap", pl.col("symbol") == symbol)
    details = [json.loads(row["detail"]) | row for row in rows.iter_rows(named=True)]
    return [one for one in details if one["what"] == what]


def uncovered(session: Session, symbol: str, moments: Sequence[datetime]) -> list[datetime]:
    """Return the moments that no gap of a symbol's book covers."""
    gaps = events(session, "gap").filter(
        pl.col("symbol") == symbol, pl.col("detail").str.contains('"what": "orderbook"')
    )
    spans = gaps.select("from_time", "to_time").rows()
    return [one for one in moments if not any(a <= one <= b for a, b in spans)]


def events(session: Session, kind: str) -> pl.DataFrame:
    """Return the events of a kind."""
    return session.events().filter(pl.col("event") == kind)
