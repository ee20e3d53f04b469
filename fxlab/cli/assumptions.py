"""Options that together are an `Execution`: a few for what people change, one for all else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from fxlab.backtester.execution import Execution

Fill = Annotated[str | None, typer.Option(help="next_trade, or book: cross the spread, walk it.")]
Taker = Annotated[
    float | None, typer.Option("--taker-bps", "--fee-bps", help="Fee of each market order.")
]
Maker = Annotated[float | None, typer.Option(help="Fee of resting limit orders; else the taker's.")]
Slippage = Annotated[float | None, typer.Option(help="How far fills are worse than prints.")]
Latency = Annotated[
    str | None,
    typer.Option(help="To the market: 50ms, measured, lognormal:20ms,0.5, uniform:10ms,40ms."),
]
More = Annotated[
    list[str] | None,
    typer.Option(
        "--execution",
        "-x",
        metavar="FILE.toml|NAME=VALUE",
        help="Anything else of fxlab.Execution: a TOML file, or max_leverage=2. May be given "
        "again; later words and the options above win.",
    ),
]
SUFFIX: Final = ".toml"


def execution_from(words: list[str] | None, **options: Any) -> Execution:  # noqa: ANN401
    """Return the assumptions that the words of ``--execution`` and the other options make.

    Raises
    ------
    InvalidParameter
        For an unknown name, with those that are near, or a value that is out of range.
    """
    from fxlab.backtester.assumptions import execution_of, parse_assumption, read_assumptions

    values: dict[str, Any] = {}
    for word in words or []:
        is_file = word.lower().endswith(SUFFIX) and "=" not in word
        values |= read_assumptions(Path(word)) if is_file else dict([parse_assumption(word)])
    values |= {name: value for name, value in options.items() if value is not None}
    return execution_of(values)
