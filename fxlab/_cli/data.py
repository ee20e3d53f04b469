"""Commands about sessions: import and export files, list and show what is stored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fxlab._cli.backtest import EVERY
from fxlab._cli.common import (
    SIZES_SHOWN,
    command,
    for_shell,
    is_text,
    keeping,
    say,
    show_facts,
    show_frame,
    show_newest,
)
from fxlab.errors import InvalidParameter

if TYPE_CHECKING:
    from fxlab.sessions._catalog import SessionQuery

LISTED: Final = (
    "session_id", "status", "exchange", "symbols", "records_collected", "duration_seconds",
    "gaps_count", "created_at",
)  # fmt: skip
STATISTICS_SHOWN: Final = (
    "symbol", "rows", "books", "open", "high", "low", "close", "volume", "vwap", "mean_spread",
    "realised_volatility", "interval_p50",
)  # fmt: skip
SHOWN: Final = 50
"""Symbols that a session's statistics are shown of in text; it may have 5,000."""

IMPORT_OPTIONS: Final = {
    **{name: f"--{name}" for name in ("symbol", "columns", "strict")},
    "max_bad": "--max-bad",
}
"""What errors of an import name, in a shell's words."""

sessions = typer.Typer(
    rich_markup_mode=None,
    help="List, show and delete the sessions in the database.",
    no_args_is_help=True,
)
imports = typer.Typer(
    rich_markup_mode=None,
    help="Files that were imported, or refused, and why.",
    no_args_is_help=True,
)
cache = typer.Typer(
    rich_markup_mode=None,
    help="Copies of sessions on this machine, for faster reads.",
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "import")(import_paths)
    command(app, "export")(export_session)
    command(sessions, "list")(list_sessions)
    command(sessions, "show")(show_session)
    command(sessions, "delete")(delete_session)
    command(sessions, "undelete")(undelete_session)
    app.add_typer(sessions, name="sessions")
    command(imports, "list")(list_imports)
    app.add_typer(imports, name="imports")
    command(app, "purge")(purge)
    command(app, "retention")(retention)
    command(app, "archive")(archive)
    command(cache, "list")(list_copies)
    command(cache, "clear")(clear_copies)
    app.add_typer(cache, name="cache")


def import_paths(
    paths: Annotated[list[Path], typer.Argument(help="Files of ticks, or folders that hold them.")],
    *,
    session_id: Annotated[
        str | None, typer.Option("--session", help="The new session's id; else from the folder.")
    ] = None,
    symbol: Annotated[
        str | None, typer.Option(help="For files without a column symbol, such as BTC_USDT.")
    ] = None,
    columns: Annotated[
        str,
        typer.Option(help="fxlab's names of columns and the file's: timestamp=time,price=px."),
    ] = "",
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a file for its first line that is no tick.")
    ] = False,
    max_bad: Annotated[
        float, typer.Option(help="Share of a file's lines that may be quarantined.")
    ] = 0.01,
    batch_size: Annotated[
        int, typer.Option(help="Rows that are read, checked and written at once.")
    ] = 250_000,
    workers: Annotated[
        int | None, typer.Option(help="Sessions read at once; else one a core, 4 at most.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show every step in the log.")] = False,
    keep_going: Annotated[
        bool,
        typer.Option("--keep-going", help="Store good sessions, list those refused at the end."),
    ] = False,
    exchange: Annotated[str | None, typer.Option(help="Where the ticks were traded.")] = None,
    notes: Annotated[str, typer.Option(help="Free text kept with the session.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="A tag; may be given again.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and count, write none.")] = False,
) -> None:
    """Import ticks from files; importing the same files again changes nothing.

    Read are CSV, text, JSON lines (also .gz and .zst), Parquet, Arrow and zip archives.

    Lines that are no ticks go to quarantine: number, reason and text, in a file that is named.
    """
    from fxlab._log import enable_logging
    from fxlab.lab import connect

    if verbose:
        enable_logging("INFO")
    kept = "sessions that are complete stay, one that is not is marked as failed"
    with connect() as lab, keeping(kept):
        report = lab.import_files(
            paths,
            session_id=session_id,
            symbol=symbol,
            columns=_mapping(columns),
            strict=strict,
            max_bad=max_bad,
            batch_size=batch_size,
            workers=workers,
            keep_going=keep_going,
            exchange=exchange,
            notes=notes,
            tags=tuple(tag or ()),
            dry_run=dry_run,
        )
    show_frame(report.table(), title="nothing was written: dry run" if dry_run else "imported")
    for note in report.notes:
        say(for_shell(note, IMPORT_OPTIONS))
    rate = report.rows / max(report.seconds, 1e-3)
    say(
        f"{report.rows:,} rows, {report.quarantined:,} quarantined lines, {report.seconds:.1f} s, "
        f"{rate:,.0f} rows/s"
    )
    if report.skipped:
        say(f"not read, no part of a session: {', '.join(report.skipped)}")
    if report.refused:
        raise typer.Exit(1)


def _mapping(text: str) -> dict[str, str]:
    """Return a mapping of columns as it is typed: ours=theirs, separated by commas."""
    pairs = [one.partition("=") for one in text.split(",")] if text else []
    for ours, equals, theirs in pairs:
        if not (ours.strip() and equals and theirs.strip()):
            raise InvalidParameter(
                f"columns='{text:.80}' is no mapping; give fxlab's name and the file's, such as "
                "columns='timestamp=time,price=px'"
            )
    return {ours.strip(): theirs.strip() for ours, _, theirs in pairs}


def list_imports(
    *,
    session_id: Annotated[
        str | None, typer.Option("--session", help="Only this session's files.")
    ] = None,
    state: Annotated[str | None, typer.Option(help="done, failed, refused or started.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most rows to list, newest first.")] = 50,
) -> None:
    """List the files that were imported or refused, newest first."""
    import polars as pl

    from fxlab.lab import connect

    with connect() as lab:
        found = lab.imports(session_id, EVERY, state=state)
    why = [None if one is None else for_shell(one, IMPORT_OPTIONS) for one in found["reason"]]
    show_newest(
        found.with_columns(pl.Series("reason", why, pl.String)),
        limit,
        empty="no such files; bring ticks in with: fxlab import PATH",
        leave_out=("sha256", "reason"),
    )
    for path, reason in zip(found["path"].head(limit), why[:limit], strict=True):
        if reason and is_text():  # of any length, so that no column of a terminal holds it
            say(f"{path}: {reason}")


def export_session(
    session_id: Annotated[str, typer.Argument(help="The id, with or without session_.")],
    path: Annotated[Path, typer.Argument(help="A folder, or one file for one symbol's ticks.")],
    *,
    form: Annotated[
        str | None, typer.Option("--format", help="parquet, csv or arrow; else as PATH is named.")
    ] = None,
    symbol: Annotated[list[str] | None, typer.Option(help="May be given again; else all.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files.")] = False,
) -> None:
    """Write a session's ticks to files that import takes back."""
    from fxlab.lab import connect

    with connect() as lab, keeping("files that are whole stay, half a one is removed"):
        files = lab.session(session_id).export(
            path, format=form, symbols=symbol or None, overwrite=overwrite
        )
    show_frame(files, title="exported")


def list_sessions(
    *,
    symbol: Annotated[str | None, typer.Option(help="Only those with this symbol.")] = None,
    status: Annotated[str | None, typer.Option(help="completed, collecting, aborted, ...")] = None,
    exchange: Annotated[str | None, typer.Option(help="Only those of this exchange.")] = None,
    source: Annotated[str | None, typer.Option(help="live, csv, parquet, synthetic, ...")] = None,
    tag: Annotated[str | None, typer.Option(help="Only those with this tag.")] = None,
    text: Annotated[
        str | None, typer.Option(help="Words in the id, symbols, exchange, notes, tags, ...")
    ] = None,
    start: Annotated[str | None, typer.Option(help="With ticks at or after this time.")] = None,
    end: Annotated[str | None, typer.Option(help="With ticks before this time.")] = None,
    sort: Annotated[
        str, typer.Option(help="created_at, started, ended, records_collected, session_id, ...")
    ] = "created_at",
    ascending: Annotated[bool, typer.Option("--ascending", help="The smallest first.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Most rows to list.")] = 50,
    after: Annotated[str | None, typer.Option(help="The last id of the page before.")] = None,
    deleted: Annotated[bool, typer.Option("--deleted", help="Those that are deleted.")] = False,
) -> None:
    """List the sessions, newest first."""
    from fxlab.lab import connect

    query: SessionQuery = {
        "symbol": symbol, "status": status, "exchange": exchange, "source": source, "tag": tag,
        "text": text, "start": start, "end": end, "sort": sort, "descending": not ascending,
        "limit": limit, "after": after,
    }  # fmt: skip
    if deleted:
        _refuse_options(query)
    with connect() as lab:
        if deleted:
            show_frame(lab.deleted(), empty="no session is deleted")
            return
        page = lab.session_page(**query)
    show_frame(
        page.sessions,
        empty="no such sessions; bring ticks in with: fxlab import PATH",
        total=page.total_count,
        more=f"--after {page.next_after} shows the next, --limit more",
        leave_out=[name for name in page.sessions.columns if name not in LISTED],
    )


def _refuse_options(query: SessionQuery) -> None:
    """Refuse what does nothing beside --deleted."""
    usual = {"sort": "created_at", "descending": True, "limit": 50}
    called = {"descending": "--ascending"}
    given = [called.get(n, f"--{n}") for n, value in query.items() if value != usual.get(n)]
    if given:
        raise InvalidParameter(
            f"--deleted lists all deleted sessions, and {', '.join(given)} would do nothing; "
            "--status deleting instead of it lists those that can come back, and --status deleted "
            "those that are purged, with every other option"
        )


def delete_session(
    session_id: Annotated[str, typer.Argument(help="The id, with or without session_.")],
    *,
    yes: Annotated[
        str | None, typer.Option("--yes", help="The id again, instead of being asked for it.")
    ] = None,
) -> None:
    """Delete a session: hidden at once, brought back by undelete until it is purged."""
    from fxlab.lab import connect

    with connect() as lab:
        name = lab.session(session_id).id
        if yes is None:
            show_frame(lab.deletion_preview(name), f"a purge of {name} would free")
            yes = typer.prompt("Type the id to delete it (in a script: --yes ID)", err=True)
        if yes not in (name, session_id):
            raise InvalidParameter(f"{yes!r:.80} is not {name!r}; nothing was deleted")
        planned = lab.delete(name)
    rows, size = int(planned["rows"].sum()), int(planned["bytes"].sum())
    say(f"{name} is deleted; fxlab sessions undelete {name} brings it back, fxlab purge {name} "
        f"frees {rows:,} rows ({size / 1e6:,.1f} MB) for good")  # fmt: skip


def undelete_session(
    session_id: Annotated[str, typer.Argument(help="The id; see fxlab sessions list --deleted.")],
) -> None:
    """Bring a deleted session back as it was."""
    from fxlab.lab import connect

    with connect() as lab:
        say(f"{lab.undelete(session_id).id} is back")


def purge(
    session_ids: Annotated[
        list[str] | None, typer.Argument(help="Deleted sessions; all of them unless given.")
    ] = None,
    *,
    older_than: Annotated[
        str | None, typer.Option(help="Only those deleted so long ago, such as 7d.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show it, free nothing.")] = False,
) -> None:
    """Free the disk of deleted sessions for good; no other session loses a row."""
    from fxlab.lab import connect

    with connect() as lab, keeping("no row of another session is lost; the same command goes on"):
        found = lab.purge(session_ids or None, older_than=older_than, dry_run=dry_run)
    title = "nothing was freed: dry run" if dry_run else "purged"
    show_frame(found, title, empty="there is nothing to free; fxlab sessions delete ID comes first")


def retention(
    *,
    older_than: Annotated[
        str | None, typer.Option(help="Sessions whose last tick is older, such as 90d.")
    ] = None,
    max_bytes: Annotated[
        str | None, typer.Option(help="The oldest of what is more than this, such as 50GB.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete them; else they are shown.")] = False,
) -> None:
    """Show, or delete, the sessions that are too old or too much."""
    from fxlab.lab import connect

    with connect() as lab:
        found = lab.retention(older_than=older_than, max_bytes=max_bytes, dry_run=not yes)
    title = "deleted; fxlab purge frees them" if yes else "to be deleted with --yes"
    show_frame(found, title, empty="no session is too old or too much")


def archive(
    *,
    before: Annotated[
        str | None, typer.Option(help="Only partitions that end before, such as 2025-01-01.")
    ] = None,
    native: Annotated[bool, typer.Option("--native", help="The way back.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show it, rewrite nothing.")] = False,
) -> None:
    """Rewrite old ticks as Parquet in place: less disk, read as before."""
    from fxlab.lab import connect

    with connect() as lab, keeping("partitions that are done stay so"):
        found = (lab.unarchive if native else lab.archive)(before=before, dry_run=dry_run)
    title = "nothing was rewritten: dry run" if dry_run else "rewritten"
    show_frame(found, title, empty="no partition is to be rewritten")
    changed = found.filter(state="planned" if dry_run else "done")
    now, after = (int(changed[name].sum()) / 1e6 for name in ("bytes", "bytes_after"))
    say(f"{changed.height:,} partitions: {now:,.1f} MB, {after:,.1f} MB as "
        f"{'native' if native else 'Parquet'}{' (expected)' if dry_run else ''}")  # fmt: skip


def show_session(
    session_id: Annotated[str, typer.Argument(help="The id, with or without session_.")],
    *,
    quality: Annotated[
        bool, typer.Option("--quality", help="Gaps, outliers, bad books, and a score.")
    ] = False,
    imports: Annotated[
        bool, typer.Option("--imports", help="The files it was imported from, and their states.")
    ] = False,
    gaps: Annotated[
        bool, typer.Option("--gaps", help="Each gap: how much is missing, its state and cause.")
    ] = False,
) -> None:
    """Show one session: what is known of it, and statistics of its ticks."""
    from fxlab.lab import connect

    with connect() as lab:
        session = lab.session(session_id)
        names = (
            "id", "status", "exchange", "source", "symbols", "data_types", "started", "ended",
            "duration_seconds", "prices_count", "orderbook_count", "gaps_count", "errors_count",
            "notes", "tags", "created_at",
        )  # fmt: skip
        found = session.analysis() if quality else None
        statistics = session.statistics() if found is None else found.statistics
        listed = session.gap_list()
    facts = [(name, getattr(session, name)) for name in names]
    facts.append(("gaps_resynced", listed.filter(state="resynced").height))
    show_facts(facts, "session", key="session")
    instruments = session.instruments()
    if not instruments.is_empty():
        leave_out = [name for name in instruments.columns if name not in SIZES_SHOWN]
        show_frame(instruments, "listed", key="instruments", most=SHOWN, leave_out=leave_out)
    show_frame(
        statistics.head(SHOWN) if is_text() else statistics,
        "statistics",
        key="statistics",
        total=statistics.height,
        more="--json and --csv have them all",
        leave_out=[name for name in statistics.columns if name not in STATISTICS_SHOWN],
    )
    if found is not None:
        show_facts([("score", found.quality.score)], "quality", key="score")
        for reason in found.quality.reasons:
            say(reason)
        show_frame(found.quality.table, "checks", key="checks", most=SHOWN)
    if gaps:
        show_frame(listed, "gaps", key="gaps", empty="no gap is known")
    if imports:
        files = session.imports().drop("detail")
        show_frame(files, "imports", key="imports", empty="it was recorded, not imported")
        for notes in session.options.get("import", {}).values():
            say("; ".join(notes))


def list_copies() -> None:
    """List the sessions that are copied to this machine, the last read first."""
    from fxlab.lab import connect

    with connect() as lab:
        found, limit = lab.cache.contents(), lab.cache.limit
    show_frame(found, empty="no session is copied: the first read of one makes a copy")
    say(f"{found['bytes'].sum():,} of {limit:,} bytes (FXLAB_CACHE_SIZE)")


def clear_copies(
    session_id: Annotated[str | None, typer.Argument(help="Only this session's.")] = None,
) -> None:
    """Remove the copies; the sessions themselves stay."""
    from fxlab.lab import connect

    with connect() as lab:
        freed = lab.cache.clear(session_id)
    say(f"{freed:,} bytes are free again; the next read makes new copies")
