"""The parts of generated C files that depend on no operator."""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from compression_jobs.pipeline.graph import quantgraph as q

LINE_NUMBERS = 20

TEST_MAIN = r"""#include "model.h"

#include "test_vector.h"

#include <stdio.h>

#define TEST_ROUNDS 2

int main(void)
{
    static int8_t answer[MODEL_OUTPUT_BYTES];
    int wrong = 0;
    for (int round = 0; round < TEST_ROUNDS; round++) {
#ifdef MODEL_STATE_BYTES
        if (round)
            model_reset();
#endif
        for (int32_t i = 0; i < TEST_COUNT; i++) {
            model_run(test_inputs + i * MODEL_INPUT_BYTES, answer);
            for (int32_t j = 0; j < MODEL_OUTPUT_BYTES; j++)
                wrong += answer[j] != test_outputs[i * MODEL_OUTPUT_BYTES + j];
        }
    }
    printf("%d of %d numbers are wrong\n", wrong, TEST_ROUNDS * TEST_COUNT * MODEL_OUTPUT_BYTES);
    return wrong != 0;
}
"""

CMAKE = """cmake_minimum_required(VERSION 3.13)
project(model C)
set(CMAKE_C_STANDARD 99)
set(CMAKE_C_EXTENSIONS OFF)

add_library(model STATIC model.c)
target_include_directories(model PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_compile_options(model PRIVATE -Wall -Wextra)

enable_testing()
add_executable(model_test test_main.c)
target_link_libraries(model_test model)
add_test(NAME model_test COMMAND model_test)
"""

_HEADER = """/* An int8 model written by Tinyfleet. Nothing here allocates; model_run is not reentrant. */
#ifndef MODEL_H
#define MODEL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

/* real = scale * (stored - zero point); several tensors lie one after the other. */
{edges}
#define MODEL_ARENA_BYTES {arena}

/* `input` and `output` must not overlap. */
void model_run(const int8_t *input, int8_t *output);
{reset}
#ifdef __cplusplus
}}
#endif

#endif
"""


_KEEPS = """
/* A run goes on from what the run before has left. This forgets it: call it where a new stream of inputs begins. */
void model_reset(void);

#define MODEL_STATE_BYTES {bytes}
"""


def header(graph: q.QuantGraph, arena_bytes: int) -> str:
    """The text of model.h."""
    lines = _edge_lines(graph, graph.inputs, "INPUT") + _edge_lines(graph, graph.outputs, "OUTPUT")
    reset = _KEEPS.format(bytes=graph.state_bytes) if graph.states else ""
    return _HEADER.format(edges="\n".join(lines), arena=arena_bytes, reset=reset)


def reset_function(states: list[q.State], places: dict[str, str]) -> str:
    """The bytes that are kept, and the function that gives them their first values; the first run calls it."""
    text, lines = "\nstatic int8_t state[MODEL_STATE_BYTES];\nstatic int started;\n", []
    for position, state in enumerate(states):
        values, place = state.first.reshape(-1), places[state.name]
        if np.all(values == values[0]):
            lines.append(f"    memset({place}, {values[0]}, {values.size});")
        else:
            text += array(f"first{position}", "int8_t", values)
            lines.append(f"    memcpy({place}, first{position}, {values.size});")
    body = "\n".join([*lines, "    started = 1;"])
    return f"{text}\nvoid model_reset(void)\n{{\n{body}\n}}\n"


def _edge_lines(graph: q.QuantGraph, names: list[str], kind: str) -> list[str]:
    lines = [f"#define MODEL_{kind}_BYTES {sum(graph.tensors[name].size for name in names)}"]
    for position, name in enumerate(names):
        tensor = graph.tensors[name]
        stem = f"MODEL_{kind}" if len(names) == 1 else f"MODEL_{kind}_{position}"
        lines.append(f"/* {comment(name)}: int8 {list(tensor.shape)} */")
        lines.append(f"#define {stem}_SCALE {_float(tensor.scale)}")
        lines.append(f"#define {stem}_ZERO_POINT ({tensor.zero_point})")
    return lines


def comment(text: str) -> str:
    """Text from a file as it may stand in a comment: it must not end it."""
    return re.sub(r"[^A-Za-z0-9 _.,:#=-]", "_", text)[:100]


def array(name: str, kind: str, values: Iterable[Any]) -> str:
    """A constant array."""
    numbers = [str(int(value)) for value in values]
    lines = [
        ", ".join(numbers[start : start + LINE_NUMBERS]) for start in range(0, len(numbers), LINE_NUMBERS)
    ]
    body = ",\n    ".join(lines)
    return f"static const {kind} {name}[{len(numbers)}] = {{\n    {body}\n}};\n"


def initializer(values: Iterable[Any]) -> str:
    """A list of values, names and lists of them in braces."""
    parts = [
        initializer(value)
        if isinstance(value, list | np.ndarray) and np.ndim(value)
        else value
        if isinstance(value, str)
        else str(int(value))
        for value in values
    ]
    return "{" + ", ".join(parts) + "}"


def _float(value: float) -> str:
    text = np.format_float_scientific(np.float32(value), unique=True)
    return f"{text.replace('.e', '.0e')}f"
