"""The configuration closes every door that fxlab does not use."""

from __future__ import annotations

from fxlab._questdb.server_config import Passwords, Ports, render

TEXT = render(Ports(http=1001, pg=1002, health=1003), Passwords("secret1", "secret2"), "secret3")
CONFIG = dict(line.split("=", 1) for line in TEXT.splitlines())


def test_every_key_stands_once():
    assert len(CONFIG) == len(TEXT.splitlines())


def test_every_listener_is_on_loopback():
    binds = {key: value for key, value in CONFIG.items() if "bind.to" in key}
    assert sorted(binds.values()) == ["127.0.0.1:1001", "127.0.0.1:1002", "127.0.0.1:1003"]


def test_every_way_in_has_a_password_and_no_two_are_alike():
    assert CONFIG["http.user"] == "fxlab"
    assert CONFIG["http.password"] == "secret1"
    assert CONFIG["pg.readonly.user.enabled"] == "true"
    assert CONFIG["pg.readonly.password"] == "secret2"
    assert CONFIG["pg.password"] == "secret3"


def test_what_loses_rows_or_invents_tables_is_off():
    off = (
        "line.tcp.enabled",
        "line.udp.enabled",
        "line.auto.create.new.tables",
        "line.auto.create.new.columns",
        "telemetry.enabled",
    )
    assert [CONFIG[key] for key in off] == ["false"] * len(off)
    assert CONFIG["cairo.commit.mode"] == "sync"
    assert CONFIG["http.export.connection.limit"] == "4"
