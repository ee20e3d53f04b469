"""A server that does not answer is described, not raised."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fxlab._questdb import endpoint
from fxlab._questdb.endpoint import Endpoint


def test_a_closed_port_is_a_reason_not_an_error(free_ports: Callable[[int], list[int]]):
    http, pg = free_ports(2)
    reason = endpoint.refusal(Endpoint("127.0.0.1", http, pg, "fxlab", None, "reader", None))
    assert reason.startswith("it does not answer (ConnectionRefusedError")


def test_the_last_words_are_those_that_tell(tmp_path: Path):
    log = tmp_path / "server.log"
    log.write_text(
        "2026 A server-main hello\n"
        "io.questdb.network.NetworkError: [98] could not bind socket\n"
        "\tat io.questdb@9.3.4/io.questdb.std.ThreadLocal.get(ThreadLocal.java:46)\n"
        "2026 A server-main good bye\n"
    )
    assert endpoint.last_words(log) == "io.questdb.network.NetworkError: [98] could not bind socket"


def test_without_telling_words_the_last_lines_are_quoted(tmp_path: Path):
    log = tmp_path / "server.log"
    log.write_text("\n".join(f"line {number}" for number in range(100)))
    assert endpoint.last_words(log, limit=2) == "line 98 | line 99"


def test_an_empty_or_missing_log_is_said(tmp_path: Path):
    log = tmp_path / "server.log"
    assert endpoint.last_words(log) == "no log (No such file or directory)"
    log.touch()
    assert endpoint.last_words(log) == "it printed nothing"
