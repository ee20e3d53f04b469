"""Commands about sessions: bring ticks in, list what is there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fxlab import progress
from fxlab.cli.output import say, show_frame, show_rows

sessions = typer.Typer(help="List and show the sessions in the database.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("import")(import_paths)
    app.add_typer(sessions, name="sessions")


def import_paths(
    paths: Annotated[
        list[Path], typer.Argument(help="CSV or Parquet files, or folders that hold them.")
    ],
    *,
    session_id: Annotated[
        str | None, typer.Option("--session", help="The new session's id; else from the folder.")
    ] = None,
    symbol: Annotated[
        str | None, typer.Option(help="For files without a column symbol, such as BTC_USDT.")
    ] = None,
    exchange: Annotated[str | None, typer.Option(help="Where the ticks were traded.")] = None,
    notes: Annotated[str, typer.Option(help="Free text kept with the session.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="A tag; may be given again.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and count, write none.")] = False,
) -> None:
    """Import ticks from CSV and Parquet files; importing the same files again changes nothing."""
    from fxlab.connecting import connect

    with connect() as lab, progress.terminal("import") as advance:
        report = lab.import_csv(
            *paths,
            session_id=session_id,
            symbol=symbol,
            exchange=exchange,
            notes=notes,
            tags=tuple(tag or ()),
            dry_run=dry_run,
            progress=advance,
        )
    show_frame(report.table(), "nothing was written: dry run" if dry_run else "imported")
    for note in report.notes:
        say(note)
    if report.skipped:
        say(f"not read, no part of a session: {', '.join(report.skipped)}")


@sessions.command("list")
def list_sessions(
    *,
    symbol: Annotated[str | None, typer.Option(help="Only those with this symbol.")] = None,
    status: Annotated[str | None, typer.Option(help="completed, collecting, aborted, ...")] = None,
    exchange: Annotated[str | None, typer.Option(help="Only those of this exchange.")] = None,
    text: Annotated[str | None, typer.Option(help="Text in the id, the notes or the tags.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most rows to list, newest first.")] = 50,
) -> None:
    """List the sessions, newest first."""
    from fxlab.connecting import connect

    with connect() as lab:
        found = lab.sessions(
            symbol=symbol, status=status, exchange=exchange, text=text, limit=limit
        )
    if found.is_empty():
        say("no such sessions; bring ticks in with: fxlab import PATH")
    else:
        wanted = (
            "session_id", "status", "exchange", "symbols", "records_collected",
            "duration_seconds", "gaps_count", "created_at",
        )  # fmt: skip
        show_frame(found.select(name for name in wanted if name in found.columns))


@sessions.command("show")
def show_session(
    session_id: Annotated[str, typer.Argument(help="The id, with or without session_.")],
) -> None:
    """Show one session: what is known of it, and statistics of its ticks."""
    from fxlab.connecting import connect

    with connect() as lab:
        session = lab.session(session_id)
        names = (
            "id", "status", "exchange", "source", "symbols", "data_types", "started", "ended",
            "duration_seconds", "prices_count", "orderbook_count", "gaps_count", "errors_count",
            "notes", "tags", "created_at",
        )  # fmt: skip
        show_rows(("", "session"), [(name, getattr(session, name)) for name in names])
        show_frame(session.statistics(), "statistics")
