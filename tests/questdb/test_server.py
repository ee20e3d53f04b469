"""The embedded server as its users and its neighbours on the machine meet it."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from conftest import settings_at
from filelock import FileLock
from typer.testing import CliRunner

from fxlab._cli import app
from fxlab._questdb import endpoint, runtime
from fxlab._questdb import server as embedded
from fxlab._questdb.client import QuestDB
from fxlab._questdb.server import ServerStatus
from fxlab._questdb.server_config import Instance, ServerLocation
from fxlab.config import Settings
from fxlab.errors import (
    Cancelled,
    JarVerificationFailed,
    PortTaken,
    QueryFailed,
    QuestDBLoginFailed,
    QuestDBUnavailable,
    ServerStartFailed,
)

FreePorts = Callable[[int], list[int]]


@pytest.fixture
def own(tmp_path: Path, server_settings: Settings, free_ports: FreePorts) -> Iterator[Settings]:
    """Choose a server that this test may break; it is stopped at the end."""
    settings = settings_at(tmp_path / "a home with spaces")
    yield settings
    embedded.down(settings)


def get(found: ServerStatus, query: str, **options) -> httpx.Response:
    assert found.endpoint is not None
    address = f"{found.endpoint.http_url}/exec"
    return httpx.get(address, params={"query": query}, trust_env=False, **options)


def processes_of(settings: Settings) -> list[psutil.Process]:
    root = str(ServerLocation.of(settings).root)
    found = psutil.process_iter(["cmdline"])
    return [one for one in found if root in (one.info["cmdline"] or [])]


def listeners(found: ServerStatus) -> list:
    """Return the addresses where a server takes connections or datagrams."""
    sockets = psutil.Process(found.pid).net_connections(kind="inet")
    return [
        one.laddr
        for one in sockets
        if one.status == psutil.CONN_LISTEN or one.type == socket.SOCK_DGRAM
    ]


def fxlab_up(settings: Settings, **more: str) -> subprocess.Popen[str]:
    """Start the command line's `up` for some settings."""
    values = {name: getattr(settings, name) for name in settings.sources}
    given = {f"FXLAB_{name.upper()}": str(text) for name, text in values.items() if text}
    return subprocess.Popen(
        [sys.executable, "-m", "fxlab", "up"],
        env={**os.environ, **given, **more},
        stdout=subprocess.PIPE,
        text=True,
    )


def eventually(holds: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Return whether something comes true: signals take their time."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


# ---- one server for everybody ----------------------------------------------------------------


def test_up_again_finds_the_running_server(server: ServerStatus, server_settings: Settings):
    heard: list[tuple[float, str]] = []
    again = embedded.up(server_settings, lambda share, text: heard.append((share, text)))
    assert (again.state, again.pid, again.endpoint) == ("running", server.pid, server.endpoint)
    assert heard == [(1.0, "QuestDB 9.3.4 is ready")]


def test_status_tells_what_runs(server: ServerStatus, server_settings: Settings):
    found = embedded.status(server_settings)
    assert found == server
    assert (found.version, found.message) == ("9.3.4", "it answers")
    assert found.root == server_settings.home / "questdb"
    assert found.log.is_file()


def test_another_process_finds_the_server_by_the_instance_file_alone(server: ServerStatus):
    script = (
        "from fxlab import config; from fxlab._questdb import server; "
        "e = server.endpoint_of(config.Settings.load()); print(e.http_port, e.pg_port)"
    )
    other = {**os.environ, "FXLAB_QUESTDB_HTTP_PORT": "1", "FXLAB_QUESTDB_PG_PORT": "2"}
    answer = subprocess.run(
        [sys.executable, "-c", script], env=other, capture_output=True, text=True, check=True
    )
    assert server.endpoint is not None
    assert answer.stdout.split() == [str(server.endpoint.http_port), str(server.endpoint.pg_port)]


def test_status_says_when_the_settings_have_moved_on(
    server: ServerStatus, server_settings: Settings
):
    moved = embedded.status(server_settings.replace(questdb_http_port=1))
    assert moved.pid == server.pid
    assert "fxlab down and fxlab up" in moved.message


# ---- nobody else gets in ---------------------------------------------------------------------


def test_every_listener_is_on_loopback(server: ServerStatus):
    found = listeners(server)
    assert len(found) == 3
    assert {address.ip for address in found} == {"127.0.0.1"}


def test_a_web_page_without_the_login_gets_nothing(server: ServerStatus):
    page = {"Origin": "http://evil.example", "Host": "evil.example"}
    assert get(server, "drop table tick_prices", headers=page).status_code == 401
    assert server.endpoint is not None
    base = server.endpoint.http_url
    for path in ("/exec?query=select%201", "/exp?query=select%201", "/imp", "/write", "/settings"):
        assert httpx.post(base + path, headers=page, trust_env=False).status_code == 401, path


@pytest.mark.parametrize("login", [None, ("admin", "quest"), ("fxlab", ""), ("reader", "quest")])
def test_default_and_empty_logins_are_refused_over_http(server: ServerStatus, login):
    assert get(server, "select 1", auth=login).status_code == 401


@pytest.mark.parametrize("login", [("admin", "quest"), ("user", "quest"), ("fxlab", "")])
def test_default_and_empty_logins_are_refused_over_pg(server: ServerStatus, login):
    assert server.endpoint is not None
    user, password = login
    wrong = dataclasses.replace(server.endpoint, pg_user=user, pg_password=password)
    with pytest.raises(QuestDBLoginFailed):
        endpoint.check_pg_login(wrong)


def test_the_http_login_does_not_open_pg(server: ServerStatus):
    assert server.endpoint is not None
    same = dataclasses.replace(
        server.endpoint, pg_user=server.endpoint.user, pg_password=server.endpoint.password
    )
    with pytest.raises(QuestDBLoginFailed):
        endpoint.check_pg_login(same)


def test_pg_can_read_and_not_write(server: ServerStatus, unique: Callable[..., str]):
    assert server.endpoint is not None
    table = unique("pg")
    database = QuestDB(server.endpoint)
    try:
        assert database.catalogue("select 1 as one")["one"].to_list() == [1]
        with pytest.raises(QueryFailed, match=r"(?i)permission|denied|read.?only"):
            database.catalogue(f"create table {table} (a int)")
        assert [table] not in database.execute("select table_name from tables()")
    finally:
        database.close()


def test_only_the_owner_can_open_the_files(server: ServerStatus):
    folders = (server.root.parent, server.root, server.root / "conf", server.log.parent)
    if os.name == "posix":
        assert [stat.S_IMODE(path.stat().st_mode) for path in folders[1:]] == [0o700] * 3
    secret = ("conf/server.conf", "instance.json", "passwords.json")
    assert [stat.S_IMODE((server.root / name).stat().st_mode) for name in secret] == [0o600] * 3


def test_no_password_is_in_a_log_or_a_command_line(server: ServerStatus):
    passwords = json.loads((server.root / "passwords.json").read_text()).values()
    get(server, "select 1")
    shown = [" ".join(psutil.Process(server.pid).cmdline())]
    shown += [path.read_text(errors="replace") for path in server.log.parent.iterdir()]
    assert len(shown) >= 3
    assert not any(password in text for password in passwords for text in shown)


def test_a_misspelled_table_is_an_error_not_a_new_table(
    server: ServerStatus, unique: Callable[..., str]
):
    assert server.endpoint is not None
    table = unique("ilp")
    answer = httpx.post(
        f"{server.endpoint.http_url}/write",
        content=f"{table} price=1.0 1700000000000000000\n",
        auth=server.endpoint.http_auth,
        trust_env=False,
    )
    assert answer.status_code == 400
    assert get(server, f"show columns from {table}", auth=server.endpoint.http_auth).is_error


# ---- what stands in the way ------------------------------------------------------------------


def test_without_a_server_the_command_is_told(own: Settings):
    assert embedded.status(own).state == "stopped"
    with pytest.raises(QuestDBUnavailable, match="run: fxlab up"):
        embedded.endpoint_of(own)
    assert embedded.down(own) is False


def test_a_taken_port_is_told_before_anything_is_written(own: Settings):
    with socket.socket() as other:
        other.bind(("127.0.0.1", own.questdb_pg_port))
        other.listen()
        with pytest.raises(PortTaken, match="FXLAB_QUESTDB_PG_PORT"):
            embedded.up(own)
    assert embedded.status(own).state == "stopped"
    assert not (ServerLocation.of(own).config / "server.conf").exists()


def test_a_start_out_of_time_names_the_setting_and_leaves_no_process(own: Settings):
    with pytest.raises(ServerStartFailed, match=r"within 0\.01 s.*FXLAB_START_TIMEOUT") as caught:
        embedded.up(own.replace(start_timeout=0.01))
    assert str(ServerLocation.of(own).log) in str(caught.value)
    assert embedded.status(own).state == "stopped"
    assert processes_of(own) == []


def test_a_cancelled_start_leaves_no_process(own: Settings):
    def cancel(_: float, text: str) -> None:
        if text.startswith("starting"):
            raise Cancelled(text)

    with pytest.raises(Cancelled):
        embedded.up(own, cancel)
    assert embedded.status(own).state == "stopped"
    assert processes_of(own) == []


def test_a_server_that_dies_is_quoted(own: Settings):
    place = ServerLocation.of(own)
    place.root.mkdir(parents=True)
    (place.root / "db").write_text("a file stands where the tables should")
    with pytest.raises(ServerStartFailed, match="ended while it was starting") as caught:
        embedded.up(own)
    assert str(place.log) in str(caught.value)
    assert str(place.root / "db") in str(caught.value)
    assert not place.instance.exists()


def test_java_that_cannot_be_run_is_an_error_of_fxlab(
    own: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    broken = tmp_path / "java"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o700)
    monkeypatch.setattr(runtime, "java", lambda: broken)
    with pytest.raises(ServerStartFailed, match="could not be run"):
        embedded.up(own)
    assert embedded.status(own).state == "stopped"


def test_an_external_server_is_used_and_never_started(own: Settings):
    settings = own.replace(
        questdb_host="db.invalid",
        questdb_user="me",
        questdb_password="mine",  # noqa: S106 - no secret
        questdb_pg_password="too",  # noqa: S106 - no secret
    )
    found = embedded.up(settings)
    assert (found.state, found.pid) == ("external", None)
    assert "does not answer" in found.message
    assert found.endpoint == embedded.endpoint_of(settings)
    assert found.endpoint.http_auth == ("me", "mine")
    assert found.endpoint.pg_url == f"postgresql://reader:too@db.invalid:{own.questdb_pg_port}/qdb"
    assert embedded.down(settings) is False
    assert not ServerLocation.of(settings).root.exists()


# ---- faults ----------------------------------------------------------------------------------


@pytest.mark.faults
def test_one_flipped_byte_in_the_jar_starts_nothing(
    own: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    content = bytearray(runtime.resolve(own).jar.read_bytes())
    content[len(content) // 2] ^= 1
    monkeypatch.setenv("M2_REPO", str(tmp_path / "m2"))
    jar = runtime.jar_path(own.questdb_version)
    jar.parent.mkdir(parents=True)
    jar.write_bytes(content)
    with pytest.raises(JarVerificationFailed, match=str(jar)):
        embedded.up(own)
    assert embedded.status(own).state == "stopped"
    assert processes_of(own) == []


@pytest.mark.faults
def test_a_server_s_life_two_starters_a_kill_a_hang(own: Settings, monkeypatch: pytest.MonkeyPatch):
    """One story, because each start takes seconds."""
    # A command line and a notebook at the same time start one server, after whoever came first,
    # and no stray variable opens it.
    place = ServerLocation.of(own)
    place.root.mkdir(parents=True)
    waits = threading.Event()

    def hear(_: float, text: str) -> None:
        if "waiting for another fxlab" in text:
            waits.set()

    with ThreadPoolExecutor(1) as notebook:
        with FileLock(place.lock):
            command_line = fxlab_up(
                own, LC_ALL="C", QDB_PG_NET_BIND_TO=f"0.0.0.0:{own.questdb_pg_port}"
            )
            started = notebook.submit(embedded.up, own, hear)
            assert waits.wait(120)
            assert processes_of(own) == []
        said, _ = command_line.communicate(timeout=90)
        assert started.result(90).state == "running"
    assert command_line.returncode == 0
    first = embedded.status(own)
    assert first.state == "running"
    assert started.result().pid == first.pid
    assert str(first.pid) in said
    assert [one.pid for one in processes_of(own)] == [first.pid]
    assert {address.ip for address in listeners(first)} == {"127.0.0.1"}

    # A row that was acknowledged outlives kill -9.
    auth = embedded.endpoint_of(own).http_auth
    for statement in (
        "create table kept (a int, t timestamp) timestamp(t) partition by day wal",
        "insert into kept values (42, 0)",
    ):
        assert get(first, statement, auth=auth).status_code == 200
    assert first.pid is not None
    victim = psutil.Process(first.pid)
    os.kill(first.pid, signal.SIGKILL)
    psutil.wait_procs([victim], timeout=120)
    stale = embedded.status(own)
    assert (stale.state, stale.endpoint) == ("stale", None)
    assert "fxlab up" in stale.message
    with pytest.raises(QuestDBUnavailable):
        embedded.endpoint_of(own)
    second = embedded.up(own)
    assert second.state == "running"
    assert second.pid != first.pid
    assert second.endpoint == first.endpoint  # the passwords stay, so that notebooks go on
    get(second, "select wait_wal_table('kept')", auth=auth)
    assert get(second, "select a from kept", auth=auth).json()["dataset"] == [[42]]

    # A server that hangs is told apart from one that runs, and is killed only after a while.
    assert second.pid is not None
    os.kill(second.pid, signal.SIGSTOP)
    assert eventually(lambda: "does not answer" in embedded.status(own).message)
    with pytest.raises(ServerStartFailed, match=rf"pid {second.pid}\) did not answer.*fxlab down"):
        embedded.up(own.replace(start_timeout=0.1))
    assert psutil.pid_exists(second.pid)
    monkeypatch.setattr(embedded, "STOP_PATIENCE", 0.5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert embedded.down(own) is True
    assert ["was killed" in str(one.message) for one in caught] == [True]
    assert embedded.status(own).state == "stopped"
    assert processes_of(own) == []


@pytest.mark.faults
def test_a_server_beside_another_moves_stops_gently_and_touches_no_foreign_process(own: Settings):
    # Nobody has set the port of PostgreSQL, and another program has the one that is the default.
    settings = dataclasses.replace(own, sources={**own.sources, "questdb_pg_port": "default"})
    with socket.socket() as other:
        other.bind(("127.0.0.1", own.questdb_pg_port))
        other.listen()
        started = embedded.up(settings)
        moved = started.endpoint.pg_port
        assert own.questdb_pg_port < moved < own.questdb_pg_port + 1_000
        assert moved in {one.port for one in listeners(started)}
        assert started.endpoint.http_port == own.questdb_http_port
    # It stays where it is, and its state file tells everybody, though the port is free again.
    assert embedded.up(settings).pid == started.pid
    environment = settings.environment()
    assert "FXLAB_QUESTDB_PG_PORT" not in environment
    told = CliRunner(env={"FXLAB_QUESTDB_PG_PORT": None, **environment}).invoke(app, ["status"])
    assert told.exit_code == 0
    assert f":{moved}, user {started.endpoint.pg_user}" in told.output
    assert embedded.endpoint_of(settings).pg_port == moved
    place = ServerLocation.of(own)
    assert embedded.down(own) is True
    assert "QuestDB is shutdown." in started.log.read_text(errors="replace")
    assert not place.instance.exists()

    # An instance file from before a reboot: its pid now belongs to another program.
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        assert started.endpoint is not None
        assert started.started_at is not None
        Instance(sleeper.pid, 1.0, "9.3.4", started.started_at, started.endpoint).save(
            place.instance
        )
        assert embedded.status(own).state == "stale"
        assert embedded.down(own) is False
        assert sleeper.poll() is None
        assert embedded.status(own).state == "stopped"
    finally:
        sleeper.kill()
        sleeper.wait()
