"""The entry point `tinyfleet`."""

import sys


def main() -> None:
    """Run the command line; an extra that is not installed is one line, not a trace."""
    try:
        from fleet.cli.commands import run
    except ModuleNotFoundError as error:
        sys.exit(f"tinyfleet: {error.name} is not installed; install with: pip install 'tinyfleet[cli]'")
    sys.exit(run())


if __name__ == "__main__":
    main()
