"""`python -m device_agent.runtimes.plan MODEL.plan INPUT.bin OUTPUT.bin`: run a plan over a file of raw int8 tensors.

Any number of inputs, one after the other; what a streaming plan keeps goes on from one to the next. CPython runs the NumPy twin, MicroPython the kernels; the bytes are equal.
"""

import sys

USAGE = "usage: python -m device_agent.runtimes.plan MODEL.plan INPUT.bin OUTPUT.bin"


def main(arguments: "list[str]") -> int:
    """Run the command and return its exit code; what went wrong is one line on standard error."""
    if len(arguments) != 3:
        return _fail(USAGE)
    try:
        done = _run(*arguments)
    except (OSError, ValueError, MemoryError) as error:
        return _fail(str(error) or error.__class__.__name__)
    print(done, "inputs")
    return 0


def _run(model: str, source: str, target: str) -> int:
    if sys.implementation.name == "micropython":
        from device_agent.runtimes.plan.interpreter import Plan
    else:
        from device_agent.runtimes.plan.twin import Plan  # type: ignore[assignment]
    if target in (model, source):
        raise ValueError("%s would be overwritten: name another file for the outputs" % target)
    plan = Plan()
    try:
        plan.load(model)
    except (OSError, ValueError) as error:
        raise ValueError("%s: %s" % (model, _reason(error)))  # noqa: B904  MicroPython warns about `from`
    inputs = [bytearray(edge[1]) for edge in plan.inputs]
    outputs = [bytearray(edge[1]) for edge in plan.outputs]
    done = 0
    with _opened(source, "rb") as given, _opened(target, "wb") as answers:
        while _filled(given, inputs, source):
            plan.run(inputs, outputs)
            for buffer in outputs:
                answers.write(buffer)
            done += 1
    plan.unload()
    if not done:
        raise ValueError("%s is empty" % source)
    return done


def _filled(file, buffers: "list[bytearray]", name: str) -> bool:  # type: ignore[no-untyped-def]
    """Whether there was one more set of inputs."""
    missing = 0
    for buffer in buffers:
        missing += len(buffer) - file.readinto(buffer)
    size = sum([len(buffer) for buffer in buffers])
    if missing not in (0, size):
        raise ValueError("%s is no whole number of inputs of %d bytes" % (name, size))
    return not missing


def _opened(name: str, mode: str):  # type: ignore[no-untyped-def]
    try:
        return open(name, mode)
    except OSError as error:
        raise ValueError("%s: %s" % (name, _reason(error)))  # noqa: B904  MicroPython warns about `from`


def _reason(error: Exception) -> str:
    """Why, without the name of the file, which only CPython says."""
    return getattr(error, "strerror", None) or str(error)


def _fail(reason: str) -> int:
    sys.stderr.write("plan: " + reason + "\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
