"""The server as a process: started on its own, waited for, and stopped with patience."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from typing import Final

import psutil

from fxlab.errors import ServerStartFailed
from fxlab.progress import Advance
from fxlab.questdb import probe
from fxlab.questdb.instance import Instance, Place
from fxlab.questdb.runtime import Runtime

_USUAL_START: Final = 4.0  # seconds; only how fast the bar moves


def spawn(runtime: Runtime, memory: str, place: Place) -> psutil.Process:
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
        process = _popen(command, place)
    except OSError as error:
        raise ServerStartFailed(
            f"{runtime.java} could not be run ({error}); if its folder forbids programs, install "
            "fxlab elsewhere"
        ) from error
    server = psutil.Process(process.pid)  # before anybody can collect its end
    # Its end is collected as soon as it comes, so that it does not linger as a zombie.
    threading.Thread(target=process.wait, name="fxlab-server-reaper", daemon=True).start()
    return server


def _popen(command: list[str], place: Place) -> subprocess.Popen[bytes]:
    with place.log.open("wb") as log:
        return subprocess.Popen(  # noqa: S603 - every word is ours or a checked setting
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=place.log.parent,  # a crash report of Java lands beside the log
            env=_environment(),
            start_new_session=True,
        )


def _environment() -> dict[str, str]:
    """Return the variables for the server.

    QDB_* would beat the configuration file, its addresses included; and without a UTF-8 locale
    Java cannot find a jar below a folder such as /home/zoë.
    """
    kept = {name: text for name, text in os.environ.items() if not name.startswith("QDB_")}
    return kept | {"LC_ALL": "C.UTF-8"}


def await_answer(instance: Instance, place: Place, timeout: float, progress: Advance) -> None:
    """Wait until a query over HTTP is answered.

    Raises
    ------
    ServerStartFailed
        If the server ends or the time (seconds) is over, with its last words.
    """
    began = time.monotonic()
    while reason := probe.refusal(instance.endpoint):
        waited = time.monotonic() - began
        if instance.process(place.root) is None:
            raise ServerStartFailed(
                f"the server ended while it was starting: {probe.last_words(place.log)}; "
                f"its log is {place.log}"
            )
        if waited > timeout:
            raise ServerStartFailed(
                f"the server (pid {instance.pid}) did not answer within {timeout:g} s ({reason}): "
                f"{probe.last_words(place.log)}; its log is {place.log}; give it more time with "
                "FXLAB_START_TIMEOUT, or stop it with: fxlab down"
            )
        progress(waited / (waited + _USUAL_START), f"starting QuestDB {instance.version}")
        time.sleep(0.05)
    progress(1.0, f"QuestDB {instance.version} is ready")


def stop(instance: Instance, place: Place, patience: float, progress: Advance) -> bool:
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
