"""Feed interface of a venue: messages, addresses, payload checks, quarantine, clock.

A `Feed` turns a venue's frames into messages of one vocabulary. One for a venue that fxlab does not
know is a subclass with two methods; it may be written in a notebook and given to `Lab.collect`.
Times are microseconds since the epoch (UTC). An `Address` says where a venue lives, so that a mock
or a proxy can stand in for it by one argument.

What cannot be understood is quarantined: kept as a row of the event table with its cause and its
beginning. Every feed answers damage with the same `Event`, so that one query counts what a venue
garbled. The checks at the end refuse values that are not as a venue documents them.

Arrival times come from the wall clock once and from the monotonic clock after that, so that no
duration is ever negative. A wall clock that is set meanwhile is noticed by `Clock.step`, which the
collector records before times follow it.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, NamedTuple, NoReturn, Self
from urllib.parse import urlsplit

from fxlab.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Address:
    """The two doors of a venue.

    Attributes
    ----------
    rest
        Base URL of its REST interface, without a slash at the end.
    stream
        Base URL of its WebSocket streams, without a slash at the end.
    """

    rest: str
    stream: str

    @classmethod
    def under(cls, url: str, venue: str) -> Self:
        """Return the address of a venue served by a mock or a proxy.

        Parameters
        ----------
        url
            Such as ``http://127.0.0.1:8765``.
        venue
            Its name, which becomes the first part of every path.

        Raises
        ------
        InvalidInput
            When `url` is not an http or https address with a host.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise InvalidInput(
                f"url={url!r}, but it is the http:// or https:// address of a mock venue or a "
                "proxy, such as http://127.0.0.1:8765; leave it out to reach the venue itself"
            )
        rest = f"{url.rstrip('/')}/{venue}"
        return cls(rest=rest, stream=f"ws{rest.removeprefix('http')}")


SHOWN: Final = 300
"""Characters of a damaged frame that are kept."""


class Damaged(bytes):
    """A frame that is no text: what is left of it, and why.

    Attributes
    ----------
    cause
        In words: "not UTF-8", "larger than 16,777,216 bytes".
    """

    cause: str

    def __new__(cls, content: bytes, cause: str) -> Self:
        """Return the bytes with their cause."""
        made = super().__new__(cls, content)
        made.cause = cause
        return made


def quarantine(cause: str, payload: str | bytes, received: int, symbol: str | None = None) -> Event:
    """Return the event for a frame that is not as documented.

    Parameters
    ----------
    cause
        What is wrong with it, in words.
    payload
        The frame.
    received
        Its arrival, in microseconds.
    symbol
        Which symbol it speaks of, if it says.
    """
    if isinstance(payload, bytes):
        cause = getattr(payload, "cause", cause)
        payload = payload[:SHOWN].decode("utf-8", "backslashreplace")
    return Event("quarantine", symbol, received, 1, f"{cause}: {payload[:SHOWN]}")


STEP_US: Final = 500_000
"""From this difference on, the wall clock was set; below it, it was only steered."""


class Clock:
    """Microseconds since the epoch.

    Parameters
    ----------
    wall, monotonic
        Nanosecond clocks.
    """

    def __init__(
        self,
        wall: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._offset = wall() - monotonic()

    def now(self) -> int:
        """Return the time, in microseconds since the epoch (UTC)."""
        return (self._monotonic() + self._offset) // 1_000

    def step(self) -> int:
        """Return by how many microseconds the wall clock was set since the last look, mostly 0.

        Steps below `STEP_US` are steering, which is followed and not reported.
        """
        before = self._offset
        self._offset = self._wall() - self._monotonic()
        moved = (self._offset - before) // 1_000
        return moved if abs(moved) >= STEP_US else 0


Level = tuple[float, float]
"""Price and quantity; in a delta, quantity 0 takes the level away."""


class Trade(NamedTuple):
    """One trade.

    Attributes
    ----------
    id
        The venue's number if it is one, else its text; None where the venue gives none.
    side
        "buy" or "sell", of the taker; None where the venue does not say.
    time, received
        The venue's time of the trade, and its arrival here.
    origin
        "live", or "backfill" for one that was asked for later.

    Examples
    --------
    >>> fxlab.Trade("BTC_USDT", 7, "buy", 100.0, 0.5, 1_000_000, 1_000_500).origin
    'live'
    """

    symbol: str
    id: int | str | None
    side: str | None
    price: float
    volume: float
    time: int
    received: int
    origin: str = "live"


class Quote(NamedTuple):
    """Best bid and ask; `update_id` rises with each change of the book.

    Examples
    --------
    >>> quote = fxlab.Quote("BTC_USDT", 99.5, 2.0, 100.0, 1.0, 10, 1_000_000, 1_000_500)
    >>> quote.ask - quote.bid
    0.5
    """

    symbol: str
    bid: float
    bid_qty: float
    ask: float
    ask_qty: float
    update_id: int
    time: int
    received: int


class BookSnapshot(NamedTuple):
    """A whole book, best levels first, as known after `update_id`.

    Examples
    --------
    >>> book = fxlab.BookSnapshot(
    ...     "BTC_USDT", 10, [(99.5, 2.0)], [(100.0, 1.0)], 1_000_000, 1_000_500
    ... )
    >>> book.asks[0][0] - book.bids[0][0]
    0.5
    """

    symbol: str
    update_id: int
    bids: Sequence[Level]
    asks: Sequence[Level]
    time: int
    received: int


class BookDelta(NamedTuple):
    """Levels that changed. It follows the message before it, or a `Gap` stands between.

    One that ends before it begins covers no update: it tells of deeper levels that were not known,
    and no row is made of it.

    Examples
    --------
    >>> fxlab.BookDelta("BTC_USDT", 11, 12, [(100.0, 0.0)], [], 1_000_000, 1_000_500).bids
    [(100.0, 0.0)]
    """

    symbol: str
    first_update_id: int
    update_id: int
    bids: Sequence[Level]
    asks: Sequence[Level]
    time: int
    received: int


class Gap(NamedTuple):
    """Something was missed.

    Attributes
    ----------
    what
        "orderbook", or "prices" for a venue whose trades cannot be counted by their ids.
    from_time, to_time
        The last message before and the first after it; `to_time` is None while it lasts. The
        message that closes a gap repeats its symbol, `what` and `from_time`.
    missing
        How many updates, where their ids tell; 0 where the feed has found all of them.

    Examples
    --------
    >>> fxlab.Gap(
    ...     "BTC_USDT", "orderbook", 1_000_000, None, None, "connection lost"
    ... ).to_time is None
    True
    """

    symbol: str
    what: str
    from_time: int
    to_time: int | None
    missing: int | None
    cause: str


class Event(NamedTuple):
    """Anything else worth keeping: one row of the event table.

    Attributes
    ----------
    kind
        One of `fxlab.schema.EVENT_KINDS`.
    symbol
        None where it concerns them all.
    amount
        How many things it is about, kept as the row's ``count``.

    Examples
    --------
    >>> fxlab.Event(
    ...     "reconnect", None, 1_000_000, detail="the venue closed the connection"
    ... ).kind
    'reconnect'
    """

    kind: str
    symbol: str | None
    time: int
    amount: int | None = None
    detail: str = ""


class Refusal(NamedTuple):
    """A time for which a venue is asked nothing, because it refused to answer.

    Attributes
    ----------
    seconds
        How much of it is left; 0.0 when it is over.
    until
        Its end, in microseconds.
    reason
        Who refused, how, and until when, in words.

    Examples
    --------
    >>> fxlab.Refusal(90.0, 1_000_000, "it was asked too often").seconds
    90.0
    """

    seconds: float
    until: int
    reason: str


class ChannelRow(NamedTuple):
    """What a venue says beside trades and books: a row of one of its other channels.

    Attributes
    ----------
    channel
        A name in `fxlab.schema.CHANNELS`: "mark", "funding", "open_interest" or "liquidations".
    values
        By the names of that table's columns: numbers as floats, times in microseconds; what the
        venue did not say is None, or left out.

    Examples
    --------
    >>> row = fxlab.ChannelRow("BTC_USDT", "mark", {"mark_price": 99.5}, 1_000_000, 1_000_500)
    >>> row.origin
    'live'
    """

    symbol: str
    channel: str
    values: Mapping[str, Any]
    time: int
    received: int
    origin: str = "live"


Message = Trade | Quote | BookSnapshot | BookDelta | ChannelRow | Gap | Event


@dataclass(frozen=True, slots=True)
class Instrument:
    """Something that is traded.

    Attributes
    ----------
    symbol
        fxlab's name, base and quote with _ between: BTC_USDT.
    native
        The venue's name.
    price_decimals
        Decimals of its prices, if the venue says.
    status
        "trading", or the reason why not, as the venue names it.
    detail
        What a feed wants to remember, such as decimals of quantities.
    terms
        What the listing says of sizes, fees and expiry, by the names in `fxlab.schema.INSTRUMENT`.

    Examples
    --------
    >>> fxlab.Instrument("BTC_USDT", "BTCUSDT", price_decimals=2).status
    'trading'
    """

    symbol: str
    native: str
    price_decimals: int | None = None
    status: str = "trading"
    detail: Mapping[str, Any] = field(default_factory=dict)
    terms: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a collector wants.

    Attributes
    ----------
    instruments
        Of the feed's own `Feed.instruments`.
    trades
        Whether trades are wanted.
    book_depth
        0 for no books, 1 for the best bid and ask, up to 10 levels.
    channels
        What else is wanted, of `Feed.channels`.

    Examples
    --------
    >>> one = fxlab.Instrument("BTC_USDT", "BTCUSDT")
    >>> fxlab.Subscription((one,), book_depth=5).by_native["BTCUSDT"].symbol
    'BTC_USDT'
    """

    instruments: tuple[Instrument, ...]
    trades: bool = True
    book_depth: int = 0
    channels: tuple[str, ...] = ()

    @property
    def by_native(self) -> dict[str, Instrument]:
        """Return the instruments by the venue's names."""
        return {one.native: one for one in self.instruments}


class Feed(ABC):
    """A venue's live data.

    Attributes
    ----------
    venue
        Its name, kept as the session's ``exchange``.
    counts_trades
        Whether the trade ids of a symbol are whole numbers that rise by one: gaps can be seen.
    lossless
        Whether every trade and update is delivered; False is said in the session.
    channels
        What it has beside trades and books, by the names in `fxlab.schema.CHANNELS`.

    Examples
    --------
    >>> class Constant(fxlab.Feed):
    ...     venue = "constant"
    ...
    ...     async def instruments(self):
    ...         return {"ONE_USD": fxlab.Instrument("ONE_USD", "one")}
    ...
    ...     async def messages(self, wanted):
    ...         yield [fxlab.Trade("ONE_USD", 1, "buy", 1.0, 1.0, 1_000_000, 1_000_000)]
    >>> asyncio.run(Constant().instruments())["ONE_USD"].native
    'one'
    """

    venue: ClassVar[str]
    counts_trades: ClassVar[bool] = False
    lossless: bool = True
    channels: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    async def instruments(self) -> dict[str, Instrument]:
        """Return what is traded, by fxlab's symbol.

        Raises
        ------
        VenueUnavailable, VenueRefused
            With the reason in words.
        """

    @abstractmethod
    def messages(self, wanted: Subscription) -> AsyncIterator[Sequence[Message]]:
        """Yield messages in the order of their arrival, several at a time.

        It ends only by an error that no waiting can cure; lost connections are made again inside,
        with an `Event` "reconnect". What a venue sends that cannot be understood becomes an
        `Event` "quarantine", never an exception.
        """

    async def trades(
        self, instrument: Instrument, first_id: int, last_id: int
    ) -> Sequence[Trade | Event]:
        """Return trades of the past by their ids, both ends included, as far as the venue has them.

        Their origin is "backfill". An entry of the venue's answer that cannot be understood becomes
        an `Event` "quarantine" among them, and costs no other. None by default: the venue cannot be
        asked.
        """
        del instrument, first_id, last_id
        return []

    async def latest(self, instrument: Instrument, data_type: str) -> Trade | BookSnapshot | None:
        """Return the newest trade, or the book, as the venue has it now.

        It is asked for when a stream has been silent: a venue that is ahead of its own stream has
        ceased to send it. None by default: the venue cannot be asked.

        Parameters
        ----------
        instrument
            Whose.
        data_type
            "prices" for a trade, whose origin is "backfill"; "orderbook" for a book. A book that
            has no update id has 0, and the time of its last change.
        """
        del instrument, data_type
        return None

    def reconnect(self, symbol: str, data_type: str, reason: str) -> None:  # noqa: B027 - optional
        """Break the connection that carries a stream, so that it is made again."""

    def refusal(self) -> Refusal | None:
        """Return the last time for which the venue is asked nothing, over or not; None without one.

        Whoever has a question waits until it is over, and asks nothing meanwhile.
        """
        return None

    def answers(self) -> int:
        """Return how many questions were answered: while it grows, the venue does not hang."""
        return 0

    async def server_time(self) -> int | None:
        """Return the venue's clock in microseconds, or None if it has none to ask."""
        return None

    async def close(self) -> None:  # noqa: B027 - most feeds have nothing to close
        """Close connections."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def refuses(feed: Feed) -> bool:
    """Return whether a venue is asked nothing at the moment."""
    refusal = feed.refusal()
    return refusal is not None and refusal.seconds > 0


NOT_AS_DOCUMENTED: Final = (
    ArithmeticError,  # a number too large for a float, or no decimal number
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What reading a damaged payload raises: caught by a feed, and quarantined with `cause_of`."""
_INFINITE: Final = float("inf")


def cause_of(error: Exception) -> str:
    """Return what is wrong, in a few words."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, KeyError):
        return f"missing or unknown {error.args[0]!r:.60}"
    return (str(error) or type(error).__name__)[:120]


def no_constant(name: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python's JSON takes for numbers."""
    raise ValueError(f"{name} is no number of JSON")


def frame_text(frame: str | bytes) -> str:
    """Return a frame as text; bytes must be UTF-8."""
    return frame if isinstance(frame, str) else frame.decode()


def listed(value: Any) -> list[Any]:  # noqa: ANN401 - any JSON
    """Return a list; a text or an object, which could be iterated too, is refused."""
    if type(value) is not list:
        raise TypeError(f"{value!r:.40} is no list")
    return value


def read_each(
    entries: Iterable[Any],
    read: Callable[[Any], Trade],
    received: int,
    symbol_of: Callable[[Any], str | None],
) -> tuple[list[Trade], list[Event]]:
    """Return the trades of a frame, and the events of entries that are not as documented.

    Parameters
    ----------
    entries, received
        Of the frame, and when it arrived.
    read, symbol_of
        Return an entry's trade, and whose it is as far as that can be known.
    """
    found: list[Trade] = []
    bad: list[Event] = []
    for entry in entries:
        try:
            found.append(read(entry))
        except NOT_AS_DOCUMENTED as error:
            bad.append(quarantine(cause_of(error), json.dumps(entry), received, symbol_of(entry)))
    return found, bad


def native_of(listing: Any) -> str:  # noqa: ANN401 - any JSON
    """Return the venue's name in a listing."""
    native = listing["symbol"]
    if type(native) is not str:
        raise TypeError(f"symbol {native!r:.40} is no text")
    return native


def positive(value: str | float, name: str) -> float:
    """Return a number above zero, and not infinite."""
    number = float(value)
    if not 0.0 < number < _INFINITE:
        raise ValueError(f"{name} {value!s:.40} is not a positive number")
    return number


def quantity_of(value: str | float, name: str) -> float:
    """Return a number that is zero or above, and not infinite."""
    number = float(value)
    if not 0.0 <= number < _INFINITE:
        raise ValueError(f"{name} {value!s:.40} is not a quantity")
    return number
