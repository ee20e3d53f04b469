"""SQL builder: the only module that builds SQL text, with every value checked and quoted.

The database guards nothing: it stores any id, and connectorx binds no parameters. So whatever
enters a statement passes here: ids match their pattern *and* are quoted, times are integers, names
come from `fxlab.schema`, choices from fixed lists; so are the statements of a rebuild guarded.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from fxlab import schema
from fxlab._times import integer
from fxlab.errors import InvalidInput, InvalidParameter, did_you_mean
from fxlab.schema import Table, check_session_id, check_symbol

# ruff: noqa: S608 - this is the place where SQL may be put together, of checked parts


HIDDEN: Final = ("deleting", "deleted")  # statuses of sessions that readers do not see

# QuestDB's SAMPLE BY units that rows are counted in, and their microseconds.
MINUTE: Final = 60_000_000
YEAR: Final = 366 * 86_400_000_000
_MOST_PARTS: Final = 100
STEPS: Final = {"1h": 3_600_000_000, "1s": 1_000_000, "1T": 1_000}


@dataclass(frozen=True, slots=True)
class Scope:
    """Rows of one session, or of a symbol in it, from `start` until before `end`, or `at` (us)."""

    table: Table
    session_id: str
    symbol: str | None = None
    start: int | None = None
    end: int | None = None
    at: tuple[int, ...] = ()
    symbols: tuple[str, ...] = ()
    """Several symbols, instead of one or all."""

    @property
    def where(self) -> str:
        """Return the condition that selects exactly these rows."""
        time = name(self.table.timestamp)
        parts = [f"session_id = {session_id(self.session_id)}"]
        if self.symbol is not None:
            parts.append(f"symbol = {symbol(self.symbol)}")
        if self.symbols:
            parts.append(f"symbol in ({', '.join(map(symbol, self.symbols))})")
        if self.start is not None:
            parts.append(f"{time} >= {int(self.start)}")
        if self.end is not None:
            parts.append(f"{time} < {int(self.end)}")
        if self.at:
            parts.append(f"{time} in ({', '.join(str(int(each)) for each in self.at)})")
        return " and ".join(parts)

    def by_year(self) -> list[Scope]:
        """Return the scope in parts of a year: a query opens all partitions of its range at once.

        They meet at whole minutes, so that no bar of one is in two. A scope without both ends is
        one part; a range of centuries is cut into a hundred.
        """
        if self.start is None or self.end is None or self.start >= self.end:
            return [self]
        step = max(YEAR, -(-(self.end - self.start) // _MOST_PARTS))
        step += -step % MINUTE
        cuts = range(self.start + -self.start % MINUTE + step, self.end, step)
        edges = [self.start, *cuts, self.end]
        return [replace(self, start=low, end=high) for low, high in itertools.pairwise(edges)]


def text(value: str) -> str:
    """Return a text as a quoted literal; a NUL character has no place in one."""
    if not isinstance(value, str):
        raise InvalidInput(f"{value!r:.80} is no text; give it in quotes")
    if "\0" in value:
        raise InvalidInput(f"{value[:80]!r} has a NUL character, which no text in QuestDB can hold")
    return "'" + value.replace("'", "''") + "'"


def session_id(value: str) -> str:
    """Return a checked session id (or run id: the same pattern) as a literal."""
    return text(check_session_id(value))


def symbol(value: str) -> str:
    """Return a checked symbol as a literal."""
    return text(check_symbol(value))


def name(value: str) -> str:
    """Return the name of a table or column, quoted; names are plain identifiers."""
    if not (value.isascii() and value.isidentifier()):
        raise InvalidInput(f"{value!r:.80} is not the name of a table or column")
    return f'"{value}"'


def columns(table: Table, names: Iterable[str]) -> str:
    """Return column names of a table, or say which name is close to an unknown one."""
    wanted = list(names)
    for column in wanted:
        if column not in table.columns:
            hint = did_you_mean(str(column), table.columns)
            raise InvalidParameter(
                f"no column named {column!r:.80} in {table.name}; "
                + (hint or f"the columns are: {', '.join(table.columns)}")
            )
    return ", ".join(map(name, wanted))


def choice(value: str, known: Sequence[str], what: str) -> str:
    """Return one of a fixed list as a literal."""
    if value not in known:
        hint = did_you_mean(str(value), known)
        raise InvalidParameter(
            f"{value!r:.80} is not a {what}; " + (hint or f"choose one of: {', '.join(known)}")
        )
    return text(value)


def count(value: int, what: str) -> int:
    """Return a whole number that can count rows."""
    found = integer(value, 0, 2**31 - 1)
    if found is None:
        raise InvalidParameter(
            f"{what}={value!r:.80} is not a number of rows; give a whole number from 0 up"
        )
    return found


def build() -> str:
    """Return the cheapest question: what the server calls itself."""
    return "select build()"


def wait_visible(table: Table) -> str:
    """Return the query that comes back once all that was written can be read."""
    return f"select wait_wal_table({text(table.name)})"


def list_suspended() -> str:
    """Return the query for the tables that take writes but do not show them."""
    return "select name, errorMessage from wal_tables() where suspended"


def rows(scope: Scope, names: Sequence[str], *, tie: str | None = "seq") -> str:
    """Return the query for rows in their one order: by time, then by `tie`."""
    order = [scope.table.timestamp, *([tie] if tie else [])]
    return (
        f"select {columns(scope.table, names)} from {name(scope.table.name)} where {scope.where} "
        f"order by {columns(scope.table, order)}"
    )


def raw_rows(table: Table, session: str) -> str:
    """Return the query for a session's rows of a small table; times are microseconds."""
    forms = {"TIMESTAMP": "cast({} as long)"}
    names = (forms.get(kind, "{}").format(name(each)) for each, kind in table.columns.items())
    return f"select {', '.join(names)} from {name(table.name)} where {Scope(table, session).where}"


def bins(scope: Scope, step: str) -> str:
    """Return the query for the number of rows in each hour, second or millisecond."""
    choice(step, tuple(STEPS), "step")
    return (
        f"select timestamp, count() from {name(scope.table.name)} where {scope.where} "
        f"sample by {step} align to calendar"
    )


def count_by_symbol(scope: Scope) -> str:
    """Return the query for the number of rows of each symbol."""
    return (
        f"select symbol, count() as row_count from {name(scope.table.name)} "
        f"where {scope.where} group by symbol order by symbol"
    )


def count_scope(scope: Scope) -> str:
    """Return the query for the number of rows."""
    return f"select count() from {name(scope.table.name)} where {scope.where}"


def extent(scope: Scope) -> str:
    """Return the query for the number of rows, and their first and last time (us)."""
    time = name(scope.table.timestamp)
    return (
        f"select count(), cast(min({time}) as long), cast(max({time}) as long) "
        f"from {name(scope.table.name)} where {scope.where}"
    )


def count_quotes(scope: Scope) -> str:
    """Return the query for the number of books that have a mid: both sides, and no cross."""
    return (
        f"select count() as row_count from {name(scope.table.name)} where {scope.where} "
        "and bid_price_1 is not null and ask_price_1 is not null and bid_price_1 <= ask_price_1"
    )


MID: Final = "case when bid_price_1 <= ask_price_1 then (bid_price_1 + ask_price_1) / 2 end"
_SPREAD: Final = "case when bid_price_1 <= ask_price_1 then ask_price_1 - bid_price_1 end"


def trade_statistics(scope: Scope) -> str:
    """Return the query for one row of aggregates a symbol over its trades."""
    sides = ", ".join(
        f"ksum(case when side = '{side}' then volume end) as {side}_volume" for side in schema.SIDES
    )
    volumes = f"ksum(volume) as volume, ksum(price * volume) as notional, {sides}"
    return _statistics(scope, volumes)


def book_statistics(scope: Scope) -> str:
    """Return the query for aggregates of a symbol's books; a mean is a sum and its `_count`."""
    quantities = [each for each in schema.book_levels() if "_qty_" in each]
    means = {
        "mean_spread": _SPREAD,
        "mean_spread_bps": f"({_SPREAD}) / ({MID}) * 10000",
        "mean_bid_qty": "bid_qty_1",
        "mean_ask_qty": "ask_qty_1",
        "mean_depth": " + ".join(f"coalesce({each}, 0)" for each in quantities),
        "book_imbalance": "(bid_qty_1 - ask_qty_1) / (bid_qty_1 + ask_qty_1)",
    }
    sums = (f"ksum({of}) as {each}, count({of}) as {each}_count" for each, of in means.items())
    others = (
        f"{', '.join(sums)}, max({_SPREAD}) as max_spread, "
        "sum(case when bid_price_1 > ask_price_1 then 1 else 0 end) as crossed, "
        "sum(case when bid_price_1 = ask_price_1 then 1 else 0 end) as locked, "
        "sum(case when bid_price_1 is null or ask_price_1 is null then 1 else 0 end) as one_sided"
    )
    return _statistics(scope, others)


def _price(scope: Scope) -> str:
    return "price" if scope.table is schema.PRICES else MID


def _statistics(scope: Scope, others: str) -> str:
    price = _price(scope)
    return (
        "select symbol, count() as row_count, min(timestamp) as first_time, "
        f"max(timestamp) as last_time, min({price}) as low, max({price}) as high, "
        "min(seq) as first_seq, max(seq) as last_seq, min(received_at - timestamp) as skew_min, "
        f"max(received_at - timestamp) as skew_max, {others} "
        f"from {name(scope.table.name)} where {scope.where} group by symbol order by symbol"
    )


FINE_INTERVALS: Final = (
    "case when step < 10000 then step when step < 1000000 then step - step % 10 "
    f"when step < {MINUTE} then step - step % 1000 else step end"
)
"""An interval (us) cut by less than 0.1 %, so that there are few different ones below a minute."""
_NEAR: Final = "skew - skew % 100"
FINE_SKEWS: Final = f"case when abs(skew) < {MINUTE} then {_NEAR} else skew - skew % 1000000 end"
"""A skew (us) cut to a tenth of a millisecond, from a minute on to a second."""


def intervals(scope: Scope, *, exact: bool = True) -> str:
    """Return the query for the times between neighbouring rows of a symbol: how often each is.

    ``groups`` counts the instants that two rows or more share, in the row of the interval 0;
    ``most`` is the longest of the intervals that `FINE_INTERVALS` makes one.
    """
    before, earlier = (
        f"timestamp - lag(timestamp, {rows}) over (partition by symbol)" for rows in (1, 2)
    )
    return (
        f"select symbol, {'step' if exact else FINE_INTERVALS} as length, count() as row_count, "
        "sum(case when wider = 0 then 0 else 1 end) as groups, max(step) as most "
        f"from (select symbol, {before} as step, {earlier} as wider "
        f"from {name(scope.table.name)} where {scope.where}) group by symbol, length"
    )


def skews(scope: Scope, *, exact: bool = True, near: bool = False) -> str:
    """Return the query for arrival minus event time (us), or `FINE_SKEWS`: how often each is.

    `near` says that all are below a minute.
    """
    fine = "skew" if exact else _NEAR if near else FINE_SKEWS
    return (
        f"select symbol, {fine} as length, count() as row_count "
        f"from (select symbol, received_at - timestamp as skew "
        f"from {name(scope.table.name)} where {scope.where}) group by symbol, length"
    )


def minutes(scope: Scope) -> str:
    """Return the query for each minute of a symbol with prices: rows, times, lowest and highest.

    ``close`` is the price of the highest seq: where its time is the last one, it is the last
    price. A join that asks for the last instants reads all rows once more.
    """
    price = _price(scope)
    return (
        "select symbol, timestamp, count() as row_count, min(timestamp) as first_time, "
        f"max(timestamp) as last_time, min({price}) as low, max({price}) as high, "
        f"arg_max({price}, seq) as close, arg_max(timestamp, seq) as close_time "
        f"{_priced(scope)} sample by 1m align to calendar"
    )


def _priced(scope: Scope) -> str:
    """Return the rows that have a price: of books, those with a mid."""
    mids = "" if scope.table is schema.PRICES else " and bid_price_1 <= ask_price_1"
    return f"from {name(scope.table.name)} where {scope.where}{mids}"


def prices_at(scope: Scope) -> str:
    """Return the query for the first and the last price of a symbol in each instant, by seq."""
    price = _price(scope)
    return (
        f"select symbol, timestamp, arg_min({price}, seq) as open, arg_max({price}, seq) as close "
        f"{_priced(scope)} group by symbol, timestamp"
    )


def outside(scope: Scope, low: float, high: float) -> str:
    """Return the query for the number of rows whose price is below `low` or above `high`."""
    price = _price(scope)
    return (
        f"select count() from {name(scope.table.name)} where {scope.where} "
        f"and (({price}) < {float(low)!r} or ({price}) > {float(high)!r})"
    )


def doubles(scope: Scope) -> str:
    """Return the query for the trades that repeat another in all but their id, by symbol."""
    return (
        "select symbol, sum(alike - 1) as row_count from (select symbol, timestamp, price, volume, "
        f"count() as alike from {name(scope.table.name)} where {scope.where} "
        "group by symbol, timestamp, price, volume) where alike > 1 group by symbol"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFilter:
    """What sessions must match: all that is given; hidden ones only where `status` asks for them.

    The words of `text` must each occur in a session's row, in any case; `start` and `end` (us) are
    a half-open range in which a session has ticks.
    """

    symbol: str | None = None
    status: str | None = None
    exchange: str | None = None
    source: str | None = None
    tag: str | None = None
    text: str | None = None
    start: int | None = None
    end: int | None = None

    @property
    def where(self) -> str:
        """Return the condition."""
        parts = [_status(self.status)]
        if self.symbol is not None:
            parts.append(_holds("symbols", f'"{check_symbol(self.symbol)}"'))
        parts += [
            f"{name(column)} = {text(value)}"
            for column, value in (("exchange", self.exchange), ("source", self.source))
            if value is not None
        ]
        if self.tag is not None:
            parts.append(_holds("tags", json.dumps(self.tag)))
        if self.text is not None:
            parts += _worded(self.text, _SEARCHED)
        if self.start is not None:
            parts.append(f"ended >= {int(self.start)}")
        if self.end is not None:
            parts.append(f"started < {int(self.end)}")
        return " and ".join(parts)


_SEARCHED: Final = (
    "session_id", "status", "exchange", "source", "symbols", "data_types", "notes", "tags",
    "to_str(started, 'yyyy-MM-dd HH:mm:ss')",
)  # fmt: skip

SORTS: Final = (
    "created_at", "started", "ended", "records_collected", "duration_seconds", "session_id",
    "status", "exchange", "symbols",
)  # fmt: skip
"""Columns that sessions can be sorted by."""


def sessions(
    wanted: SessionFilter,
    names: Sequence[str],
    *,
    sort: str = "created_at",
    descending: bool = True,
    after: str | None = None,
    limit: int = 50,
    offset: int = 0,
) -> str:
    """Return the query for a page of sessions, and in each row how many match (`total_count`).

    Sessions with equal values stand by id; those without a value stand last. `after` is the id of
    the row before the page: no session is shown twice or left out because others were added. One
    row more than `limit` tells that there is a next page; no row at all is one with a null id.
    """
    choice(sort, SORTS, "column to sort by")
    key, order = _sort_key(schema.SESSIONS, sort, descending=descending)
    table, shown = name(schema.SESSIONS.name), columns(schema.SESSIONS, names)
    first = count(offset, "offset")
    end = first + count(limit, "limit") + 1
    page = f"select {shown}, sort_key from matching"
    if after is not None:
        page += _beyond(schema.SESSIONS, "session_id", after, key, order)
    page += f" order by sort_key {order}, session_id limit {first}, {end}"
    return (
        f"with matching as (select *, {key} as sort_key from {table} where {wanted.where}) "
        f"select {shown}, total_count from (select count() as total_count from matching) "
        f"left join ({page}) on 1 = 1"
    )


def _sort_key(table: Table, column: str, *, descending: bool) -> tuple[str, str]:
    """Return a column as a value that is never null, so that any two compare; and its order.

    What is no column is a metric, rounded: the server takes numbers closer than 1e-10 for equal
    where it compares them, and not where it sorts.
    """
    order, kind = "desc" if descending else "asc", table.columns.get(column)
    if kind in ("SYMBOL", "VARCHAR"):
        return f"coalesce(cast({name(column)} as varchar), '')", order
    if kind is None:
        metric = f"round(json_extract(metrics, {text(f'$.{column}')})::double, 6)"
        return f"coalesce({metric}, {'-1e300' if descending else '1e300'})", order
    last = -1 if descending else 2**62
    return f"coalesce({name(column)}{'' if kind == 'DOUBLE' else '::long'}, {last})", order


def _beyond(table: Table, ids: str, after: str, key: str, order: str) -> str:
    """Return what leaves the rows that stand behind the one with an id; they have a `sort_key`."""
    one = session_id(after)
    last = f"select {key} as last_key from {name(table.name)} where {ids} = {one}"
    beyond = f"sort_key {'<' if order == 'desc' else '>'} last_key"
    return f" cross join ({last}) where {beyond} or (sort_key = last_key and {ids} > {one})"


def _status(status: str | None) -> str:
    if status is None:
        return f"status not in ({', '.join(map(text, HIDDEN))})"
    return f"status = {choice(status, schema.STATUSES, 'status')}"


def _holds(place: str, needle: str) -> str:
    return f"strpos({place}, {text(needle)}) > 0"


def _worded(words: str, places: Sequence[str]) -> list[str]:
    """Return the conditions that each word occurs in one of the places, in any case."""
    text(words)
    kept = {"tags": json.dumps}  # tags are kept as JSON
    found = [
        [
            _holds(f"lower({place})", kept[place](word)[1:-1] if place in kept else word)
            for place in places
        ]
        for word in words.lower().split()
    ]
    return [f"({' or '.join(each)})" for each in found]


def imports(limit: int, **equal: str) -> str:
    """Return the query for the newest imported files whose columns have these texts."""
    where = " and ".join(_equal(schema.IMPORTS, equal))
    return (
        "select path, session_id, state, sum(rows_good) as rows_good, sum(rows_bad) as rows_bad, "
        "size_bytes, sha256, max(updated_at) as updated_at, last(detail) as detail "
        f"from {name(schema.IMPORTS.name)} {where and f'where {where}'} "
        f"order by updated_at desc, path limit {count(limit, 'limit')}"
    )


def session_ids() -> str:
    """Return the query for the ids a user may have meant."""
    return select(schema.SESSIONS, [_status(None)], "created_at desc limit 10000", ["session_id"])


_RUN_WORDS: Final = (
    "run_id", "data_session_id", "strategy", "symbols", "parameters",
    "to_str(timestamp, 'yyyy-MM-dd HH:mm:ss')",
)  # fmt: skip


RUN_SORTS: Final = (
    "timestamp", "run_id", "strategy", "data_session_id", "fills_count",
    "final_equity", "total_return", "max_drawdown", "sharpe",
)  # fmt: skip
"""Columns and metrics that runs can be sorted by."""


def runs(
    *,
    limit: int = 50,
    run_id: str | None = None,
    fingerprint: str | None = None,
    words: str = "",
    deleted: bool | None = False,
    sort: str = "timestamp",
    descending: bool = True,
    after: str | None = None,
) -> str:
    """Return the query for a page of runs: with one id or fingerprint, or with all these words.

    A run that is deleted is found only where `deleted` is True (no others then) or None. Order and
    `after` are as in `sessions`.
    """
    choice(sort, RUN_SORTS, "column to sort by")
    key, order = _sort_key(schema.RUNS, sort, descending=descending)
    parts = [] if deleted is None else [f"deleted_at {'!=' if deleted else '='} null"]
    parts += _worded(words, _RUN_WORDS)
    if run_id is not None:
        parts.append(f"run_id = {session_id(run_id)}")
    if fingerprint is not None:
        parts.append(f"fingerprint = {text(fingerprint)}")
    page = f"(select *, {key} as sort_key from {name(schema.RUNS.name)}"
    page += f" where {' and '.join(parts)})" if parts else ")"
    if after is not None:
        page += _beyond(schema.RUNS, "run_id", after, key, order)
    return (
        f"select {columns(schema.RUNS, schema.RUNS.columns)} from {page} "
        f"order by sort_key {order}, run_id limit {count(limit, 'limit')}"
    )


def fills(run_id: str) -> str:
    """Return the query for the fills of one run, in their order."""
    return select(schema.FILLS, [f"run_id = {session_id(run_id)}"], "timestamp, seq")


def sweep_points(names: Sequence[str], **equal: str) -> str:
    """Return the query for the rows of sweeps whose columns have these texts, oldest first."""
    return select(schema.SWEEP_RUNS, _equal(schema.SWEEP_RUNS, equal), "timestamp, point", names)


def sweeps(**equal: str) -> str:
    """Return the query for the points and times of each sweep in each state."""
    parts = ("sweep_id", "data_session_id", "strategy", "state")
    where = " and ".join(_equal(schema.SWEEP_RUNS, equal))
    return (
        f"select {columns(schema.SWEEP_RUNS, parts)}, count_distinct(point) as points, "
        "min(timestamp) as first_time, max(timestamp) as last_time "
        f"from {name(schema.SWEEP_RUNS.name)} {where and f'where {where}'}"
    )


_NIGHT_WORDS: Final = ("plan", "sweep", "strategy", "state", "change", "sessions", "parameters",
                       "to_str(timestamp, 'yyyy-MM-dd')")  # fmt: skip


def night_ranks(*, limit: int, top: int, words: str) -> str:
    """Return the query for the best points of the newest nights, as each was written last."""
    table, own = schema.NIGHT_RANKS, name(schema.NIGHT_RANKS.name)
    parts = ["updated_at = last_at", f"rank <= {count(top, 'top')}", *_worded(words, _NIGHT_WORDS)]
    last = f"select night_id as last_id, max(updated_at) as last_at from {own}"
    return (
        f"select {columns(table, table.columns)} from {own} join ({last}) on night_id = last_id "
        f"where {' and '.join(parts)} "
        "order by timestamp desc, updated_at desc, night_id, sweep, rank "
        f"limit {count(limit, 'limit')}"
    )


def _equal(table: Table, wanted: Mapping[str, str]) -> list[str]:
    """Return the conditions that columns have these texts."""
    return [f"{columns(table, [column])} = {text(wanted[column])}" for column in wanted]


def select(
    table: Table, conditions: Sequence[str], order: str, names: Iterable[str] | None = None
) -> str:
    """Return the query for rows of a small table, in an order; all columns unless named."""
    where = f"where {' and '.join(conditions)} " if conditions else ""
    wanted = columns(table, table.columns if names is None else names)
    return f"select {wanted} from {name(table.name)} {where}order by {order}"


class Span(NamedTuple):
    """Times from `start` until before `end` (us), of all sessions but those of `without`."""

    start: int
    end: int
    without: tuple[str, ...] = ()

    def of(self, table: Table) -> str:
        """Return the condition that selects a table's rows of these times."""
        time = name(table.timestamp)
        found = f"{time} >= {int(self.start)} and {time} < {int(self.end)}"
        if self.without:  # a row without a session is none of these
            found += f" and session_id not in ({', '.join(map(session_id, self.without))})"
        return found


def moves() -> str:
    """Return the query for the purged partitions whose rows move now, and those that were moved.

    Between these two states, rows of other sessions may not be in their table.
    """
    states = (f"sum(case when state = {text(one)} then 1 else 0 end)" for one in ("copied", "done"))
    return f"select {', '.join(states)} from {name(schema.PURGE_JOURNAL.name)}"


def hidden_sessions() -> str:
    """Return the query for the whole rows of the sessions that are or were deleted."""
    hidden = f"status in ({', '.join(map(text, HIDDEN))})"
    return select(schema.SESSIONS, [hidden], "updated_at desc, session_id")
