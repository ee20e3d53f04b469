"""No text shows a password, and every password survives a URL."""

from __future__ import annotations

import dataclasses
from urllib.parse import unquote, urlsplit

from fxlab._questdb.endpoint import Endpoint

SECRETS = ("p@ss/word:1%", "s e+c?r#et")
ENDPOINT = Endpoint("127.0.0.1", 9000, 8812, "fxlab", SECRETS[0], "reader", SECRETS[1])


def test_no_text_of_an_endpoint_shows_a_password():
    shown = f"{ENDPOINT} {ENDPOINT!r} {[ENDPOINT]}"
    assert not any(secret in shown for secret in SECRETS)
    assert "127.0.0.1:9000" in shown


def test_pg_url_survives_any_password():
    parts = urlsplit(ENDPOINT.pg_url)
    assert (parts.hostname, parts.port, parts.path) == ("127.0.0.1", 8812, "/qdb")
    assert (parts.username, unquote(parts.password or "")) == ("reader", SECRETS[1])


def test_a_server_without_a_login_gets_none():
    bare = dataclasses.replace(ENDPOINT, password=None, pg_password=None)
    assert bare.http_auth is None
    assert bare.pg_url == "postgresql://reader@127.0.0.1:8812/qdb"
    assert "no password" in repr(bare)


def test_an_ipv6_host_stands_in_brackets():
    six = dataclasses.replace(ENDPOINT, host="::1")
    assert six.http_url == "http://[::1]:9000"
    assert urlsplit(six.pg_url).hostname == "::1"
