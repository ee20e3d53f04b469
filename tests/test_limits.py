"""What the data needs is compared with what the system allows, and the command is told."""

from __future__ import annotations

import os

import pytest

from fxlab import doctor
from fxlab.questdb import limits
from fxlab.questdb import server as embedded


def table(folder, partitions, columns):
    for number in range(partitions):
        partition = folder / f"2024-01-{number:05}"
        partition.mkdir(parents=True)
        for column in range(columns):
            (partition / f"c{column}.d").touch()
    (folder / "wal1").mkdir()


def test_partitions_times_columns_are_counted(tmp_path):
    assert limits.files_of(tmp_path) == 0
    assert limits.files_of(tmp_path / "nowhere") == 0
    table(tmp_path / "tick_prices~1", partitions=30, columns=11)
    table(tmp_path / "runs~2", partitions=1, columns=5)
    assert limits.files_of(tmp_path) == 30 * 11 + 5


@pytest.mark.parametrize(("allowed", "enough"), [(65_530, False), (1_048_576, True)])
def test_data_that_does_not_fit_is_told_with_the_command(
    server_settings, tmp_path, monkeypatch, allowed, enough
):
    settings = server_settings.replace(home=tmp_path)
    table(tmp_path / "questdb/db/tick_prices~1", partitions=1_500, columns=11)
    (tmp_path / "max").write_text(f"{allowed}\n")
    monkeypatch.setattr(limits, "_MAPS", tmp_path / "max")
    found = {one.name: one for one in limits.of(settings)}["memory maps"]
    assert found.is_enough is enough
    assert found.cure == "sudo sysctl -w vm.max_map_count=1048576"
    check = doctor._look("limits", doctor._limits, settings)
    assert ("vm.max_map_count" in check.next_step) is not enough


def test_the_running_server_is_measured(server, server_settings):
    found = {one.name: one for one in limits.of(server_settings, server.pid)}
    for name in ("memory maps", "open files"):
        assert found[name].used is not None
        assert 10 < found[name].used < found[name].allowed


def test_a_server_near_its_end_is_not_well(tmp_path):
    assert not limits.Limit("x", 100, 81, 10, "cure").is_enough
    assert limits.Limit("x", 100, 79, 10, "cure").is_enough
    assert not limits.Limit("x", 100, None, 101, "cure").is_enough


def test_up_warns_of_what_the_data_needs(server, server_settings, tmp_path, monkeypatch):
    (tmp_path / "max").write_text("100\n")
    monkeypatch.setattr(limits, "_MAPS", tmp_path / "max")
    with pytest.warns(RuntimeWarning, match=r"memory maps.*sudo sysctl -w vm.max_map_count="):
        embedded.up(server_settings)


def test_up_warns_of_a_disk_that_fills(server, server_settings, monkeypatch):
    monkeypatch.setattr(limits, "free_disk", lambda _: 2**29)
    with pytest.warns(RuntimeWarning, match=r"only 0\.5 GiB are free"):
        embedded.up(server_settings)


def test_maps_of_this_process_are_counted_and_of_nobody_are_not():
    assert limits.maps(os.getpid()) > 10
    assert limits.maps(2**22 + 1) is None
    assert limits.maps_share(2**22 + 1) == 0.0
