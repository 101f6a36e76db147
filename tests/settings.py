"""The product's settings, in a folder that each test process has for itself.

pytest-django loads the settings before any conftest, so the environment has to be set here.
"""

import os
import tempfile
from pathlib import Path

FOLDER = Path(tempfile.mkdtemp(prefix="tinyfleet-tests-"))
# Set and not defaulted: workers of pytest-xdist inherit the environment of the process that started them.
os.environ["TINYFLEET_VAR"] = str(FOLDER / "var")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A port that refuses at once: no test talks by accident to a server that somebody runs on this machine.
os.environ["REDIS_URL"] = "redis://127.0.0.1:1/0"

from fleet.config.settings import *  # noqa: E402, F403
