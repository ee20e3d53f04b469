"""The last cell of a batch's notebook: save the run, write its report, leave its figures."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fxlab.backtester.report import write_whole
from fxlab.backtester.summary import sparkline

if TYPE_CHECKING:
    from fxlab.backtester.result import Result
    from fxlab.lab import Lab

FIGURES: Final = "result.json"


def hand_in(result: Result, lab: Lab, folder: str | Path) -> str:
    """Save a run, and leave what a batch's index shows of it; return the run's id.

    Parameters
    ----------
    result
        A finished backtest.
    lab
        Where it is saved.
    folder
        Takes the figures; the report goes into the folder around it, beside the others of a batch.
        Nothing is written if it is empty.
    """
    saved = result.save(lab)
    if not folder:
        return saved
    named = replace(result, run_id=saved)  # a run that was saved before keeps its name
    report = named.report(Path(folder).parent)
    left = {
        "run_id": saved,
        "fingerprint": result.fingerprint,
        "report": report.name,
        "ticks": result.ticks,
        "metrics": {n: v if math.isfinite(v) else None for n, v in result.metrics.items()},
        "sparkline": sparkline(result.equity["equity"].to_list()),
    }
    write_whole(Path(folder) / FIGURES, json.dumps(left))
    return saved
