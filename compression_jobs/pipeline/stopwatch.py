"""Times single runs of a model on this host."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

WARM_UP = 5
MIN_TIMED_RUNS, MAX_TIMED_RUNS = 100, 1000


def host_latency(run: Callable[[Any], Any], rows: Any) -> dict[str, float]:
    """Median and 95th percentile of `run(row)`, in microseconds."""
    runs = min(max(MIN_TIMED_RUNS, len(rows)), MAX_TIMED_RUNS) + WARM_UP
    times = np.empty(runs)
    for i in range(runs):
        row = rows[i % len(rows)]
        start = time.perf_counter_ns()
        run(row)
        times[i] = (time.perf_counter_ns() - start) / 1000
    p50, p95 = np.percentile(times[WARM_UP:], [50, 95])
    return {"p50": round(float(p50), 1), "p95": round(float(p95), 1)}
