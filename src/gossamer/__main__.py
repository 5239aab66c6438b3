"""`python -m gossamer`, and the console script: an interruption while modules load is a line too."""

import sys


def run() -> None:
    """Load the command line and run it; exit code 130 where Ctrl-C comes first."""
    try:
        from .cli import run as command
    except KeyboardInterrupt:
        print("gossamer: interrupted", file=sys.stderr)  # noqa: T201
        sys.exit(130)
    command()


if __name__ == "__main__":
    run()
