"""Lifecycle of the embedded server: start, find, status and stop, one process for each home.

The server outlives the process that started it, so that a command line and ten notebooks share it;
what it is and where it answers stands in the instance file. It is spawned detached, waited for
until it answers, and stopped by a signal first. With FXLAB_QUESTDB_HOST set there is nothing to
start: fxlab uses that server.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psutil
from filelock import FileLock, Timeout

from fxlab._progress import Advance, part, silent
from fxlab._questdb import endpoint, runtime, server_config
from fxlab._questdb.endpoint import Endpoint
from fxlab._questdb.runtime import Runtime
from fxlab._questdb.server_config import Instance, Ports, ServerLocation, load_passwords
from fxlab.config import Settings, write_private
from fxlab.errors import QuestDBUnavailable, ServerStartFailed

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
    health_port
        Where the embedded server tells its health, with the login of HTTP.
    message
        One sentence for people, with the next step where there is one.

    Examples
    --------
    >>> fxlab.status().state
    'running'
    """

    state: str
    pid: int | None = None
    version: str | None = None
    endpoint: Endpoint | None = None
    root: Path | None = None
    log: Path | None = None
    started_at: datetime | None = None
    message: str = ""
    passwords: Path | None = None
    health_port: int | None = None


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
    place = ServerLocation.of(settings)
    server_config.check_home(place)
    with alone(place, progress):
        running = _running(place)
        if running is None:
            _start(settings, place, progress)
            _log.info("started the embedded server at %s", place.root)
        else:
            await_answer(running, place, settings.start_timeout, progress)
    found = status(settings)
    _warn_of_limits(server_config.limits_of(settings, found.pid))
    return found


def _warn_of_limits(found: list[server_config.Limit]) -> None:
    """Tell what the server may run out of, while there is time."""
    for limit in found:
        if not limit.is_enough:
            warnings.warn(f"{limit}; mend it: {limit.cure}", RuntimeWarning, stacklevel=3)


def down(settings: Settings, progress: Advance = silent) -> bool:
    """Stop the embedded server, and return whether one was running.

    It is asked to stop and given time to write everything; only after `STOP_PATIENCE` seconds is
    it killed, with a warning. A server of your own is left alone.
    """
    place = ServerLocation.of(settings)
    if not settings.is_embedded or not place.root.is_dir():
        return False
    with alone(place, progress):
        running = _running(place)
        if running is not None and not stop(running, place, STOP_PATIENCE, progress):
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
    place = ServerLocation.of(settings)
    if not settings.is_embedded:
        found = _external(settings)
        answer = endpoint.refusal(found) or "it answers"
        message = f"a server of your own at {found.http_url}; {answer}"
        return ServerStatus("external", endpoint=found, message=message)
    instance = Instance.load(place.instance)
    if instance is None:
        message = "no server runs; start it with: fxlab up"
        return ServerStatus("stopped", root=place.root, log=place.log, message=message)
    if instance.process(place.root) is None:
        message = (
            f"the server (pid {instance.pid}) ended without: fxlab down; acknowledged rows are "
            "safe, start it again with: fxlab up"
        )
        return ServerStatus("stale", root=place.root, log=place.log, message=message)
    answer = endpoint.refusal(instance.endpoint) or "it answers"
    return ServerStatus(
        "running",
        instance.pid,
        instance.version,
        instance.endpoint,
        place.root,
        place.log,
        instance.started_at,
        answer + _drift(settings, instance),
        place.passwords,
        instance.health_port,
    )


def endpoint_of(settings: Settings) -> Endpoint:
    """Return where the server answers and how to log in, without asking it.

    Raises
    ------
    QuestDBUnavailable
        If the embedded server does not run, with the command that starts it.
    """
    if not settings.is_embedded:
        return _external(settings)
    running = _running(ServerLocation.of(settings))
    if running is None:
        ended = status(settings).state == "stale"
        reason = f"the embedded server {'ended without: fxlab down' if ended else 'does not run'}"
        raise QuestDBUnavailable.at(server_config.LOOPBACK, settings.questdb_http_port, reason)
    return running.endpoint


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


def _running(place: ServerLocation) -> Instance | None:
    instance = Instance.load(place.instance)
    return instance if instance and instance.process(place.root) else None


def _drift(settings: Settings, instance: Instance) -> str:
    """Return a hint when the running server is not the one that the settings ask for."""
    found = instance.endpoint
    pairs = {
        "questdb_http_port": found.http_port,
        "questdb_pg_port": found.pg_port,
        "questdb_version": instance.version,
    }
    # Ports that are not set are the server's own choice.
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
def alone(place: ServerLocation, progress: Advance) -> Iterator[None]:
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


def _start(settings: Settings, place: ServerLocation, progress: Advance) -> None:
    server_config.check_memory(settings)
    server_config.check_ports(settings)
    java = runtime.resolve(settings, part(progress, 0.0, _FETCH_SHARE))
    for last_try in (False, False, True):
        ports = server_config.check_ports(settings)
        try:
            _start_at(ports, java, settings, place, part(progress, _FETCH_SHARE, 1.0))
        except ServerStartFailed as error:
            # Another program, or another home's server, was quicker to take a port.
            if last_try or "could not bind" not in str(error):
                raise
        else:
            return


def _start_at(
    ports: Ports,
    java: runtime.Runtime,
    settings: Settings,
    place: ServerLocation,
    progress: Advance,
) -> None:
    passwords = load_passwords(place.passwords)
    config = server_config.render(ports, passwords, secrets.token_urlsafe(24))
    write_private(place.config / "server.conf", config)
    write_private(place.config / "log.conf", server_config.LOG_CONFIG)
    started = spawn(java, settings.questdb_memory.strip(), place)
    found = Endpoint(
        host=server_config.LOOPBACK,
        http_port=ports.http,
        pg_port=ports.pg,
        user=server_config.USER,
        password=passwords.http,
        pg_user=server_config.PG_USER,
        pg_password=passwords.pg,
    )
    now = datetime.now(UTC)
    born = started.create_time()
    instance = Instance(started.pid, born, java.version, now, found, ports.health)
    try:
        instance.save(place.instance)
        await_answer(instance, place, settings.start_timeout, progress)
    except BaseException:  # also Ctrl-C and Cancelled: leave no server behind
        stop(instance, place, STOP_PATIENCE, silent)
        place.instance.unlink(missing_ok=True)
        raise


_USUAL_START: Final = 4.0  # seconds; only how fast the bar moves


def spawn(runtime: Runtime, memory: str, place: ServerLocation) -> psutil.Process:
    """Start a server that outlives this process, printing to its log.

    Raises
    ------
    ServerStartFailed
        If Java cannot be run at all.
    """
    place.log.parent.mkdir(mode=0o700, exist_ok=True)
    if place.log.exists():
        place.log.replace(place.log.with_name("server.previous.log"))
    command = [
        str(runtime.java),
        f"-Xmx{memory}",
        "--enable-native-access=io.questdb",
        "--sun-misc-unsafe-memory-access=allow",
        *("-p", str(runtime.jar), "-m", "io.questdb/io.questdb.ServerMain", "-d", str(place.root)),
    ]
    try:
        with place.log.open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - every word is ours or a checked setting
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=place.log.parent,  # a crash report of Java lands beside the log
                env=_environment(),
                start_new_session=True,
            )
    except OSError as error:
        raise ServerStartFailed(
            f"{runtime.java} could not be run ({error}); if its folder forbids programs, install "
            "fxlab elsewhere"
        ) from error
    server = psutil.Process(process.pid)  # before anybody can collect its end
    # Its end is collected as soon as it comes, so that it does not linger as a zombie.
    threading.Thread(target=process.wait, name="fxlab-server-reaper", daemon=True).start()
    return server


def _environment() -> dict[str, str]:
    """Return the variables for the server.

    QDB_* would beat the configuration file, its addresses included; and without a UTF-8 locale
    Java cannot find a jar below a folder such as /home/zoë.
    """
    kept = {name: text for name, text in os.environ.items() if not name.startswith("QDB_")}
    return kept | {"LC_ALL": "C.UTF-8"}


def await_answer(
    instance: Instance, place: ServerLocation, timeout: float, progress: Advance
) -> None:
    """Wait until a query over HTTP is answered.

    Raises
    ------
    ServerStartFailed
        If the server ends or the time (seconds) is over, with its last words.
    """
    began = time.monotonic()
    while reason := endpoint.refusal(instance.endpoint):
        waited = time.monotonic() - began
        if instance.process(place.root) is None:
            raise ServerStartFailed(
                f"the server ended while it was starting: {endpoint.last_words(place.log)}; "
                f"its log is {place.log}"
            )
        if waited > timeout:
            raise ServerStartFailed(
                f"the server (pid {instance.pid}) did not answer within {timeout:g} s ({reason}): "
                f"{endpoint.last_words(place.log)}; its log is {place.log}; give it more time with "
                "FXLAB_START_TIMEOUT, or stop it with: fxlab down"
            )
        progress(waited / (waited + _USUAL_START), f"starting QuestDB {instance.version}")
        time.sleep(0.05)
    progress(1.0, f"QuestDB {instance.version} is ready")


def stop(instance: Instance, place: ServerLocation, patience: float, progress: Advance) -> bool:
    """Stop a server; return False if it had to be killed."""
    process = instance.process(place.root)
    if process is None:
        return True
    with contextlib.suppress(psutil.NoSuchProcess):
        process.terminate()
    began = time.monotonic()
    while instance.process(place.root) and (waited := time.monotonic() - began) < patience:
        progress(waited / patience, "the server writes its data and stops")
        time.sleep(0.05)
    if instance.process(place.root) is None:
        return True
    with contextlib.suppress(psutil.Error):
        process.kill()
        process.wait(timeout=10)
    return False
