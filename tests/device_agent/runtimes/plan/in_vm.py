"""Run by the MicroPython VM: every plan of a folder over its rows, with the heap locked while kernels run.

in_vm FOLDER ram|stream|portable: reads NAME.plan and NAME.in, writes NAME.out.
"""

import os
import sys

import micropython

from device_agent.runtimes.plan.interpreter import Plan


def run(folder, mode):
    kernels = None
    if mode == "portable":
        from device_agent.runtimes.plan import portable

        kernels = portable.kernels()
    plan = Plan(kernels)
    for name in sorted(os.listdir(folder)):
        if name.endswith(".plan"):
            run_one(plan, folder + "/" + name[:-5], mode)
    plan.unload()


def run_one(plan, path, mode):
    plan.load(path + ".plan", mode == "stream")
    assert plan.streams == (mode == "stream")
    inputs = [bytearray(edge[1]) for edge in plan.inputs]
    outputs = [bytearray(edge[1]) for edge in plan.outputs]
    with open(path + ".in", "rb") as given, open(path + ".out", "wb") as answers:
        while True:
            for buffer in inputs:
                if given.readinto(buffer) != len(buffer):
                    return
            if mode != "portable":  # bytecode makes an object of every pointer
                micropython.heap_lock()
            try:
                plan.run(inputs, outputs)
            finally:
                if mode != "portable":
                    micropython.heap_unlock()
            for buffer in outputs:
                answers.write(buffer)


run(sys.argv[1], sys.argv[2])
