"""Entry point of the command line: ``fxlab``, or ``python -m fxlab`` without a script."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; Ctrl-C while its modules are being read is no traceback."""
    try:
        from fxlab._cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("Stopped: nothing had begun\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
