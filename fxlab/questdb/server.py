"""Start, find and stop the one embedded server of this home.

The server outlives whoever started it, so that a command line and ten notebooks share it; what it
is and where it answers stands in the instance file. With FXLAB_QUESTDB_HOST set there is nothing
to start: fxlab uses that server.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from fxlab.config import Settings
from fxlab.errors import QuestDBUnavailable, ServerStartFailed
from fxlab.progress import Advance, silent
from fxlab.questdb import limits, preflight, probe, process, runtime, server_config
from fxlab.questdb.endpoint import Endpoint
from fxlab.questdb.instance import Instance, Place, load_passwords, write_private
from fxlab.questdb.server_config import Passwords, Ports

_log: Final = logging.getLogger(__name__)

STOP_PATIENCE: Final = 60.0
"""Seconds that a server may take to stop by itself, with all its data written."""
_LOCK_PATIENCE: Final = 600.0  # the other `up` may be fetching the jar over a slow line
_FETCH_SHARE: Final = 0.6  # of the progress bar


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What is known of the server.

    Attributes
    ----------
    state
        "running", "stopped", "stale" (it ended without `down`: a crash, a kill, a power cut) or
        "external" (a server of your own).
    pid, version, started_at
        Of the embedded server while it runs, else None.
    endpoint
        Where it answers, in a browser too; None when it does not run.
    root, log
        The embedded server's data root and the file with what it prints.
    passwords
        The file with the embedded server's passwords.
    message
        One sentence for people, with the next step where there is one.
    """

    state: str
    pid: int | None
    version: str | None
    endpoint: Endpoint | None
    root: Path | None
    log: Path | None
    started_at: datetime | None
    message: str
    passwords: Path | None = None


def up(settings: Settings, progress: Advance = silent) -> ServerStatus:
    """Start the embedded server unless it runs, and wait until it answers a query.

    Parameters
    ----------
    settings
        Its home, ports, version, memory and `start_timeout`.
    progress
        Told about waiting, downloading and starting; if it raises, a started server is stopped.

    Raises
    ------
    ServerStartFailed
        If anything is in the way; the message names it and the setting that mends it. Its kinds
        `PortTaken` and `JarVerificationFailed` can be caught by themselves.
    """
    if not settings.is_embedded:
        return status(settings)
    place = Place.of(settings)
    preflight.check_home(place)
    with _alone(place, progress):
        running = _running(place)
        if running is None:
            _start(settings, place, progress)
            _log.info("started the embedded server at %s", place.root)
        else:
            process.await_answer(running, place, settings.start_timeout, progress)
    found = status(settings)
    _warn_of_limits(limits.of(settings, found.pid))
    return found


def _warn_of_limits(found: list[limits.Limit]) -> None:
    """Tell what the server may run out of, while there is time."""
    for limit in found:
        if not limit.is_enough:
            warnings.warn(f"{limit}; mend it: {limit.cure}", RuntimeWarning, stacklevel=3)


def down(settings: Settings, progress: Advance = silent) -> bool:
    """Stop the embedded server, and return whether one was running.

    It is asked to stop and given time to write everything; only after `STOP_PATIENCE` seconds is
    it killed, with a warning. A server of your own is left alone.
    """
    place = Place.of(settings)
    if not settings.is_embedded or not place.root.is_dir():
        return False
    with _alone(place, progress):
        running = _running(place)
        if running is not None and not process.stop(running, place, STOP_PATIENCE, progress):
            warnings.warn(
                f"the server (pid {running.pid}) did not stop within {STOP_PATIENCE:.0f} s and was "
                f"killed; acknowledged rows are safe, see {place.log}",
                RuntimeWarning,
                stacklevel=2,
            )
        place.instance.unlink(missing_ok=True)
    if running is not None:
        _log.info("stopped the embedded server (pid %d)", running.pid)
    return running is not None


def status(settings: Settings) -> ServerStatus:
    """Return what is known of the server; it never raises for one that does not answer."""
    place = Place.of(settings)
    if not settings.is_embedded:
        found = _external(settings)
        reason = probe.refusal(found)
        message = f"a server of your own at {found.http_url}; {_answer_words(reason)}"
        return ServerStatus("external", None, None, found, None, None, None, message)
    instance = Instance.load(place.instance)
    if instance is None:
        return _idle("stopped", place, "no server runs; start it with: fxlab up")
    if instance.process(place.root) is None:
        message = (
            f"the server (pid {instance.pid}) ended without: fxlab down; acknowledged rows are "
            "safe, start it again with: fxlab up"
        )
        return _idle("stale", place, message)
    message = _answer_words(probe.refusal(instance.endpoint)) + _drift(settings, instance)
    return ServerStatus(
        "running",
        instance.pid,
        instance.version,
        instance.endpoint,
        place.root,
        place.log,
        instance.started_at,
        message,
        place.passwords,
    )


def endpoint(settings: Settings) -> Endpoint:
    """Return where the server answers and how to log in, without asking it.

    Raises
    ------
    QuestDBUnavailable
        If the embedded server does not run, with the command that starts it.
    """
    if not settings.is_embedded:
        return _external(settings)
    running = _running(Place.of(settings))
    if running is None:
        reason = f"the embedded server {_absence(settings)}"
        raise QuestDBUnavailable.at(server_config.LOOPBACK, settings.questdb_http_port, reason)
    return running.endpoint


def _absence(settings: Settings) -> str:
    return "ended without: fxlab down" if status(settings).state == "stale" else "does not run"


def _external(settings: Settings) -> Endpoint:
    return Endpoint(
        host=settings.questdb_host or server_config.LOOPBACK,
        http_port=settings.questdb_http_port,
        pg_port=settings.questdb_pg_port,
        user=settings.questdb_user,
        password=settings.questdb_password,
        pg_user=settings.questdb_pg_user,
        pg_password=settings.questdb_pg_password,
        embedded=False,
    )


def _running(place: Place) -> Instance | None:
    instance = Instance.load(place.instance)
    return instance if instance and instance.process(place.root) else None


def _idle(state: str, place: Place, message: str) -> ServerStatus:
    return ServerStatus(state, None, None, None, place.root, place.log, None, message)


def _answer_words(refusal: str) -> str:
    return refusal or "it answers"


def _drift(settings: Settings, instance: Instance) -> str:
    """Return a hint when the running server is not the one that the settings ask for."""
    found = instance.endpoint
    pairs = {
        "questdb_http_port": found.http_port,
        "questdb_pg_port": found.pg_port,
        "questdb_version": instance.version,
    }
    # Ports that nobody set are the server's own choice.
    if all(
        getattr(settings, name) == runs or (name.endswith("_port") and settings.is_default(name))
        for name, runs in pairs.items()
    ):
        return ""
    return (
        "; it was started with other ports or another version than the settings name now: "
        "fxlab down and fxlab up apply them"
    )


@contextlib.contextmanager
def _alone(place: Place, progress: Advance) -> Iterator[None]:
    """Hold the home's lock: two `up` at once give one server."""
    lock = FileLock(place.lock)
    began = time.monotonic()
    while True:
        try:
            lock.acquire(timeout=0.2)
            break
        except Timeout as error:
            if time.monotonic() - began > _LOCK_PATIENCE:
                raise ServerStartFailed(
                    f"another fxlab process has held {place.lock} for {_LOCK_PATIENCE:.0f} s; "
                    "end it and try again"
                ) from error
            progress(0.0, "waiting for another fxlab that starts or stops the server")
    try:
        yield
    finally:
        lock.release()


def _start(settings: Settings, place: Place, progress: Advance) -> None:
    preflight.check_memory(settings)
    preflight.check_ports(settings)
    java = runtime.resolve(settings, lambda share, text: progress(_FETCH_SHARE * share, text))
    for last_try in (False, False, True):
        ports = preflight.check_ports(settings)
        try:
            _start_at(ports, java, settings, place, progress)
        except ServerStartFailed as error:
            # Another program, or another home's server, was quicker to take a port.
            if last_try or "could not bind" not in str(error):
                raise
        else:
            return


def _start_at(
    ports: Ports, java: runtime.Runtime, settings: Settings, place: Place, progress: Advance
) -> None:
    passwords = load_passwords(place.passwords)
    config = server_config.render(ports, passwords, secrets.token_urlsafe(24))
    write_private(place.config / "server.conf", config)
    write_private(place.config / "log.conf", server_config.LOG_CONFIG)
    started = process.spawn(java, settings.questdb_memory.strip(), place)
    instance = Instance(
        pid=started.pid,
        born=started.create_time(),
        version=java.version,
        started_at=datetime.now(UTC),
        endpoint=_embedded(ports, passwords),
    )
    try:
        instance.save(place.instance)
        process.await_answer(
            instance,
            place,
            settings.start_timeout,
            lambda share, text: progress(_FETCH_SHARE + (1 - _FETCH_SHARE) * share, text),
        )
    except BaseException:  # also Ctrl-C and Cancelled: leave no server that nobody waited for
        process.stop(instance, place, STOP_PATIENCE, silent)
        place.instance.unlink(missing_ok=True)
        raise


def _embedded(ports: Ports, passwords: Passwords) -> Endpoint:
    return Endpoint(
        host=server_config.LOOPBACK,
        http_port=ports.http,
        pg_port=ports.pg,
        user=server_config.USER,
        password=passwords.http,
        pg_user=server_config.PG_USER,
        pg_password=passwords.pg,
    )
