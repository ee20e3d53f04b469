"""``python -m fxlab`` is the command line, also where no script folder is on the path."""

from fxlab.cli import main

if __name__ == "__main__":
    main()
