"""What is in the way of a start is told with the setting that mends it."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from fxlab._questdb import server_config
from fxlab._questdb.server_config import ServerLocation
from fxlab.config import Settings
from fxlab.errors import InvalidSettings, PortTaken, ServerStartFailed

FreePorts = Callable[[int], list[int]]


def with_ports(http: int, pg: int, health: int) -> Settings:
    return Settings(questdb_http_port=http, questdb_pg_port=pg, questdb_health_port=health)


@pytest.mark.parametrize(
    ("text", "size"),
    [("512m", 512 * 2**20), ("1g", 2**30), (" 2G ", 2**31), ("268435456", 2**28)],
)
def test_memory_sizes_are_java_s(text: str, size: int):
    assert server_config.memory_bytes(text) == size


@pytest.mark.parametrize("text", ["", "1 g", "0g", "-1g", "1.5g", "many", "255m", "1gb", "9" * 99])
def test_a_malformed_memory_size_names_the_setting(text: str):
    with pytest.raises(ServerStartFailed, match=r"FXLAB_QUESTDB_MEMORY=.*512m or 2g"):
        server_config.memory_bytes(text)


def test_too_little_memory_names_both_numbers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server_config, "available_memory", lambda: 2**30 - 1)
    with pytest.raises(ServerStartFailed, match=r"1,024 MiB .*FXLAB_QUESTDB_MEMORY=1g.*1,024 MiB"):
        server_config.check_memory(Settings(questdb_memory="1g"))
    server_config.check_memory(Settings(questdb_memory="1023m"))


def test_a_container_s_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server_config, "_CGROUP", tmp_path)
    unlimited = server_config.available_memory()
    (tmp_path / "memory.current").write_text("1000000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert server_config.available_memory() > unlimited / 2
    (tmp_path / "memory.max").write_text("3000000\n")
    assert server_config.available_memory() == 2_000_000


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_taken_port_names_port_setting_and_program(free_ports: FreePorts, position: int):
    ports = free_ports(3)
    names = ("FXLAB_QUESTDB_HTTP_PORT", "FXLAB_QUESTDB_PG_PORT", "FXLAB_QUESTDB_HEALTH_PORT")
    with socket.socket() as other:
        other.bind(("0.0.0.0", ports[position]))  # noqa: S104 - a careless program is the point
        other.listen()
        with pytest.raises(PortTaken) as caught:
            server_config.check_ports(with_ports(*ports))
    for part in (f"port {ports[position]} ", names[position], f"(pid {os.getpid()})"):
        assert part in str(caught.value)
    assert server_config.check_ports(with_ports(*ports)).http == ports[0]


def test_one_port_twice_is_refused(free_ports: FreePorts):
    port, other = free_ports(2)
    both = "FXLAB_QUESTDB_HTTP_PORT and FXLAB_QUESTDB_HEALTH_PORT are both"
    with pytest.raises(InvalidSettings, match=both):
        server_config.check_ports(with_ports(port, other, port))


def test_the_home_is_made_for_its_owner_only(tmp_path: Path):
    place = ServerLocation(tmp_path / "new" / "home")
    server_config.check_home(place)
    assert stat.S_IMODE(place.home.stat().st_mode) == 0o700
    assert stat.S_IMODE(place.root.stat().st_mode) == 0o700
    assert list(place.root.iterdir()) == []


def test_a_home_under_which_the_server_hides_rows_is_refused(tmp_path: Path):
    with pytest.raises(ServerStartFailed, match=r"FXLAB_HOME .*plain letters"):
        server_config.check_home(ServerLocation(tmp_path / "zoë"))
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_was_open_is_closed(tmp_path: Path):
    place = ServerLocation(tmp_path)
    place.root.mkdir(mode=0o777)
    server_config.check_home(place)
    assert stat.S_IMODE(place.root.stat().st_mode) == 0o700


@pytest.mark.parametrize("taken", ["home", "home/questdb"])
def test_an_unusable_home_names_path_and_setting(tmp_path: Path, taken: str):
    place = ServerLocation(tmp_path / "home")
    blocked = tmp_path / taken
    blocked.parent.mkdir(exist_ok=True)
    blocked.write_text("a file stands where the folder should")
    with pytest.raises(ServerStartFailed) as caught:
        server_config.check_home(place)
    assert str(place.root) in str(caught.value)
    assert "FXLAB_HOME" in str(caught.value)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a read-only file system")
def test_a_read_only_home_is_refused_for_root_too():
    with pytest.raises(ServerStartFailed, match=r"/proc/fxlab/questdb cannot hold.*FXLAB_HOME"):
        server_config.check_home(ServerLocation(Path("/proc/fxlab")))


def by_default(*ports: int) -> Settings:
    names = ("questdb_http_port", "questdb_pg_port", "questdb_health_port")
    return Settings(**dict(zip(names, ports, strict=True)), sources=dict.fromkeys(names, "default"))


def test_a_taken_port_that_nobody_set_moves_to_a_free_one(free_ports: FreePorts):
    http, pg, health = free_ports(3)
    with socket.socket() as other:
        other.bind(("127.0.0.1", pg))
        other.listen()
        found = server_config.check_ports(by_default(http, pg, health))
    assert (found.http, found.health) == (http, health)
    assert pg < found.pg < pg + 1_000
    assert found.pg not in {http, health}


def test_a_port_set_by_hand_drives_a_default_away(free_ports: FreePorts):
    port, health = free_ports(2)
    settings = by_default(port, port, health).replace(questdb_pg_port=port)
    found = server_config.check_ports(settings)
    assert found.pg == port
    assert found.http != port


def test_all_taken_ports_are_told_at_once(free_ports: FreePorts):
    ports = free_ports(3)
    with socket.socket() as one, socket.socket() as two:
        for other, port in ((one, ports[0]), (two, ports[2])):
            other.bind(("127.0.0.1", port))
            other.listen()
        with pytest.raises(PortTaken) as caught:
            server_config.check_ports(with_ports(*ports))
    for part in (str(ports[0]), str(ports[2]), "FXLAB_QUESTDB_HTTP_PORT", "_HEALTH_PORT"):
        assert part in str(caught.value)
    assert str(ports[1]) not in str(caught.value)
