"""Requests made from the OpenAPI document, right and wrong ones, to the server that serves it."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markets import random_walk
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks
from web_server import WAIT, web_server

from fxlab.web._requests import document


@pytest.fixture(scope="module")
def web(server, tmp_path_factory):
    from conftest import pick_ports

    with web_server(tmp_path_factory.mktemp("web"), pick_ports(1)[0]) as found:
        yield found


CHECKS = [
    checks.content_type_conformance,
    checks.negative_data_rejection,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.status_code_conformance,
    checks.unsupported_method,
]
API = schemathesis.openapi.from_dict(document())
OPERATIONS = [
    (f"{method.upper()} {path}", API[path][method])
    for path, calls in document()["paths"].items()
    for method in calls
    if path != "/events"
]


@pytest.mark.parametrize(
    "operation", [one for _, one in OPERATIONS], ids=[name for name, _ in OPERATIONS]
)
def test_no_request_is_answered_otherwise_than_the_document_says(web, lab, unique, operation):
    own, closed = unique("fuzzed"), "http://127.0.0.1:9"
    lab.import_frame(
        random_walk(50, symbol="A").drop("bid_qty_1", "ask_qty_1"), "prices", session_id=own
    )
    modes = st.sampled_from([GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
    cases = modes.flatmap(lambda mode: operation.as_strategy(generation_mode=mode))

    # The same examples each time: who asked for what is known when one of them fails.
    @settings(
        max_examples=30, derandomize=True, database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=cases, is_own=st.booleans())
    def ask(case, is_own):
        if is_own and "session_id" in case.path_parameters:
            case.path_parameters["session_id"] = own
        if isinstance(case.body, dict):
            if is_own and "session_id" in case.body:
                case.body["session_id"] = own
            if "start-collection" in case.path:  # whatever it names, nothing outside is asked
                case.body["url"] = closed
        answer = case.call(base_url=web.url, headers=dict(web.client.headers), timeout=WAIT)
        assert answer.status_code != 500, answer.text
        case.validate_response(answer, checks=CHECKS)

    ask()
    for one in web.client.get("/executions").json()["executions"]:
        web.client.post(f"/executions/{one['session_id']}/stop")
