"""Starts a JupyterLab of its own and opens its notebooks in Chromium, as a person would."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest

# Read when tests are collected: the server's fixture clears FXLAB_* from the environment.
CHROMIUM = os.environ.get("FXLAB_CHROMIUM") or shutil.which("chromium")
SCREENSHOTS = os.environ.get("FXLAB_SCREENSHOTS")

PROJECT = Path(__file__).parents[2]
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # containers have no user namespaces
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
)
WAIT = 120_000
"""Milliseconds until a test gives up: generous, because nothing waits longer than it must."""


def need_chromium() -> str:
    """Return the browser's path; without one, fail in CI and skip elsewhere."""
    if CHROMIUM and Path(CHROMIUM).is_file():
        return CHROMIUM
    reason = "no Chromium found; install it or set FXLAB_CHROMIUM"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def jupyter_lab(root: Path, home: Path, port: int) -> Iterator[str]:
    """Serve a folder with fresh settings, and stop the server with all its kernels."""
    _hush(home)
    command = (
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        *("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"),
        *("--IdentityProvider.token=", "--ServerApp.password=", f"--ServerApp.root_dir={root}"),
    )
    log = home / "lab.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, env=_environment(home), stdout=sink, stderr=sink, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_up(url, process, log)
        yield url
    finally:
        _stop(process)


def _environment(home: Path) -> dict[str, str]:
    places = ("CONFIG", "DATA", "RUNTIME")
    return {
        **os.environ,
        **{f"JUPYTER_{place}_DIR": str(home / place.lower()) for place in places},
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
        "PYTHONPATH": str(PROJECT),
    }


def _hush(home: Path) -> None:
    """Turn off the news: the question would cover buttons and ask the network."""
    folder = home / "settings" / "@jupyterlab" / "apputils-extension"
    folder.mkdir(parents=True)
    text = '{"fetchNews": "false", "checkForUpdates": false, "doNotDisturbMode": true}'
    (folder / "notification.jupyterlab-settings").write_text(text)


def _wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 180
    while True:
        try:
            urllib.request.urlopen(f"{url}/api/status", timeout=1).close()  # noqa: S310 - our own
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.1)
        else:
            return


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server's whole process group: kernels must not outlive it."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(60)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
    process.wait(60)


@contextmanager
def browser_page(*, height: int, scheme: str = "light") -> Iterator[object]:
    """Open a page; the test fails if a script on it raised an error.

    The window is tall, because JupyterLab does not draw the cells that are off screen.
    """
    from playwright.sync_api import sync_playwright

    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=need_chromium(), args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1280, "height": height}, color_scheme=scheme)
        page.set_default_timeout(WAIT)
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
        browser.close()
    assert errors == []


def write_notebook(path: Path, *sources: str) -> None:
    """Write a notebook of code cells."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, path)


def open_and_run(page: object, url: str, name: str) -> object:
    """Open a notebook, run all its cells, and return its panel once the kernel is idle again."""
    from playwright.sync_api import expect

    page.goto(f"{url}/doc/tree/{name}?reset", wait_until="domcontentloaded")
    # The toolbar's dot says "idle" before there is a kernel; the status bar tells the truth.
    idle = page.locator("#jp-main-statusbar").get_by_text("| Idle")
    expect(idle).to_be_visible(timeout=WAIT)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator('.lm-Menu-item[data-command="runmenu:run-all"]').click()
    return page.locator(".jp-NotebookPanel")
