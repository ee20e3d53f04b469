"""Requests and answers as the OpenAPI document has them: values checked, JSON, errors and statuses.

The document (``openapi.json``) is what requests are checked by, so it cannot be wrong about them:
names, types, defaults and limits stand there once. What a value means, and whether it can be done,
the called functions know.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from http.client import responses
from pathlib import Path
from typing import Any, Final

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import best_match
from tornado.web import HTTPError

from fxlab import errors
from fxlab._times import parse_json
from fxlab.errors import FxlabError, InvalidParameter

PREFIX: Final = "/fxlab/api"
SAFE: Final = 2**53 - 1
"""The largest whole number that every reader of JSON gets as it was sent."""
SHOWN: Final = 80
ABOUT_LOGIN: Final = frozenset({"token", "_xsrf", "no_track_activity"})
"""Parameters that the Jupyter Server itself reads."""

STATUS: Final[tuple[tuple[type[FxlabError], int], ...]] = (
    (errors.NotFound, 404),
    (errors.InvalidInput, 400),
    (errors.SessionBusy, 409),
    (errors.SessionExists, 409),
    (errors.EmptySession, 409),
    (errors.QuestDBUnavailable, 503),
    (errors.QuestDBLoginFailed, 503),
    (errors.VenueError, 503),
)
NEXT_STEP: Final[Mapping[type[FxlabError] | int, str]] = {
    errors.SessionNotFound: f"GET {PREFIX}/data-collection/sessions lists the sessions",
    errors.RunNotFound: f"GET {PREFIX}/executions lists what this server has started",
    403: "send the server's token, as in Authorization: token TOKEN; jupyter server list shows it",
    404: f"GET {PREFIX}/openapi.json lists what there is",
    405: f"GET {PREFIX}/openapi.json lists what there is",
    500: "the server's log has the traceback",
}
"""What a client over HTTP can do, where that is not what the message ends with."""


class Overloaded(FxlabError):  # noqa: N818 - as one says it
    """More work waits than this server keeps."""


@cache
def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    text = Path(__file__).with_name("openapi.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def success(path: str, method: str) -> int:
    """Return the status of an answer that is no error."""
    return int(min(document()["paths"][path][method]["responses"]))


def values_of(
    path: str, method: str, query: Mapping[str, str], body: bytes, parts: Mapping[str, str]
) -> dict[str, Any]:
    """Return the values of a request by name, checked, with the defaults of the document.

    Parameters
    ----------
    path, method
        As the document has them.
    query, body, parts
        What follows the ``?``, what was sent, and what stands in the path.

    Raises
    ------
    InvalidParameter
        Naming the value, the rule and what it is for.
    """
    operation = document()["paths"][path][method]
    return _query(f"{method.upper()} {path}", operation, query) | _body(operation, body) | {**parts}


def _query(where: str, operation: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    specs = {one["name"]: one for one in operation.get("parameters", ()) if one["in"] == "query"}
    asked = [name for name in given if name not in ABOUT_LOGIN]
    errors.check_names(asked, specs or ["no parameters"], where)
    found = {name: s["schema"]["default"] for name, s in specs.items() if "default" in s["schema"]}
    for name, spec in specs.items():
        if name in given:
            found[name] = _converted(given[name], spec["schema"]["type"])
            _check({name: found[name]}, {"properties": {name: spec["schema"] | spec}})
    return found


def _converted(text: str, kind: str) -> object:
    """Return what a text of a query stands for; a text that is no such thing stays one."""
    if kind == "integer" and re.fullmatch(r"-?[0-9]{1,18}", text):
        return int(text)
    return {"true": True, "false": False}.get(text, text) if kind == "boolean" else text


def _body(operation: Mapping[str, Any], raw: bytes) -> dict[str, Any]:
    if "requestBody" not in operation:
        return {}
    name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].split("/")[-1]
    schema = document()["components"]["schemas"][name]
    try:
        given = parse_json(raw or b"{}")
    except (ValueError, RecursionError) as error:
        raise InvalidParameter(
            f"the body is no JSON ({str(error) or 'nested too deep'}); send one object, such as "
            '{"session_id": "..."}'
        ) from None
    if not isinstance(given, dict):
        raise InvalidParameter(
            f"the body is {json.dumps(given)[:SHOWN]}, and has to be one object, such as "
            '{"session_id": "..."}'
        )
    errors.check_names(given, schema["properties"] or ["no parameters"], name)
    _check(given, schema)
    defaults = {
        key: spec["default"] for key, spec in schema["properties"].items() if "default" in spec
    }
    return defaults | given


def _check(given: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    error = best_match(Draft202012Validator(schema).iter_errors(given))
    if error is not None:
        raise InvalidParameter(_words(error, given, schema))


def _words(error: ValidationError, given: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Return the name, the value, and what the document says of it."""
    if error.validator == "required" and not error.absolute_path:
        name = next(name for name in schema["required"] if name not in given)
        return f"{name} is required: {schema['properties'][name]['description']}"
    name = str(error.absolute_path[0])
    spec = schema["properties"][name]
    least, most = (spec.get(key) for key in ("minimum", "maximum"))
    limits = "" if least is None else f" from {least:,} to {most:,}"
    kind = f"of type {spec['type']}{limits}" if "type" in spec else "as described"
    if "enum" in spec:
        kind = f"one of {', '.join(spec['enum'])}"
    if given[name] in ("", []):
        kind = "anything"
    value = json.dumps(given[name])
    shown = value if len(value) <= SHOWN else f"{value[: SHOWN - 3]}..."
    return f"{name}={shown} is not {kind}; {name} is: {spec['description']}"


def encoded(value: object) -> str:
    """Return JSON that every reader understands: no NaN, and no number that loses digits."""
    return json.dumps(_plain(value), allow_nan=False, separators=(",", ":"))


def _plain(value: Any) -> Any:  # noqa: ANN401, PLR0911 - any value that an answer holds
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if -SAFE <= value <= SAFE else str(value)
        case float():
            return value if math.isfinite(value) else None
        case datetime():
            text = value.astimezone(UTC).isoformat(timespec="microseconds")
            return text.replace("+00:00", "Z")
        case Mapping():
            return {str(name): _plain(one) for name, one in value.items()}
        case list() | tuple():
            return [_plain(one) for one in value]
    if hasattr(value, "to_dicts"):  # a frame: its rows
        return _plain(value.to_dicts())
    return _plain(value.item()) if hasattr(value, "item") else str(value)


def problem(error: BaseException | None, status: int = 500) -> tuple[int, dict[str, str]]:
    """Return the status of an error, and its JSON: what is wrong, its name, and the next step."""
    if isinstance(error, FxlabError):
        found = 503 if isinstance(error, Overloaded) else _status(error)
        own = next((NEXT_STEP[kind] for kind in type(error).__mro__ if kind in NEXT_STEP), "")
        message = str(error)
        last = message.rpartition("; ")[2]
        return found, _problem(message, type(error).__name__, own or last)
    if isinstance(error, HTTPError):
        status = error.status_code
        message = error.log_message or ""
        message = message % error.args if error.args else message
    else:
        message = f"the request failed inside fxlab: {type(error).__name__}: {error}"[:500]
    words = responses.get(status, "Error")
    return status, _problem(message or words, words, NEXT_STEP.get(status, NEXT_STEP[404]))


def _status(error: FxlabError) -> int:
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def _problem(message: str, name: str, step: str) -> dict[str, str]:
    return {"error": message, "type": name, "next_step": step}
