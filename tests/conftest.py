"""What every test shares: an embedded Valkey-free, network-free Django, and loud skips for missing services."""

import os
import tempfile
from pathlib import Path

# Settings are read at import; each pytest-xdist worker gets a folder of its own, so nothing is shared by accident.
_FOLDER = Path(tempfile.mkdtemp(prefix="tinyfleet-tests-"))
os.environ.setdefault("TINYFLEET_VAR", str(_FOLDER / "var"))
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_unconfigure() -> None:
    """Remove this worker's folder."""
    import shutil

    shutil.rmtree(_FOLDER, ignore_errors=True)
