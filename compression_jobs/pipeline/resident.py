"""How much more memory this process held at its peak than before."""

import contextlib
import re
import resource
import sys
from pathlib import Path

KIB = 1024


class ResidentSet:
    """Takes the resident set now; `increase` compares it with the peak since."""

    def __init__(self) -> None:
        # Linux forgets the peak of the imports; elsewhere the peak can only have been higher before.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self._before = _status("VmRSS") or _peak()

    def increase(self) -> int:
        """Bytes between the resident set at the start and the peak since; 0 when it never grew."""
        return max((_status("VmHWM") or _peak()) - self._before, 0)


def _status(field: str) -> int | None:
    with contextlib.suppress(OSError):
        found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return int(found[1]) * KIB if found else None
    return None


def _peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * KIB
