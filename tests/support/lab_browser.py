"""Starts a JupyterLab of its own and opens its notebooks in Chromium, as a person would."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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

PANELS = {
    "session picker": "SessionPicker(lab, session_id={session!r})",
    "workbench": "Workbench(lab, session_id={session!r})",
    "replay": "ReplayPanel(lab, session_id={session!r})",
    "live monitor": "LiveMonitor(lab, duration='soon')",
    "sweep": "SweepPanel(lab, session_id={session!r})",
    "runs browser": "RunsBrowser(lab)",
    "quality": "QualityPanel(lab, session_id={session!r})",
}
"""What makes each panel; that duration is wrong, so that Start records nothing."""

ACTS = {
    "session picker": ("Delete…", "Space", "Delete it"),
    "workbench": ("Run", "Enter", "20,000 ticks in"),
    "replay": ("Play", "Enter", "Pause"),
    "live monitor": ("Start", "Space", "soon"),
    "sweep": ("Run", "Enter", "The best points"),
    "runs browser": ("sweeps", "Space", "sweep"),
    "quality": ("Run", "Enter", "20,000 ticks in"),
}
"""By panel: a button, the key that presses it, and what is read then."""

FAULTS = """
(panel) => {
  const all = [...panel.querySelectorAll("*")].filter((e) => e.offsetParent && !e.closest("svg"));
  const edge = panel.getBoundingClientRect().right + 1;
  const wide = all.filter((e) => !e.closest("option, pre, .fxlab-moving, .fxlab-scrolled")
    && e.getBoundingClientRect().right > edge);
  const cut = all.filter((e) => e.matches("select:not([size]), .widget-label, button")
    && e.scrollWidth > e.clientWidth + 1);
  const inputs = "input, select, textarea, button, [role=slider], [contenteditable=true]";
  const unnamed = [...panel.querySelectorAll(inputs)]
    .filter((e) => !e.ariaLabel && !e.labels?.length && !e.textContent.trim());
  const numbers = (colour) => [...colour.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
  const light = (colour) => colour.slice(0, 3)
    .map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0.05);
  const ground = (e) => {
    for (let at = e; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour[3] > 0.99) return colour;
    }
    return [255, 255, 255, 1];
  };
  const contrast = (e) => {
    const [back, ink] = [ground(e), numbers(getComputedStyle(e).color)];
    const seen = [0, 1, 2].map((i) => ink[i] * ink[3] + back[i] * (1 - ink[3]));
    const [a, b] = [light(seen), light(back)];
    return Math.max(a, b) / Math.min(a, b);
  };
  const written = all.filter((e) => !e.closest(":disabled, style") && (e.tagName === "INPUT"
    || [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())));
  const pale = written.filter((e) => contrast(e) < 4.5);
  const words = (list) => list.map((e) => e.outerHTML.slice(0, 160));
  return { wide: words(wide), cut: words(cut), unnamed: words(unnamed), pale: words(pale),
    written: written.length };
}
"""
"""What an eye would find fault with in a panel: texts cut, too wide, unnamed, or too pale."""


GIVE_UP = """
const wait = AbortSignal.timeout.bind(AbortSignal);
AbortSignal.timeout = (span) => wait(span === 2_000 && !window.isCalm ? 0 : span);
"""
"""Lets anywidget give up at once, as on a page that is busy for two seconds, until it is calm."""

GROWS = """
(panel) => {
  const graph = panel.querySelector(".js-plotly-plot");
  const points = graph?.calcdata?.[0]?.length ?? 0;
  if (graph && !graph.first) graph.first = points;
  return graph && points > graph.first + 2;
}
"""
"""Whether the line of a chart has grown in place: a chart that is made anew begins again."""


def need_chromium() -> str:
    """Return the browser's path; without one, fail in CI and skip elsewhere."""
    if CHROMIUM and Path(CHROMIUM).is_file():
        return CHROMIUM
    reason = "no Chromium found; install it or set FXLAB_CHROMIUM"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def jupyter_lab(root: Path, home: Path, port: int, theme: str = "Light") -> Iterator[str]:
    """Serve a folder with fresh settings, and stop the server with all its kernels."""
    _hush(home, theme)
    command = (
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        *("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"),
        *("--IdentityProvider.token=", "--ServerApp.password=", f"--ServerApp.root_dir={root}"),
    )
    with _served(command, home, f"http://127.0.0.1:{port}", "/api/status") as url:
        yield url


@contextmanager
def voila(notebook: Path, home: Path, port: int) -> Iterator[str]:
    """Serve a notebook as a page without its code, and stop the server with its kernel."""
    home.mkdir()
    command = (
        *(sys.executable, "-m", "voila", str(notebook), "--no-browser"),
        *("--Voila.ip=127.0.0.1", f"--port={port}", "--Voila.port_retries=0"),
    )
    with _served(command, home, f"http://127.0.0.1:{port}", "/voila/files/none") as url:
        yield url


@contextmanager
def _served(command: tuple[str, ...], home: Path, url: str, ready: str) -> Iterator[str]:
    log = home / "server.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, env=_environment(home), stdout=sink, stderr=sink, start_new_session=True
        )
    try:
        _wait_until_up(f"{url}{ready}", process, log)
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


def _hush(home: Path, theme: str) -> None:
    """Turn off the news: the question would cover buttons and ask the network."""
    folder = home / "settings" / "@jupyterlab" / "apputils-extension"
    folder.mkdir(parents=True)
    text = '{"fetchNews": "false", "checkForUpdates": false, "doNotDisturbMode": true}'
    (folder / "notification.jupyterlab-settings").write_text(text)
    (folder / "themes.jupyterlab-settings").write_text(f'{{"theme": "JupyterLab {theme}"}}')


def _wait_until_up(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 180
    while True:
        try:
            urllib.request.urlopen(address, timeout=1).close()  # noqa: S310 - our own
        except urllib.error.HTTPError:  # an answer, too
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the server did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.1)
        else:
            return


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server's whole process group; kernels end by themselves where it is gone.

    Asked to end, a server waits for one kernel after the other: a minute where there are a dozen.
    """
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(10)
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
        page.on("pageerror", lambda error: errors.append(f"{error!r} {error.stack}"))
        try:
            yield page
        except Exception as error:
            with suppress(Exception):  # the page may be gone
                panels = page.locator(".fxlab-panel").all_inner_texts()
                error.add_note("\n".join(["the panels, as they are seen:", *panels, *errors]))
            raise
        browser.close()
    # A page that was busy for two seconds while a widget was made: told by anywidget, and no harm,
    # for then figures are sent as outputs (`fxlab.widgets._figures`).
    errors = [error for error in errors if "[anywidget] Failed to initialize model" not in error]
    if errors:  # pytest explains no assert of a helper, so the errors are told here
        pytest.fail("a script on the page raised\n" + "\n".join(errors))


def write_notebook(path: Path, *sources: str) -> None:
    """Write a notebook of code cells."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, path)


def write_panels(path: Path, session: str) -> None:
    """Write a notebook that shows every panel, a cell each."""
    setup = "import fxlab\nfrom fxlab import widgets\n\nlab = fxlab.connect()"
    write_notebook(
        path, setup, *(f"widgets.{made.format(session=session)}" for made in PANELS.values())
    )


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


def reload_page(page: object) -> None:
    """Save the notebook and load its page again: the kernel goes on, the browser begins anew."""
    from playwright.sync_api import expect

    page.locator('.jp-NotebookPanel [data-command="docmanager:save"]').first.click()
    saved = page.locator("#jp-main-statusbar").get_by_text("Saving completed")
    expect(saved).to_be_visible(timeout=WAIT)
    page.reload(wait_until="domcontentloaded")
    expect(page.locator("#jp-main-statusbar").get_by_text("| Idle")).to_be_visible(timeout=WAIT)
