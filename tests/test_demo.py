"""The main job, on the real server: what a newcomer sees first."""

from __future__ import annotations

import polars as pl
import pytest
from conftest import settings_at
from typer.testing import CliRunner

from fxlab import demo, errors
from fxlab._cli import app
from fxlab._cli import server as server_commands
from fxlab.lab import connect, down


@pytest.fixture(scope="module")
def made(server_settings, server, tmp_path_factory):
    return demo.run(tmp_path_factory.mktemp("demo"), server_settings)


def test_the_real_trades_are_all_there(made, lab):
    session = lab.session(demo.REAL_SESSION)
    assert session.prices_count == 1_114
    prices = session.prices()
    shipped = pl.read_parquet(demo.shipped_trades(lab))
    assert prices.height == shipped.height == 1_114
    assert prices["price"].to_list() == shipped["price"].to_list()
    assert prices["timestamp"].to_list() == shipped["timestamp"].to_list()
    assert prices["volume"].sum() == pytest.approx(shipped["amount"].sum())


def test_the_generated_session_has_trades_and_books(made, lab):
    session = lab.session(demo.SYNTHETIC_SESSION)
    assert session.data_types == ("prices", "orderbook")
    assert session.prices_count > 1_000
    assert session.orderbook_count > 1_000
    assert session.source == "synthetic"


def test_each_run_traded_and_has_its_report(made):
    assert [result.data_session_id for result in made.results] == [
        demo.REAL_SESSION,
        demo.SYNTHETIC_SESSION,
    ]
    assert all(result.fills.height > 0 for result in made.results)
    for report in made.reports:
        assert report.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_running_it_again_changes_nothing(made, lab, server_settings, tmp_path):
    before = lab.session(demo.REAL_SESSION).counts()
    again = demo.run(tmp_path, server_settings)
    assert lab.session(demo.REAL_SESSION).counts().equals(before)
    pairs = zip(again.results, made.results, strict=True)
    assert all(two.fingerprint == one.fingerprint for two, one in pairs)
    assert all(
        two.fills.equals(one.fills) for two, one in zip(again.results, made.results, strict=True)
    )


def test_fxlab_lab_opens_an_empty_database_with_the_demo_in_it(tmp_path, monkeypatch):
    own, opened = settings_at(tmp_path / "home"), []
    for name, text in own.environment().items():
        monkeypatch.setenv(name, text)
    monkeypatch.setattr(server_commands.os, "execve", lambda *_: opened.append(1))
    try:
        first, second = (CliRunner().invoke(app, ["lab", str(tmp_path)]) for _ in range(2))
        with connect(own) as lab:
            found = lab.sessions()["session_id"].to_list()
            lab.delete(found[0])
            lab.delete(found[1])
            assert demo.prepare_if_empty(lab) == []  # emptied by its owner
    finally:
        down(own)
    assert (first.exit_code, second.exit_code, len(opened)) == (0, 0, 2)
    assert set(found) == {demo.SYNTHETIC_SESSION, demo.REAL_SESSION}
    assert "two demo sessions" in first.output
    assert "two demo sessions" not in second.output


def test_without_the_shipped_file_the_next_step_is_named(lab, monkeypatch, tmp_path):
    class Elsewhere:
        settings = lab.settings.replace(home=tmp_path)

    with pytest.raises(errors.ServerStartFailed, match="fxlab up"):
        demo.shipped_trades(Elsewhere())
