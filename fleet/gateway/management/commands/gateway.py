"""`manage.py gateway`: the only part of the server that speaks MQTT; runs until it is stopped."""

import signal
from typing import Any

from django.core.management import BaseCommand, CommandError, CommandParser

from fleet.gateway.service import Gateway, SecondGatewayError


class Command(BaseCommand):
    """Run the gateway."""

    help = "Carries messages between the broker and the database until it is stopped (Ctrl-C, SIGTERM)."

    def add_arguments(self, parser: CommandParser) -> None:
        """Several gateways need different numbers, because a client id holds one connection."""
        parser.add_argument(
            "--instance", type=int, default=0, help="Number of this gateway, when several run."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until a signal comes."""
        try:
            gateway = Gateway(options["instance"])
        except SecondGatewayError as error:
            raise CommandError(str(error)) from error
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: gateway.stop())
        gateway.run()
