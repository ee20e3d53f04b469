"""The web surface: fxlab over HTTP, as an extension of the Jupyter Server."""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Say to the Jupyter Server what to load."""
    from fxlab.web.extension import WebExtension

    return [{"module": "fxlab.web.extension", "app": WebExtension}]
