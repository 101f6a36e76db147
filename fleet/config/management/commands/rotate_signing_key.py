"""`manage.py rotate_signing_key`: a new key for manifests, which devices learn of under a key they know."""

from typing import Any

from django.core.management import BaseCommand

from fleet.registry import signing


class Command(BaseCommand):
    """Make a new signing key; nothing stops working."""

    help = (
        "Makes a new signing key. Devices learn of it with their next rollout; until then the old one signs."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        """Make it and say what comes next."""
        key_id = signing.rotate()
        self.stdout.write(
            f"key {key_id} signs from now on for every device that knows it; the others learn of it with their next "
            "rollout. Copy KEYS_DIR. The old file may go when the hello of every device names the new key."
        )
