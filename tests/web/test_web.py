"""The web surface as clients see it: a real Jupyter Server over the real QuestDB."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import pytest
from conftest import pick_ports, settings_at
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from markets import random_walk
from tornado.websocket import websocket_connect
from web_server import ROOT, TOKEN, WAIT, web_server

import fxlab
from fxlab._questdb import server as embedded
from fxlab.collect.collector import MOST_WAITING, Subscribers
from fxlab.mock import MockVenue, generated
from fxlab.web._executions import WebEvent
from fxlab.web._requests import document
from fxlab.web.extension import EventSocket

FAST = {"fast": 5, "slow": 20}
ROWS = 3_000


@pytest.fixture(scope="module")
def web(server, lab, tmp_path_factory):
    from conftest import pick_ports

    with web_server(tmp_path_factory.mktemp("web"), pick_ports(1)[0]) as found:
        yield found


@pytest.fixture(scope="module")
def recorded(lab, unique):
    name = unique("web")
    lab.import_frame(
        random_walk(ROWS, symbol="WEB_USDT").drop("bid_qty_1", "ask_qty_1"),
        "prices", session_id=name, tags=[name],
    )  # fmt: skip
    return name


def started(web, recorded, **asked):
    answer = web.client.post("/commands/start-backtest", json={"session_id": recorded, **asked})
    assert answer.status_code == 202, answer.text
    return answer.json()


def test_the_extension_is_found_and_on(tmp_path):
    shutil.copytree(ROOT / "jupyter", tmp_path / "config")
    places = {"HOME": str(tmp_path), "JUPYTER_CONFIG_DIR": str(tmp_path / "config")}
    where = os.environ | places | {"PYTHONPATH": str(ROOT)}
    listed = subprocess.run(
        [sys.executable, "-m", "jupyter_server", "extension", "list"],
        capture_output=True, text=True, check=True, cwd=tmp_path, env=where,
    )  # fmt: skip
    said = listed.stdout + listed.stderr
    assert "fxlab.web" in said
    assert "fxlab.web  " in said.partition("Validating fxlab.web")[2]
    assert "X" not in said.partition("Validating fxlab.web")[2].split("\n")[1]


def test_without_the_token_nothing_is_told(web):
    for path, method in (("/data-collection/sessions", "GET"), ("/executions/x/stop", "POST")):
        answer = httpx.request(method, f"{web.url}{path}", timeout=WAIT)
        assert answer.status_code == 403
        assert set(answer.json()) == {"error", "type", "next_step"}


def test_other_origins_and_forged_forms_are_refused(web):
    origin = {"Origin": "http://elsewhere.example"}
    answer = web.client.get("/executions", headers=origin)
    assert "access-control-allow-origin" not in answer.headers
    with httpx.Client(base_url=web.url, timeout=WAIT) as browser:  # a cookie and no XSRF token
        browser.get(f"http://{web.address}/api/status", params={"token": TOKEN})
        assert browser.get("/executions", headers=origin).status_code == 404
        assert browser.get("/executions").status_code == 200
        assert browser.post("/executions/x/stop").status_code == 403
        browser.cookies.set("_xsrf", "0123456789abcdef")
        own = {"X-XSRFToken": "0123456789abcdef"}
        assert browser.post("/executions/x/stop", headers=own).status_code == 404


def test_sessions_are_listed_filtered_and_paged(web, recorded):
    found = web.client.get("/data-collection/sessions", params={"tag": recorded, "limit": 5})
    page = found.json()
    assert (page["total_count"], page["limit"], page["offset"]) == (1, 5, 0)
    (row,) = page["sessions"]
    assert row["session_id"] == recorded
    assert (row["records_collected"], row["symbols"]) == (ROWS, ["WEB_USDT"])
    assert row["created_at"].endswith("Z")
    wrong = web.client.get("/data-collection/sessions", params={"sort": "colour"})
    assert wrong.status_code == 400


def test_a_session_is_analysed_and_drawn(web, lab, recorded):
    found = web.client.get(f"/data-collection/{recorded}/analysis").json()
    assert found["statistics"][0]["rows"] == ROWS
    assert found["quality"]["score"] == lab.analysis(recorded).quality.score
    chart = web.client.get(
        f"/data-collection/{recorded}/chart-data", params={"symbol": "WEB_USDT", "max_points": 400}
    ).json()
    frame = lab.session(recorded).chart_data("WEB_USDT", max_points=400)
    assert chart["points"] == frame.height <= 400
    assert chart["columns"]["price"] == frame["price"].to_list()
    assert chart["columns"]["seq"] == [str(seq) for seq in frame["seq"]]
    nothing = web.client.get(f"/data-collection/{recorded}/chart-data?end=2001-01-01").json()
    assert (nothing["points"], nothing["columns"]["seq"]) == (0, [])


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/data-collection/nope/analysis", None, 404),
        ("DELETE", "/data-collection/nope", None, 404),
        ("GET", "/data-collection/a%2F..%2Fb/analysis", None, 400),
        ("GET", "/executions/nope", None, 404),
        ("GET", "/data-collection/sessions?limit=5&limit=6", None, 400),
        ("GET", "/nothing/here", None, 404),
        ("PUT", "/executions", None, 405),
        ("POST", "/executions", {}, 405),
        ("POST", "/commands/start-backtest", {"symbols": ["BTC_USDT"]}, 400),
        ("POST", "/commands/start-backtest", {"session_id": "nope"}, 404),
        ("POST", "/commands/start-collection", {"venue": "nowhere", "symbols": "A_B"}, 404),
        ("POST", "/commands/stop-collection", {"session_id": "nope"}, 404),
    ],
)
def test_what_cannot_be_done_says_so_in_json(web, method, path, body, status):
    answer = web.client.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error", "type", "next_step"}


def test_what_a_strategy_refuses_is_refused_at_once(web, recorded):
    for asked, status in (
        ({"strategy": "sma_crosss"}, 404),
        ({"strategy": "sma_cross", "parameters": {"fast": -1}}, 400),
        ({"symbols": ["XYZ"]}, 404),
        ({"strategy": "sma_cross", "execution": {"takerbps": 1}}, 400),
    ):
        body = {"session_id": recorded, **asked}
        answer = web.client.post("/commands/start-backtest", json=body)
        assert answer.status_code == status, answer.text


def test_a_backtest_over_http_is_the_backtest(web, lab, recorded):
    asked = {"strategy": "sma_cross", "parameters": FAST, "acceleration_factor": "max"}
    first = started(web, recorded, symbols=["WEB_USDT"], **asked)
    assert first["session_id"].startswith("exec_")
    assert first["session_id"].endswith("_backtest")
    assert (first["data_session_id"], first["mode"]) == (recorded, "backtest")
    assert first["symbols"] == ["WEB_USDT"]
    over = web.until(first["session_id"], "completed", "failed")
    assert over["error"] is None
    expected = fxlab.backtest(lab.session(recorded), "sma_cross", FAST)
    result = over["result"]
    assert result["fingerprint"] == expected.fingerprint
    assert result["fills_count"] == expected.fills.height > 0
    assert result["metrics"]["final_equity"] == expected.metrics["final_equity"]
    assert lab.run(result["run_id"]).fingerprint == expected.fingerprint


def test_a_slow_replay_stops_within_a_second_and_waiting_ones_at_once(web, recorded):
    ids = [
        started(web, recorded, acceleration_factor=0.001, strategy="buy_and_hold")["session_id"]
        for _ in range(50)
    ]
    web.until(ids[0], "running")
    listed = web.client.get("/executions").json()["executions"]
    states = {one["session_id"]: one["state"] for one in listed}
    assert sum(states[name] == "running" for name in ids) <= 4
    assert sum(states[name] == "queued" for name in ids) >= 40
    began = time.monotonic()
    for name in reversed(ids):
        assert web.client.post(f"/executions/{name}/stop").status_code == 202
    took = time.monotonic() - began
    for name in ids:
        assert web.until(name, "stopped")["result"] is None
    assert time.monotonic() - began < took + 10


def test_four_clients_at_once_get_their_own_answers(web, recorded):
    def ask(number):
        page = web.client.get("/data-collection/sessions", params={"tag": recorded}).json()
        return page["sessions"][0]["session_id"], number

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, range(20)))
    assert found == [(recorded, number) for number in range(20)]


def test_a_session_is_deleted_and_brought_back(web, lab, unique):
    name = unique("gone")
    ticks = random_walk(50, symbol="A").drop("bid_qty_1", "ask_qty_1")
    lab.import_frame(ticks, "prices", session_id=name)
    planned = lab.deletion_preview(name)["rows"].sum()
    gone = web.client.delete(f"/data-collection/{name}").json()
    assert (gone["session_id"], gone["status"]) == (name, "deleting")
    assert sum(one["rows"] for one in gone["planned"]) == planned >= 50
    assert web.client.get(f"/data-collection/{name}/analysis").status_code == 404
    back = web.client.post(f"/data-collection/{name}/undelete").json()
    assert (back["session_id"], back["records_collected"]) == (name, 50)


def test_a_client_that_does_not_read_is_told_how_much_it_missed():
    more = 7
    sent, closed = [], []

    async def run():
        events = Subscribers()
        writes, reads = asyncio.Event(), asyncio.Event()

        async def write(message):
            sent.append(message)
            writes.set()
            await reads.wait()  # as tornado does while the client's buffers are full

        api = SimpleNamespace(executions=SimpleNamespace(events=events))
        socket = SimpleNamespace(
            _api=api, write_message=write, close=lambda *words: closed.append(words)
        )
        telling = asyncio.ensure_future(EventSocket._tell(socket))
        await asyncio.sleep(0)
        events.publish([WebEvent(None, "0")])
        await writes.wait()
        events.publish([WebEvent(None, str(n)) for n in range(1, MOST_WAITING + more + 1)])
        reads.set()
        events.end()
        await telling

    asyncio.run(run())
    assert sent[:2] == ["0", {"type": "dropped", "count": more}]
    assert sent[2:] == [str(n) for n in range(more + 1, MOST_WAITING + more + 1)]
    assert closed == [(1001, "the server stops")]


@pytest.mark.parametrize("is_reading", [True, False])
def test_a_client_that_is_gone_is_told_nothing_more(is_reading):
    """Whether it waits for an event or, as a slow one does, its event waits for it."""

    async def run():
        events, writes = Subscribers(), asyncio.Event()

        async def write(_message):
            writes.set()
            await asyncio.Event().wait()

        api = SimpleNamespace(executions=SimpleNamespace(events=events))
        telling = asyncio.ensure_future(
            EventSocket._tell(SimpleNamespace(_api=api, write_message=write))
        )
        await asyncio.sleep(0)
        assert len(events._all) == 1
        if not is_reading:
            events.publish([WebEvent(None, "0")])
            await writes.wait()
        telling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await telling
        assert events._all == []

    asyncio.run(run())


async def _heard(web, enough, then=None):
    url = f"ws://{web.address}/fxlab/api/events?token={TOKEN}"
    socket = await websocket_connect(url)
    if then is not None:
        await asyncio.to_thread(then)
    found = []
    while not enough(found):
        text = await asyncio.wait_for(socket.read_message(), WAIT)
        assert text is not None
        found.append(json.loads(text))
    socket.close()
    while await asyncio.wait_for(socket.read_message(), WAIT) is not None:
        pass  # until the server has closed its side: no socket is left to the garbage
    return found


def test_a_recording_is_watched_and_stopped(web, lab, unique):
    name = unique("live")
    with MockVenue(generated(["BTC_USDT"], seed=3, rate=100)) as venue:
        body = {"venue": "binance", "symbols": "BTC_USDT", "url": venue.url, "session_id": name}

        def begin():
            answer = web.client.post("/commands/start-collection", json=body)
            assert answer.status_code == 202, answer.text
            assert answer.json()["mode"] == "collection"

        heard = asyncio.run(
            _heard(web, lambda found: any(one.get("kind") == "trade" for one in found), begin)
        )
        assert web.client.delete(f"/data-collection/{name}").status_code == 409
        stopped = web.client.post("/commands/stop-collection", json={"session_id": name})
        assert stopped.status_code == 202
        over = web.until(name, "completed", "failed")
    assert {one["type"] for one in heard} >= {"tick", "execution"}
    trade = next(one for one in heard if one.get("kind") == "trade")
    assert (trade["session_id"], trade["symbol"]) == (name, "BTC_USDT")
    assert over["state"] == "completed"
    assert lab.session(name).prices_count >= over["standing"]["trades"] > 0


def test_progress_and_state_come_over_the_socket(web, recorded):
    def begin():
        started(web, recorded, strategy="buy_and_hold", acceleration_factor="max")

    heard = asyncio.run(
        _heard(web, lambda found: found and found[-1].get("state") == "completed", begin)
    )
    states = [one["state"] for one in heard if one["type"] == "execution"]
    assert [s for i, s in enumerate(states) if s not in states[:i]] == [
        "queued", "running", "completed",
    ]  # fmt: skip
    assert heard[-1]["progress"] == 1.0


def test_the_socket_is_for_those_with_the_token_and_of_this_origin(web):
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    with httpx.Client(timeout=WAIT) as browser:  # whoever is logged in, on a page of another origin
        browser.get(f"http://{web.address}/api/status", params={"token": TOKEN})
        cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    for headers in ({}, {"Cookie": cookie, "Origin": "http://elsewhere.example"}):
        answer = httpx.get(f"{web.url}/events", headers=upgrade | headers, timeout=WAIT)
        assert answer.status_code == 403


def test_the_lines_of_the_readme_are_answered(web, recorded):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^curl .*$", readme, re.MULTILINE)
    assert len(lines) == 4
    names = {"$SERVER": f"http://{web.address}", "$TOKEN": TOKEN, "SESSION": recorded}
    for line in lines:
        for name, value in names.items():
            line = line.replace(name, value)  # noqa: PLW2901 - word by word
        header, *data, url = [word for word in shlex.split(line)[1:] if not word.startswith("-")]
        name, _, value = header.partition(": ")
        answer = httpx.request(
            "POST" if data else "GET", url, headers={name: value},
            content=data[0] if data else None, timeout=WAIT,
        )  # fmt: skip
        assert answer.status_code in {200, 202}, answer.text
        names["EXECUTION"] = answer.json().get("session_id", "")


def _strategy(spec):
    """Return values of a parameter: as the document has them, and any others."""
    schema = spec["schema"]
    texts = st.text(max_size=12)
    if schema["type"] == "integer":
        return st.integers(schema["minimum"], schema["maximum"]).map(str) | texts
    return st.sampled_from(schema.get("enum", ["true", "false"])) | texts


GETS = [
    (path, calls["get"])
    for path, calls in document()["paths"].items()
    if "get" in calls and path != "/events"
]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_answer_is_as_the_document_says(web, recorded, data):
    path, operation = data.draw(st.sampled_from(GETS))
    specs = operation.get("parameters", [])
    query = {
        spec["name"]: data.draw(_strategy(spec))
        for spec in specs
        if spec["in"] == "query" and data.draw(st.booleans())
    }
    names = st.sampled_from([recorded, "nope", "exec_1_backtest", "ä b"])
    for spec in specs:
        if spec["in"] == "path":
            path = path.replace(f"{{{spec['name']}}}", data.draw(names))
    answer = web.client.get(path, params=query)
    assert str(answer.status_code) in operation["responses"], answer.text
    assert answer.status_code != 500, answer.text
    response = operation["responses"][str(answer.status_code)]
    if "$ref" in response:
        response = document()["components"]["responses"]["Error"]
    schema = response["content"]["application/json"]["schema"]
    whole = {**schema, "components": document()["components"]}
    Draft202012Validator(whole).validate(answer.json())


def test_without_questdb_it_says_what_to_run(free_ports, tmp_path, server):
    http, pg, port = free_ports(3)
    settings = {"FXLAB_QUESTDB_HTTP_PORT": str(http), "FXLAB_QUESTDB_PG_PORT": str(pg)}
    home = {"FXLAB_HOME": str(tmp_path / "home")}
    with web_server(tmp_path, port, **settings, **home) as alone:
        answer = alone.client.get("/data-collection/sessions")
        assert answer.status_code == 503
        assert "fxlab up" in answer.json()["next_step"]
        assert alone.client.get("/openapi.json").json() == document()


def test_a_server_that_stops_stops_what_runs(recorded, lab, free_ports, tmp_path):
    with web_server(tmp_path, free_ports(1)[0]) as ending:
        for _ in range(6):
            one = started(ending, recorded, acceleration_factor=0.001)
        ending.client.post(f"/executions/{one['session_id']}/stop")
        assert ending.stop() == 0
        assert "Traceback" not in ending.log.read_text()


def test_the_older_systems_calls_are_answered(shared_data, tmp_path):
    """What its clients ask, of a home that holds one imported session."""
    own = settings_at(tmp_path / "home")
    embedded.up(own)
    try:
        with fxlab.connect(own) as lab:
            ticks = random_walk(ROWS, symbol="BTC_USDT").drop("bid_qty_1", "ask_qty_1")
            lab.import_frame(ticks, "prices", session_id="migrated")
        (tmp_path / "web").mkdir()
        with web_server(tmp_path / "web", pick_ports(1)[0], **own.environment()) as web:
            check = shared_data.parent / "checks" / "rest_check.py"
            command = [sys.executable, str(check), web.url, str(ROWS), TOKEN]
            asked = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (asked.returncode, asked.stdout) == (0, "REST: all right\n"), asked.stderr
    finally:
        embedded.down(own)
