"""What a board's latency is expected to be, until its devices report it.

Multiplications x cycles a multiplication / clock, plus a fixed cost a call, times the factor that devices of
the target have shown. Cycles are for one core; they are estimates and not measurements of these boards.
"""

from compression_jobs.pipeline.targets import Target

# Runtime -> cycles a multiply-accumulate in float32 and in int8, and microseconds a call.
# NEON does four float32 multiply-adds a cycle; about a third of that is reached on small layers.
# micropython: counted in the machine code of the viper kernels without flash waits (`python -m tests.benchmarks
# plan_kernels`): the geometric mean over the networks of MLPerf Tiny; dense layers take fewer, depthwise ones more.
CYCLES: dict[str, tuple[float, float, float]] = {
    "onnxruntime": (0.75, 0.5, 40.0),
    "litert": (0.75, 0.4, 20.0),
    "micropython": (150.0, 37.0, 2000.0),
    "tflite-micro": (12.0, 4.0, 100.0),
}


def estimate_us(target: Target, macs: int, quantized: bool, factor: float = 1.0) -> int:
    """Estimated latency of one inference on the target, in microseconds."""
    real, integer, call_us = CYCLES[target.runtime]
    cycles = macs * (integer if quantized else real)
    return max(1, round(factor * (cycles / target.clock_hz * 1e6 + call_us)))


def factor_note(target: Target, factor: float | None) -> str:
    """Where the estimate comes from, in one sentence."""
    if factor is None:
        return f"latency on {target.slug} is estimated from multiplications and clock; no device has reported yet"
    return f"latency on {target.slug} is estimated and corrected by the factor {factor:.2f} that its devices showed"
