"""`manage.py render_grants`: the users' file of nats-server, written before the broker starts."""

from pathlib import Path
from typing import Any

from django.core.management import BaseCommand, CommandError, CommandParser

from fleet.gateway import nats_file
from fleet.gateway.grants import nats_users_file


class Command(BaseCommand):
    """Write every device that may connect into the broker's users' file."""

    help = "Writes the users' file of nats-server (BROKER_GRANTS=nats-file:PATH) from the database."

    def add_arguments(self, parser: CommandParser) -> None:
        """Another file than the one BROKER_GRANTS names, and whether to tell a running broker."""
        parser.add_argument("--path", type=Path, help="Instead of the file that BROKER_GRANTS names.")
        parser.add_argument("--reload", action="store_true", help="Have a running broker read it at once.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Write, and say where."""
        path = options["path"] or nats_users_file()
        if path is None:
            raise CommandError("BROKER_GRANTS names no file; set it to nats-file:PATH, or give --path")
        changed = nats_file.write(path)
        if options["reload"]:
            nats_file.Reloader(path).reload()
        if options["verbosity"]:
            self.stdout.write(f"{path} {'written' if changed else 'is up to date'}")
