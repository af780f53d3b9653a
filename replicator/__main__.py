"""`python -m replicator` and the console script `replicator`."""

from __future__ import annotations

import sys

from replicator.cli.main import run


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run())


if __name__ == "__main__":
    main()
