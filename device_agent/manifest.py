"""Which files of the agent a board needs, to freeze them into a firmware of your own, where they take no RAM.

Read by MicroPython's build (https://docs.micropython.org/en/latest/reference/manifest.html), which defines `metadata`
and `package`.
"""
# mypy: disable-error-code="name-defined"
# ruff: noqa: F821

metadata(description="The Tinyfleet agent of one device", version="0.1.0", license="Apache-2.0")

package(
    "device_agent",
    (
        "__init__.py",
        "board_host.py",
        "boards.py",
        "main.py",
        "provisioning.py",
        "core/__init__.py",
        "core/agent.py",
        "core/answers.py",
        "core/app.py",
        "core/backoff.py",
        "core/chunks.py",
        "core/coding.py",
        "core/commands.py",
        "core/decoding.py",
        "core/delivery.py",
        "core/device.py",
        "core/download.py",
        "core/ed25519.py",
        "core/histogram.py",
        "core/inflate.py",
        "core/install.py",
        "core/intake.py",
        "core/judging.py",
        "core/link.py",
        "core/metrics.py",
        "core/offers.py",
        "core/ports.py",
        "core/protocol.py",
        "core/ranges.py",
        "core/record.py",
        "core/ring.py",
        "core/segments.py",
        "core/selftest.py",
        "core/serving.py",
        "core/shadow.py",
        "core/slots.py",
        "core/spool.py",
        "core/storage.py",
        "core/trial.py",
        "core/trust.py",
        "core/trying.py",
        "runtimes/__init__.py",
        "runtimes/plan/__init__.py",
        "runtimes/plan/interpreter.py",
        "runtimes/plan/kernels.py",
        "runtimes/plan/kinds.py",
        "runtimes/plan/layout.py",
        "runtimes/plan/runtime.py",
        "transports/__init__.py",
        "transports/packets.py",
        "transports/umqtt.py",
        "transports/utls.py",
    ),
    base_path="..",
    opt=3,
)
