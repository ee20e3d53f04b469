"""Requests are checked by the document, and answers are JSON that every reader understands."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from tornado.web import HTTPError

from fxlab import errors
from fxlab.collect.feed import BookSnapshot, Event, Trade
from fxlab.web._executions import WebEvent
from fxlab.web._requests import document, encoded, problem, success, values_of
from fxlab.web.extension import CALLS

LIST = "/data-collection/sessions"
START = "/commands/start-backtest"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def asked(body, path=START):
    return values_of(path, "post", {}, json.dumps(body).encode(), {})


def test_the_document_has_the_paths_that_are_served_and_no_other():
    served = {(path, method) for path, calls in CALLS.items() for method in calls}
    written = {(path, method) for path, calls in document()["paths"].items() for method in calls}
    assert written == served | {("/events", "get")}


def test_the_document_is_sound():
    found = document()
    assert found["openapi"].startswith("3.1.")
    text = json.dumps(found)
    for part, names in found["components"].items():
        for name in names:
            used = f'"#/components/{part}/{name}"' in text
            assert used or (part, name) in {("securitySchemes", "token"), ("schemas", "Event")}
    for schema in found["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    operations = [one for calls in found["paths"].values() for one in calls.values()]
    assert len({one["operationId"] for one in operations}) == len(operations)
    for path, calls in found["paths"].items():
        for one in calls.values():
            named = {spec["name"] for spec in one.get("parameters", ()) if spec["in"] == "path"}
            assert named == {p[1:-1] for p in path.split("/") if p.startswith("{")}


def test_what_is_not_said_has_the_default_of_the_document():
    assert values_of(LIST, "get", {"token": "x"}, b"", {}) == {
        "sort": "created_at", "descending": True, "limit": 50, "offset": 0,
    }  # fmt: skip
    found = asked({"session_id": "a"})
    assert (found["acceleration_factor"], found["batch_size"], found["symbols"]) == (10, 100, "ALL")
    assert success(START, "post") == 202


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"limti": "1"}, "did you mean 'limit'"),
        ({"limit": "x"}, 'limit="x" is not of type integer from 1 to 1,000'),
        ({"limit": "0"}, "limit=0 is not of type integer from 1"),
        ({"limit": "1_0"}, "is not of type integer"),
        ({"descending": "yes"}, 'descending="yes" is not of type boolean'),
        ({"sort": "price"}, "is not one of created_at, started"),
        ({"status": ""}, 'status="" is not anything; status is: completed'),
    ],
)
def test_a_query_that_breaks_a_rule_is_refused_by_name(query, words):
    with pytest.raises(errors.InvalidParameter) as found:
        values_of(LIST, "get", query, b"", {})
    assert words in str(found.value)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"symbols": ["BTC_USDT"]}, "session_id is required: the session whose ticks are"),
        ({"session_id": 7}, "session_id=7 is not of type string; session_id is: the session"),
        ({"session_id": "a", "symbols": []}, "symbols=[] is not anything"),
        ({"session_id": "a", "symbols": [1]}, "symbols=[1] is not as described"),
        ({"session_id": "a", "acceleration_factor": 0}, "acceleration_factor=0 is not as"),
        ({"session_id": "a", "batch_size": 1.5}, "batch_size=1.5 is not of type integer"),
        ({"session_id": "a", "batch_size": True}, "batch_size=true is not of type integer"),
        ({"session_id": "a", "strategie": "x"}, "did you mean 'strategy'"),
        ([1], "the body is [1], and has to be one object"),
        (math.nan, "NaN is no JSON value"),
    ],
)
def test_a_body_that_breaks_a_rule_is_refused_by_name(body, words):
    with pytest.raises(errors.InvalidParameter) as found:
        asked(body)
    assert words in str(found.value)


@given(JSON)
def test_any_body_is_taken_or_refused_in_one_line(body):
    for path, calls in document()["paths"].items():
        if "requestBody" in calls.get("post", {}):
            try:
                found = asked(body, path)
            except errors.InvalidInput as error:
                found = dict([problem(error)])[400]
            assert len(str(found.get("error", ""))) < 800


def test_no_body_is_nested_too_deep():
    with pytest.raises(errors.InvalidParameter, match="no JSON"):
        values_of(START, "post", {}, b"[" * 200_000, {})
    with pytest.raises(errors.InvalidParameter, match="no JSON"):
        values_of(START, "post", {}, b"\xff", {})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"session_id": "a", "capital": 1e999}', "1e999 is no JSON value; leave it out"),
        ('{"session_id": "a", "session_id": "b"}', "'session_id' is there twice; leave one out"),
        ('{"session_id": "a", "parameters": {"fast": 3, "fast": 5}}', "'fast' is there twice"),
        ('{"session_id": "a", "batch_size": %s}' % ("9" * 5_000), "is no JSON"),
    ],
)
def test_a_body_means_one_thing_or_is_refused(body, words):
    with pytest.raises(errors.InvalidParameter) as found:
        values_of(START, "post", {}, body.encode(), {})
    assert words in str(found.value)


def test_json_loses_no_digit_and_knows_no_nan():
    moment = datetime(2024, 8, 8, 23, 54, 13, 123_456, tzinfo=UTC)
    frame = pl.DataFrame({"a": [math.nan, 1.5], "at": [moment, None]})
    value = {"f": frame, "n": [2**53 - 1, 2**53, -(2**63)], "x": (math.inf, np.float64("nan"))}
    assert json.loads(encoded(value)) == {
        "f": [{"a": None, "at": "2024-08-08T23:54:13.123456Z"}, {"a": 1.5, "at": None}],
        "n": [2**53 - 1, str(2**53), str(-(2**63))],
        "x": [None, None],
    }


@given(JSON)
def test_whatever_json_holds_is_encoded(value):
    json.loads(encoded(value), parse_constant=pytest.fail)


def test_every_error_has_a_status_and_a_next_step():
    statuses = {
        errors.SessionNotFound("no session named 'x'; list them with lab.sessions()"): 404,
        errors.InvalidTimeRange("start is no time; give one"): 400,
        errors.SessionBusy("it is being recorded; end the recording"): 409,
        errors.QuestDBUnavailable.at("127.0.0.1", 9000, "refused"): 503,
        errors.VenueUnavailable("kraken does not answer; try again later"): 503,
        errors.QueryFailed("what the server said"): 500,
        HTTPError(403): 403,
        HTTPError(405, "%s is not what %s takes", "POST", "/a"): 405,
        KeyError("x"): 500,
    }
    for error, status in statuses.items():
        found, body = problem(error, getattr(error, "status_code", 500))
        assert found == status
        assert set(body) == {"error", "type", "next_step"}
        assert all(body.values())
    down = problem(errors.QuestDBUnavailable.at("127.0.0.1", 9000, "refused"))[1]
    assert down["next_step"] == "run: fxlab up (in Python: fxlab.up())"
    lost = problem(errors.SessionNotFound("no session named 'x'"))[1]
    assert lost["next_step"] == "GET /fxlab/api/data-collection/sessions lists the sessions"


def test_ticks_say_what_they_are_and_ids_are_texts():
    found = json.loads(WebEvent.tick("s", Trade("A", 2**60, "buy", 1.5, 2.0, 10, 11)).text)
    assert found == {
        "type": "tick", "session_id": "s", "kind": "trade", "symbol": "A", "id": str(2**60),
        "side": "buy", "price": 1.5, "volume": 2.0, "time": 10, "received": 11, "origin": "live",
    }  # fmt: skip
    book = json.loads(WebEvent.tick("s", BookSnapshot("A", 7, [(1.0, 2.0)], [], 1, 2)).text)
    assert (book["kind"], book["update_id"], book["bids"]) == ("book_snapshot", "7", [[1.0, 2.0]])
    event = json.loads(WebEvent.tick("s", Event("reconnect", None, 1)).text)
    assert (event["kind"], event["event"]) == ("event", "reconnect")
