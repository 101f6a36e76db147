#!/usr/bin/env python
"""Django's command line for this project."""

import os
import sys


def main() -> None:
    """Run one management command; a server that is not installed is one line, not a trace."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fleet.config.settings")
    try:
        from django.core.management import execute_from_command_line
    except ModuleNotFoundError as error:
        sys.exit(f"{error.name} is not installed; install the server with: pip install 'tinyfleet[server]'")
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
