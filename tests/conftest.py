"""One real embedded server for the whole run, found by every test as a user would find it."""

from __future__ import annotations

import fcntl
import gc
import os
import random
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from lab_browser import SCREENSHOTS, jupyter_lab, need_chromium

from fxlab._questdb import server as embedded
from fxlab._questdb import server_config
from fxlab.config import Settings

if TYPE_CHECKING:
    from fxlab._questdb.client import QuestDB
    from fxlab.lab import Lab

# A shell that started pytest in the background had it ignore Ctrl-C, and processes inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# CI tries the same examples each time, so that it speaks about the change; a developer's run
# tries new ones. No test fails because the machine is busy.
hypothesis.settings.register_profile("new", deadline=None)
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") == "true" else "new")


@pytest.fixture(autouse=True)
def no_old_bans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget who refused: a later test's venue may be given the port of one that did."""
    rest = sys.modules.get("fxlab.collect.venues._rest")
    if rest is not None:
        monkeypatch.setattr(rest, "_GATES", {})


def pytest_collection_finish() -> None:
    """Keep the garbage collector off what stays to the end: all tests and their modules."""
    gc.collect()
    gc.freeze()


SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
BELOW_EPHEMERAL = range(10_000, 32_000)
"""Ports that no outgoing connection takes between our look and the server's start."""


def pick_ports(count: int) -> list[int]:
    """Return distinct free ports that no other process of tests is given before this one ends.

    A port that is free now may be picked by a neighbour before a server listens on it. So every
    port has a file that is locked for as long as this process lives, however it ends.
    """
    folder = Path(tempfile.gettempdir()) / f"fxlab-test-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    found: list[int] = []
    for port in random.SystemRandom().sample(BELOW_EPHEMERAL, 500):
        if len(found) == count:
            break
        file = os.open(folder / str(port), os.O_RDWR | os.O_CREAT, 0o600)  # open until the end
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # somebody's, or ours already
            os.close(file)
            continue
        if server_config.is_free(port):
            found.append(port)
    assert len(found) == count, f"only {len(found)} of {count} ports are free"
    return found


def settings_at(home: Path) -> Settings:
    """Return the settings of a server that only some tests use: its own home and ports."""
    http, pg, health = pick_ports(3)
    return Settings.load(
        home=home,
        questdb_http_port=http,
        questdb_pg_port=pg,
        questdb_health_port=health,
        questdb_memory="512m",
    )


@pytest.fixture
def free_ports() -> Callable[[int], list[int]]:
    return pick_ports


@pytest.fixture(scope="session")
def server_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Choose this run's server, in the environment too, so that subprocesses find it."""
    http, pg, health = pick_ports(3)
    variables = {
        "FXLAB_HOME": str(tmp_path_factory.mktemp("home")),
        "FXLAB_QUESTDB_HTTP_PORT": str(http),
        "FXLAB_QUESTDB_PG_PORT": str(pg),
        "FXLAB_QUESTDB_HEALTH_PORT": str(health),
        "FXLAB_QUESTDB_MEMORY": "512m",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("FXLAB_")]:
            patch.delenv(name)
        for name, text in variables.items():
            patch.setenv(name, text)
        yield Settings.load()


@pytest.fixture(scope="session")
def server(server_settings: Settings) -> Iterator[embedded.ServerStatus]:
    """Start the run's server, and stop it at the end."""
    yield embedded.up(server_settings)
    embedded.down(server_settings)


@pytest.fixture(scope="session")
def lab(server: embedded.ServerStatus) -> Iterator[Lab]:
    """Connect to the run's server."""
    from fxlab.lab import connect

    with connect() as connected:
        yield connected


@pytest.fixture
def jupyter(server: embedded.ServerStatus, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Serve an empty folder by a JupyterLab whose kernels find the run's server."""
    need_chromium()
    root, home = tmp_path / "root", tmp_path / "home"
    root.mkdir()
    with jupyter_lab(root, home, pick_ports(1)[0]) as url:
        yield url, root


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Return where screenshots go: to FXLAB_SCREENSHOTS, if somebody wants to look at them."""
    folder = Path(SCREENSHOTS) if SCREENSHOTS else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real recordings beside the repository."""
    if not SHARED_DATA.is_dir():
        reason = f"the real recordings are not at {SHARED_DATA}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return SHARED_DATA


@pytest.fixture(scope="session")
def unique() -> Callable[..., str]:
    """Return a maker of ids that no other test uses."""

    def make(prefix: str = "test") -> str:
        return f"{prefix}_{uuid.uuid4().hex[:12]}"

    return make


@pytest.fixture(scope="session")
def db(lab: Lab) -> QuestDB:
    """Return the client underneath the lab."""
    return lab._db
