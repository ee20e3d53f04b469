"""What the data needs is compared with what the system allows, and the command is told."""

from __future__ import annotations

import os
import warnings
import zipfile

import pytest

from fxlab import _doctor
from fxlab._questdb import server as embedded
from fxlab._questdb import server_config
from fxlab._questdb.server_config import LEAST_DISK, Limit, Machine
from fxlab.errors import ImportRefused

AMPLE = Machine(max_map_count=1_048_576, free_disk=2**45)


def table(folder, partitions, columns):
    for number in range(partitions):
        partition = folder / f"2024-01-{number:05}"
        partition.mkdir(parents=True)
        for column in range(columns):
            (partition / f"c{column}.d").touch()
    (folder / "wal1").mkdir()


def by_name(settings, machine, pid=None):
    return {one.name: one for one in server_config.limits_of(settings, pid, machine)}


@pytest.fixture
def home(server_settings, tmp_path):
    return server_settings.replace(home=tmp_path)


def test_partitions_times_columns_are_counted(tmp_path):
    assert server_config._demand(tmp_path) == (0, 0)
    assert server_config._demand(tmp_path / "nowhere") == (0, 0)
    table(tmp_path / "tick_prices~1", partitions=30, columns=11)
    table(tmp_path / "runs~2", partitions=1, columns=5)
    assert server_config._demand(tmp_path) == (30 * 11 + 5, 0)


@pytest.mark.parametrize(("allowed", "enough"), [(65_530, False), (1_048_576, True)])
def test_data_that_does_not_fit_is_told_with_the_command(home, tmp_path, allowed, enough):
    table(tmp_path / "questdb/db/tick_prices~1", partitions=130, columns=150)
    found = by_name(home, Machine(allowed, 2**45))["memory maps"]
    assert found.is_enough is enough
    assert found.cure.endswith("sysctl -w vm.max_map_count=1048576")
    check = _doctor.Check("limits", *_doctor.check_limits([found]))
    assert check.ok is enough
    assert ("vm.max_map_count" in check.next_step) is not enough


def test_open_files_are_compared_with_what_the_data_needs(home, tmp_path):
    before = by_name(home, AMPLE)["open files"].needed
    table(tmp_path / "questdb/db/tick_prices~1", partitions=130, columns=150)
    found = by_name(home, AMPLE)["open files"]
    assert found.needed - before == int(120 * 150 * server_config.READERS * 1.25)
    assert "prlimit --pid $$ --nofile=131072; fxlab up" in found.cure


def test_the_disk_needs_room_for_the_largest_partition_once_more(home, tmp_path):
    table(tmp_path / "questdb/db/tick_prices~1", partitions=2, columns=1)
    (tmp_path / "questdb/db/tick_prices~1/2024-01-00001/price.d").write_bytes(bytes(3_000_000))
    found = by_name(home, Machine(0, LEAST_DISK + 2_000_000))
    assert "memory maps" not in found  # a system that does not tell
    assert 3_000_000 <= found["disk"].needed - LEAST_DISK < 3_100_000
    assert not found["disk"].is_enough
    assert by_name(home, AMPLE)["disk"].is_enough
    check = _doctor.Check("limits", *_doctor.check_limits([found["disk"]]))
    assert check.value == "disk: the data may need 2.0 GiB of 2.0 GiB free"
    assert "FXLAB_HOME" in check.next_step


def test_of_a_server_of_one_s_own_only_the_disk_of_the_home_is_known(home):
    found = by_name(home.replace(questdb_host="db.example"), Machine(65_530, 2**30))
    assert list(found) == ["disk"]
    assert not found["disk"].is_enough


def test_the_running_server_is_measured(server, server_settings):
    found = by_name(server_settings, None, server.pid)
    for name in ("memory maps", "open files"):
        assert found[name].used is not None
        assert 10 < found[name].used < found[name].allowed


def test_a_server_near_its_end_is_not_well():
    assert not Limit("x", 100, 81, 10, "cure").is_enough
    assert Limit("x", 100, 79, 10, "cure").is_enough
    assert not Limit("x", 100, None, 101, "cure").is_enough


def test_up_warns_of_what_the_data_needs_with_the_cure(home):
    few = server_config.limits_of(home, machine=Machine(100, 2**29))
    with pytest.warns(RuntimeWarning) as told:
        embedded._warn_of_limits(few)
    maps, disk = sorted((str(one.message) for one in told), reverse=True)
    assert maps.startswith("memory maps: the data may need 2,500 of 100 allowed; mend it: ")
    assert "sysctl -w vm.max_map_count=" in maps
    assert disk.startswith("disk: the data may need 2.0 GiB of 0.5 GiB free; mend it: free space")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embedded._warn_of_limits([Limit("x", 100, 1, 1, "cure")])


def test_up_looks_at_the_limits(server, server_settings, monkeypatch):
    monkeypatch.setattr(server_config.Machine, "of", lambda _: Machine(100, 2**45))
    with pytest.warns(RuntimeWarning, match=r"memory maps.*vm.max_map_count="):
        embedded.up(server_settings)


def test_an_import_that_the_disk_cannot_hold_is_refused_before_it_begins(home, tmp_path):
    for name, size in (("a.csv", 1_000_000), ("b.parquet", 500_000)):
        (tmp_path / name).write_bytes(bytes(size))
    files = [tmp_path / "a.csv", tmp_path / "b.parquet"]
    server_config.check_room(home, files, Machine(0, 6_000_000))
    with pytest.raises(ImportRefused, match=r"need about 0\.0 GiB.*are free.*FXLAB_HOME"):
        server_config.check_room(home, files, Machine(0, 5_999_999))
    server_config.check_room(home.replace(questdb_host="db.example"), files, Machine(0, 0))


def test_an_archive_tells_what_it_unpacks_to_once_and_large_files_wait_on_the_disk(
    home, tmp_path, monkeypatch
):
    file = tmp_path / "days.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for day in range(2):
            archive.writestr(f"{day}.csv", "1,2,3\n" * 100_000)
    assert file.stat().st_size * 8 < 2_400_000
    files = [file] * 2  # a session of each day
    server_config.check_room(home, files, Machine(0, 2_400_000))
    with pytest.raises(ImportRefused, match="are free"):
        server_config.check_room(home, files, Machine(0, 2_399_999))
    monkeypatch.setattr(server_config, "_IN_MEMORY", 1_000_000)
    server_config.check_room(home, files, Machine(0, 2_600_000))
    with pytest.raises(ImportRefused, match="wait beside it"):
        server_config.check_room(home, files, Machine(0, 2_599_999))


def test_the_lab_asks_for_room_before_an_import(lab, tmp_path, monkeypatch, unique):
    file = tmp_path / "ticks.csv"
    file.write_text("timestamp,symbol,price,volume\n2024-01-01T00:00:00Z,BTC_USDT,1,1\n")
    monkeypatch.setattr(server_config.Machine, "of", lambda _: Machine(0, 10))
    name = unique("room")
    assert lab.import_files(file, session_id=name, dry_run=True).table().height == 1
    with pytest.raises(ImportRefused, match="nothing was written"):
        lab.import_files(file, session_id=name)
    assert lab.sessions(text=name).is_empty()


def test_maps_of_this_process_are_counted_and_of_nobody_are_not():
    assert server_config.maps(os.getpid()) > 10
    assert server_config.maps(2**22 + 1) is None
    assert server_config.maps_share(2**22 + 1) == 0.0
