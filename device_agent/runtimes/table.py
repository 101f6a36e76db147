"""Every runtime by the name that targets and provisioning files use; its package is imported when it is asked for."""

from device_agent.core.ports import Runtime
from device_agent.errors import AgentError, MissingPackageError

# name: (module, class, package it needs, extra that brings it)
RUNTIMES = {
    "onnxruntime": ("device_agent.runtimes.onnx", "OnnxRuntime", "onnxruntime", "agent"),
    "litert": ("device_agent.runtimes.litert", "LiteRtRuntime", "ai-edge-litert", "agent-litert"),
    "micropython": ("device_agent.runtimes.plan.runtime", "PlanRuntime", "numpy", "agent"),
}


def runtime(name: str) -> Runtime:
    """An empty runtime of that name; raises MissingPackageError, or AgentError for an unknown one."""
    if name not in RUNTIMES:
        raise AgentError(f"runtime {name} does not run on this agent; it has {', '.join(RUNTIMES)}")
    module, class_name, package, extra = RUNTIMES[name]
    try:
        # MicroPython has no importlib; the last argument makes it the module itself instead of its package.
        made = getattr(__import__(module, None, None, [class_name]), class_name)()
    except ImportError:
        raise MissingPackageError(package, extra)  # noqa: B904 - MicroPython has no `from`
    assert isinstance(made, Runtime)
    return made
