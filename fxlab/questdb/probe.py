"""Does a server answer, and if not, what did it say last: asked while starting and by `status`.

The standard library's HTTP client does: it is quick to load and knows no proxies, which must not
come between fxlab and a server on loopback.
"""

from __future__ import annotations

import base64
import http.client
import re
from pathlib import Path
from typing import Final

from fxlab.questdb.endpoint import Endpoint

_TELLING: Final = re.compile(r"(?i:error|exception|critical|could not|cannot|failed)| [EC] ")
_TAIL_BYTES: Final = 65_536


def refusal(endpoint: Endpoint, timeout: float = 2.0) -> str:
    """Return why an HTTP query is not answered, or an empty text when it is."""
    connection = http.client.HTTPConnection(endpoint.host, endpoint.http_port, timeout=timeout)
    try:
        connection.request("GET", "/exec?query=select%201", headers=_login(endpoint))
        code = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"it does not answer ({type(error).__name__}: {error})"
    finally:
        connection.close()
    if code == http.client.UNAUTHORIZED:
        return "it refuses the user name or password"
    return "" if code == http.client.OK else f"it answers with HTTP status {code}"


def last_words(log: Path, limit: int = 5) -> str:
    """Return the last lines of a log that tell what went wrong, or simply the last ones."""
    try:
        text = log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
    except OSError as error:
        return f"no log ({error.strerror})"
    lines = [line.strip() for line in text.splitlines() if line.strip() and line[0] != "\t"]
    telling = [line for line in lines if _TELLING.search(line)]
    return " | ".join((telling or lines)[-limit:]) or "it printed nothing"


def _login(endpoint: Endpoint) -> dict[str, str]:
    if endpoint.http_auth is None:
        return {}
    token = base64.b64encode(":".join(endpoint.http_auth).encode()).decode()
    return {"Authorization": f"Basic {token}"}
