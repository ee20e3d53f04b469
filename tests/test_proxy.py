"""A proxy in the environment: used for the venues, never for this machine, named when useless."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest
from small_venue import page_route, serving, socket_route
from tornado.iostream import StreamClosedError
from tornado.tcpclient import TCPClient
from tornado.tcpserver import TCPServer

from fxlab import _doctor
from fxlab._network import proxy_for, variables
from fxlab.collect.feed import Clock
from fxlab.collect.venues._rest import Rest
from fxlab.collect.venues._websocket import NotConnected, connect
from fxlab.config import Settings
from fxlab.errors import InvalidSettings, VenueUnavailable

NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def none(monkeypatch):
    for name in [name for name in os.environ if name.lower() in NAMES]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9000",
        "https://127.8.8.8",
        "ws://localhost:1/x",
        "http://[::1]:9000",
        "http://db.localhost",
    ],
)
@pytest.mark.parametrize("value", [NOWHERE, "socks5://127.0.0.1:9", "http://:::", "nonsense://"])
def test_this_machine_is_reached_without_a_proxy(monkeypatch, url, value):
    for name in NAMES[:3]:
        monkeypatch.setenv(name, value)
    assert proxy_for(url) is None


@pytest.mark.parametrize(
    ("variable", "url", "expected"),
    [
        ("http_proxy", "http://venue.example/api", "http://proxy.example:3128"),
        ("http_proxy", "ws://venue.example/s", "http://proxy.example:3128"),
        ("http_proxy", "https://venue.example/api", None),
        ("HTTPS_PROXY", "https://venue.example/api", "http://proxy.example:3128"),
        ("https_proxy", "wss://venue.example/s", "http://proxy.example:3128"),
        ("ALL_PROXY", "wss://venue.example/s", "http://proxy.example:3128"),
    ],
)
@pytest.mark.parametrize("scheme", ["", "http://"])
def test_the_variable_of_the_scheme_decides(monkeypatch, variable, url, expected, scheme):
    monkeypatch.setenv(variable, f"{scheme}proxy.example:3128")
    assert proxy_for(url) == expected


@pytest.mark.parametrize("exception", ["venue.example", ".example", "*", "a.b, venue.example:443"])
def test_an_exception_is_heeded(monkeypatch, exception):
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", exception)
    assert proxy_for("https://venue.example:443/api") is None


@pytest.mark.parametrize(
    "value", ["socks5://127.0.0.1:9", "http://", "http://p:port", "http://[::"]
)
@pytest.mark.parametrize("variable", ["ALL_PROXY", "https_proxy"])
def test_a_proxy_that_cannot_be_used_is_named_with_what_helps(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidSettings, match=f"^{variable}=.*NO_PROXY=venue.example"):
        proxy_for("wss://venue.example/s")


def test_no_password_is_shown(monkeypatch):
    monkeypatch.setenv("https_proxy", "socks5://me:secret@proxy.example:1")
    with pytest.raises(InvalidSettings) as caught:
        proxy_for("https://venue.example")
    shown = f"{caught.value} {variables()}"
    assert "secret" not in shown
    assert "proxy.example:1" in shown


class Proxy(TCPServer):
    """An HTTP proxy that leads every connection to one port here, and notes what it was asked."""

    def __init__(self, target, answer=b"HTTP/1.1 200 Connection established\r\n\r\n"):
        super().__init__()
        self.target, self.answer, self.asked = target, answer, []

    async def handle_stream(self, stream, _):  # noqa: D102 - tornado calls it
        try:
            head = await stream.read_until(b"\r\n\r\n")
            self.asked.append(head.decode().split("\r\n"))
            behind = await TCPClient().connect("127.0.0.1", self.target)
            if head.startswith(b"CONNECT"):
                await stream.write(self.answer)
            else:
                await behind.write(head.replace(b"http://venue.example", b"", 1))
            await asyncio.gather(pump(stream, behind), pump(behind, stream))
        except StreamClosedError:
            pass


async def pump(source, sink):
    try:
        while True:
            await sink.write(await source.read_bytes(65_536, partial=True))
    finally:
        sink.close()


def through_a_proxy(monkeypatch, story, login="", **options):
    """Run a story behind a proxy that leads to a small venue; return what the proxy was asked."""

    async def run():
        async def greet(socket, _):
            await socket.write_message("welcome")

        routes = (page_route("/api", lambda _: (200, {}, "[1]")), socket_route("/s", greet, []))
        async with serving(*routes) as host:
            proxy = Proxy(int(host.rpartition(":")[2]), **options)
            proxy.listen(0, "127.0.0.1")
            port = next(iter(proxy._sockets.values())).getsockname()[1]
            monkeypatch.setenv("http_proxy", f"http://{login}127.0.0.1:{port}")
            try:
                return await story(), proxy.asked
            finally:
                proxy.stop()

    return asyncio.run(run())


def test_a_venue_s_rest_interface_is_read_through_the_proxy(monkeypatch):
    async def story():
        rest = Rest("http://venue.example", clock=Clock())
        try:
            return await rest.get("/api")
        finally:
            await rest.close()

    found, asked = through_a_proxy(monkeypatch, story)
    assert found == [1]
    assert asked[0][0] == "GET http://venue.example/api HTTP/1.1"


async def first_frame():
    link = await connect("ws://venue.example/s", clock=Clock(), seconds=5, max_message_bytes=99)
    try:
        return (await link.take(1))[0][0]
    finally:
        await link.shut()


def test_a_venue_s_stream_goes_through_the_proxy(monkeypatch):
    found, asked = through_a_proxy(monkeypatch, first_frame, login="me:s%40crt@")
    assert found == "welcome"
    assert asked[0][0] == "CONNECT venue.example:80 HTTP/1.1"
    assert "Proxy-Authorization: Basic bWU6c0BjcnQ=" in asked[0]


def test_a_proxy_that_refuses_is_told_with_its_words(monkeypatch):
    with pytest.raises(NotConnected, match=r"407 Who.* through the proxy http://127\.0\.0\.1:"):
        through_a_proxy(monkeypatch, first_frame, answer=b"HTTP/1.1 407 Who are you\r\n\r\n")


def test_a_dead_proxy_is_named(monkeypatch):
    monkeypatch.setenv("http_proxy", NOWHERE)

    async def ask():
        await Rest("http://venue.example", clock=Clock(), patience=0.001).get("/api")

    with pytest.raises(VenueUnavailable, match=r"through the proxy http://127\.0\.0\.1:9"):
        asyncio.run(ask())
    with pytest.raises(NotConnected, match=r"through the proxy http://127\.0\.0\.1:9"):
        asyncio.run(first_frame())


IMPORT = """
import polars as pl, sys, fxlab
from datetime import UTC, datetime
with fxlab.connect() as lab:
    rows = pl.DataFrame({"timestamp": [datetime(2024, 1, 1, tzinfo=UTC)] * 5, "price": [1.0] * 5,
                         "volume": [1.0] * 5, "symbol": ["A_B"] * 5})
    lab.import_frame(rows, "prices", session_id=sys.argv[1])
    print(lab.session(sys.argv[1]).prices().height)
"""


@pytest.mark.parametrize("value", [NOWHERE, "socks5://127.0.0.1:9", "http://:::"])
def test_the_server_is_used_whatever_the_proxy(server, unique, value):
    environment = {**os.environ, "http_proxy": value, "ALL_PROXY": value, "https_proxy": value}
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, unique()],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.returncode) == ("5", 0), done.stderr


@pytest.mark.parametrize(
    ("value", "ok", "words"),
    [
        ("http://me:secret@proxy.example:3128", True, "https_proxy=http://********@proxy.example"),
        ("socks5://proxy.example", False, "https_proxy='socks5://proxy.example' is no proxy"),
    ],
)
def test_the_doctor_names_the_proxy(monkeypatch, value, ok, words):
    monkeypatch.setenv("https_proxy", value)
    check = _doctor.Check("proxy", *_doctor._look(_doctor._proxy, Settings()))
    assert check.ok is ok
    assert words in check.value
    assert "secret" not in check.value
