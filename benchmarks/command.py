"""The command line of every benchmark: its own options, and `--tiny` for sizes a test affords.

The figures of a tiny run mean nothing; that it runs to its end keeps the benchmark from rotting.
`tests/test_benchmarks.py` runs every file here that can be run, with `--tiny`.
"""

from __future__ import annotations

import argparse
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


def options(parser: argparse.ArgumentParser, **tiny: object) -> argparse.Namespace:
    """Parse the command line.

    Parameters
    ----------
    tiny
        What `--tiny` sets of the parser's options; one that is given beside it still wins.
    """
    sizes = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in tiny.items())
    parser.add_argument("--tiny", action="store_true", help=f"try it out: {sizes}")
    if parser.parse_known_args()[0].tiny:
        parser.set_defaults(**tiny)
    return parser.parse_args()


@contextmanager
def server() -> Iterator[None]:
    """Start a server of this benchmark's own, for this process and those it starts."""
    import fxlab

    with tempfile.TemporaryDirectory() as home:
        os.environ["FXLAB_HOME"] = home
        ports = zip(("HTTP", "PG", "HEALTH"), _free_ports(3), strict=True)
        os.environ |= {f"FXLAB_QUESTDB_{name}_PORT": str(port) for name, port in ports}
        fxlab.up()
        try:
            fxlab.connect().close()  # makes the tables, which takes memory that nobody measures
            yield
        finally:
            fxlab.down()


def _free_ports(count: int) -> list[int]:
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [one.getsockname()[1] for one in taken]
    finally:
        for one in taken:
            one.close()
