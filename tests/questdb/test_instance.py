"""A pid alone is no identity, and what is written for the owner only stays so."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from fxlab._questdb import server_config as instances
from fxlab._questdb.endpoint import Endpoint
from fxlab._questdb.server_config import Instance

ENDPOINT = Endpoint("127.0.0.1", 9000, 8812, "fxlab", "secret1", "reader", "secret2")


@pytest.fixture
def here() -> Instance:
    """Describe the test's own process as if it were a server."""
    born = psutil.Process().create_time()
    return Instance(os.getpid(), born, "9.3.4", datetime.now(UTC), ENDPOINT, 9003)


def test_what_is_saved_is_loaded(tmp_path: Path, here: Instance):
    path = tmp_path / "instance.json"
    here.save(path)
    assert Instance.load(path) == here
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_of_an_older_fxlab_is_loaded_without_the_health_port(tmp_path: Path, here: Instance):
    path = tmp_path / "instance.json"
    here.save(path)
    older = json.loads(path.read_text())
    del older["health_port"]
    path.write_text(json.dumps(older))
    assert Instance.load(path) == dataclasses.replace(here, health_port=None)


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"pid": 1}', "\0\0", '{"endpoint": {}}'])
def test_a_file_that_is_no_instance_is_none(tmp_path: Path, text: str):
    path = tmp_path / "instance.json"
    path.write_text(text)
    assert Instance.load(path) is None


def test_a_living_process_is_found(tmp_path: Path, here: Instance):
    process = here.process(tmp_path)
    assert process is not None
    assert process.pid == os.getpid()


def test_a_recycled_pid_is_not_the_server(tmp_path: Path, here: Instance):
    older = dataclasses.replace(here, born=here.born - 60)
    assert older.process(tmp_path) is None


def test_a_zombie_has_ended(tmp_path: Path, here: Instance):
    pid = os.posix_spawn("/bin/true", ["true"], {})
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # it has ended, nobody collected it
        born = psutil.Process(pid).create_time()
        assert dataclasses.replace(here, pid=pid, born=born).process(tmp_path) is None
    finally:
        os.waitpid(pid, 0)
    assert dataclasses.replace(here, pid=pid, born=born).process(tmp_path) is None


def test_passwords_are_random_and_kept(tmp_path: Path):
    path = tmp_path / "passwords.json"
    first = instances.load_passwords(path)
    assert instances.load_passwords(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    other = instances.load_passwords(tmp_path / "other.json")
    assert len({first.http, first.pg, other.http, other.pg}) == 4
    assert min(len(first.http), len(first.pg)) >= 32


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "server.conf"
    instances.write_private(path, "old")
    with pytest.raises(UnicodeEncodeError):
        instances.write_private(path, "new \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
