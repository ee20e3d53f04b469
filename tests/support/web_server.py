"""Starts a Jupyter Server of its own that serves fxlab's web surface, and asks it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
TOKEN = "of-the-tests"  # noqa: S105 - opens a server that lives as long as a test
WAIT = 180.0
"""Seconds until a test gives up: generous, because nothing waits longer than it must."""


class WebServer:
    """A running server, and a client that has its token."""

    def __init__(self, process: subprocess.Popen[bytes], address: str, log: Path) -> None:
        self.process, self.address, self.log = process, address, log
        self.url = f"http://{address}/fxlab/api"
        headers = {"Authorization": f"token {TOKEN}"}
        self.client = httpx.Client(base_url=self.url, headers=headers, timeout=WAIT)

    def until(self, execution_id: str, *states: str) -> dict:
        """Return an execution when it is in one of some states."""
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline:
            found = self.client.get(f"/executions/{execution_id}").json()
            if found["state"] in states:
                return found
            time.sleep(0.05)
        raise AssertionError(found)

    def stop(self) -> int:
        """End it as a service manager would, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT)


@contextlib.contextmanager
def web_server(folder: Path, port: int, **variables: str):
    """Serve with the settings of the environment, and the extension on as an install has it."""
    shutil.copytree(ROOT / "jupyter", folder / "config")
    places = {f"JUPYTER_{n.upper()}_DIR": str(folder / n) for n in ("config", "data", "runtime")}
    (folder / "root").mkdir()
    command = (
        *(sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root"),
        *("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"),
        *(f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder / 'root'}"),
    )
    log = folder / "server.log"
    environment = {**os.environ, **places, "PYTHONPATH": str(ROOT), **variables}
    with log.open("wb") as sink:
        process = subprocess.Popen(command, env=environment, stdout=sink, stderr=sink)
    server = WebServer(process, f"127.0.0.1:{port}", log)
    try:
        _wait_until_up(server)
        yield server
    finally:
        server.client.close()
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_up(server: WebServer) -> None:
    deadline = time.monotonic() + WAIT
    while True:
        try:
            httpx.get(f"http://{server.address}/api", timeout=5).raise_for_status()
        except httpx.HTTPError:
            assert server.process.poll() is None, server.log.read_text()[-3_000:]
            assert time.monotonic() < deadline, server.log.read_text()[-3_000:]
            time.sleep(0.1)
        else:
            return
