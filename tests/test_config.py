"""Settings: argument > variable > file > default, and where each came from."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from fxlab.config import Settings
from fxlab.errors import InvalidSettings


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, *_ in Settings().table():
        monkeypatch.delenv(f"FXLAB_{name.upper()}", raising=False)
    return tmp_path


def source_of(settings: Settings, name: str) -> str:
    return next(row[2] for row in settings.table() if row[0] == name)


def test_defaults_are_the_embedded_server():
    settings = Settings.load()
    assert settings.is_embedded
    assert (settings.questdb_http_port, settings.questdb_pg_port) == (9000, 8812)
    assert {row[2] for row in settings.table()} == {"default"}


def test_each_source_beats_the_next(elsewhere, monkeypatch):
    (elsewhere / "fxlab.toml").write_text("questdb_http_port = 1111\nquestdb_pg_port = 2222\n")
    assert Settings.load().questdb_http_port == 1111
    monkeypatch.setenv("FXLAB_QUESTDB_HTTP_PORT", "3333")
    settings = Settings.load(questdb_pg_port=4444)
    assert (settings.questdb_http_port, settings.questdb_pg_port) == (3333, 4444)
    assert source_of(settings, "questdb_http_port") == "FXLAB_QUESTDB_HTTP_PORT"
    assert source_of(settings, "questdb_pg_port") == "argument"
    assert source_of(settings, "home") == "default"


def test_home_is_a_path(monkeypatch):
    monkeypatch.setenv("FXLAB_HOME", "somewhere")
    assert Settings.load().home == Path("somewhere")


def test_an_empty_variable_is_not_a_value(monkeypatch):
    monkeypatch.setenv("FXLAB_QUESTDB_HOST", "")
    assert Settings.load().is_embedded


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("FXLAB_QUESTDB_HTTP_PORT", "nine", "questdb_http_port"),
        ("FXLAB_QUESTDB_HTTP_PORT", "0", "between 1 and 65535"),
        ("FXLAB_START_TIMEOUT", "-3", "above zero"),
    ],
)
def test_bad_values_name_the_variable(monkeypatch, variable, value, words):
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidSettings, match=words) as raised:
        Settings.load()
    assert variable in str(raised.value)


def test_unknown_names_are_refused(elsewhere):
    with pytest.raises(InvalidSettings, match="unknown setting 'prot' in argument"):
        Settings.load(prot=1)
    (elsewhere / "fxlab.toml").write_text("questdb_prot = 1\n")
    with pytest.raises(InvalidSettings, match=r"unknown setting 'questdb_prot' in fxlab\.toml"):
        Settings.load()


def test_a_broken_file_is_named(elsewhere):
    (elsewhere / "fxlab.toml").write_text("questdb_http_port = \n")
    with pytest.raises(InvalidSettings, match="is not a TOML file"):
        Settings.load()


def test_passwords_never_show():
    settings = Settings.load(questdb_password="marker-1", questdb_pg_password="marker-2")  # noqa: S106
    text = repr(settings) + str(settings.table())
    assert "marker" not in text
    assert "********" in text


def test_settings_are_frozen_and_replaced():
    settings = Settings.load()
    with pytest.raises(FrozenInstanceError):
        settings.questdb_http_port = 1
    other = settings.replace(questdb_host="db.example")
    assert not other.is_embedded
    assert settings.is_embedded
    assert source_of(other, "questdb_host") == "argument"
