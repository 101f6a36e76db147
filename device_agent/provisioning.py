"""The provisioning file of a board, made by `tinyfleet device bundle`."""
# mypy: disable-error-code="type-arg"

import json
import sys

# What a board can spare; the provisioning file may say otherwise.
DEFAULTS = {"ring_entries": 32, "spool_bytes": 32768}
NEEDED = ("device", "target", "runtime", "apps", "broker", "client_id", "username", "password", "keys")


class NotProvisioned(Exception):
    """There is no usable provisioning file; the text names it and the way out."""


def provisioning(folder: str) -> dict:
    """The provisioning file in `folder`; raises NotProvisioned."""
    path = folder + "/provision.json"
    try:
        with open(path) as file:
            config = json.load(file)
        missing = [name for name in NEEDED if name not in config]
    except (OSError, ValueError, TypeError) as error:
        raise NotProvisioned("%s cannot be read (%s): make it with tinyfleet device bundle" % (path, error))
    if missing:
        raise NotProvisioned("%s lacks %s: make it again" % (path, ", ".join(missing)))
    for name in DEFAULTS:
        config.setdefault(name, DEFAULTS[name])
    config.setdefault("board", board_name())
    return dict(config)


def board_name() -> str:
    """What this board calls itself."""
    return str(getattr(sys.implementation, "_machine", sys.platform))[:64]
