"""Hardware classes: what their data sheets give, what is subtracted, and what is left for one artifact.

`flash_bytes` and `ram_bytes` are never typed in: they are the totals minus every line of `subtraction`.
Reserves are rounded up from what this project measured (agent and runtimes) or from the vendor's own layout.
"""

from collections.abc import Iterable
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, computed_field, model_validator

from compression_jobs.pipeline.errors import refuse_all

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

CHUNK_BYTES_LINUX = 32 * KIB
CHUNK_BYTES_MICROPYTHON = 4 * KIB

RuntimeName = Literal["onnxruntime", "litert", "micropython", "tflite-micro"]
Bytes = Annotated[int, Field(ge=0)]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]

# Runtimes that no agent of this project drives: artifacts are measured and downloaded, never enrolled.
EXPORT_ONLY = frozenset({"tflite-micro"})


class Reserve(BaseModel):
    """One line of the subtraction: what takes flash or RAM before a model may have any."""

    model_config = ConfigDict(frozen=True)

    what: str
    flash_bytes: Bytes = 0
    ram_bytes: Bytes = 0


class Target(BaseModel):
    """A hardware class; its free flash and RAM follow from the totals and the listed reserves."""

    model_config = ConfigDict(frozen=True)

    slug: Slug
    name: str
    runtime: RuntimeName
    chip: str
    clock_hz: Annotated[int, Field(gt=0)]
    flash_total_bytes: Bytes
    ram_total_bytes: Bytes
    source: str
    subtraction: tuple[Reserve, ...] = ()
    latency_us: Annotated[int, Field(gt=0)] | None = None
    chunk_bytes: Annotated[int, Field(gt=0)] = CHUNK_BYTES_LINUX

    @computed_field  # type: ignore[prop-decorator]
    @property
    def flash_bytes(self) -> int:
        """Flash free for one artifact."""
        return self.flash_total_bytes - sum(line.flash_bytes for line in self.subtraction)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def ram_bytes(self) -> int:
        """RAM free for one artifact and its arena."""
        return self.ram_total_bytes - sum(line.ram_bytes for line in self.subtraction)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def export_only(self) -> bool:
        """Whether artifacts for it are downloaded by hand instead of rolled out."""
        return self.runtime in EXPORT_ONLY

    @model_validator(mode="after")
    def _something_is_left(self) -> "Target":
        for kind, left in (("flash", self.flash_bytes), ("RAM", self.ram_bytes)):
            if left <= 0:
                raise ValueError(f"{self.slug}: the subtraction leaves no {kind} for a model ({left} bytes)")
        return self


def second_slot(flash_total_bytes: int, reserves: Iterable[Reserve]) -> Reserve:
    """The line that keeps half of the remaining flash for the other slot, so that an update can be undone."""
    left = flash_total_bytes - sum(line.flash_bytes for line in reserves)
    return Reserve(
        what="second slot (the version before, for roll-back)", flash_bytes=max(left, 0) - max(left, 0) // 2
    )


def refuse_unknown(slugs: Iterable[str], targets: "dict[str, Target] | None" = None) -> None:
    """Raise `Refused` naming every target that is not there, and those that are."""
    known = TARGETS if targets is None else targets
    refuse_all(
        [f"{slug}: no such target" for slug in slugs if slug not in known],
        f"choose among {', '.join(sorted(known))}",
    )


def export_only_sentence(target: Target) -> str:
    """Why a device of this target can be neither enrolled nor rolled out to."""
    return (
        f"{target.slug} is export only: compress for it, read the measurements and download the artifact; "
        f"no agent runs on {target.runtime}, so devices of it cannot be enrolled or take part in a rollout"
    )


# --- presets -------------------------------------------------------------------------------------

_LINUX_SOFTWARE = {
    "onnxruntime": Reserve(
        what="Python, onnxruntime and numpy (71 MB resident with a tiny session)",
        flash_bytes=256 * MIB,
        ram_bytes=80 * MIB,
    ),
    "litert": Reserve(
        what="Python, LiteRT and numpy (33 MB resident)", flash_bytes=192 * MIB, ram_bytes=48 * MIB
    ),
}
_LINUX_TLS = Reserve(what="TLS session and MQTT client", ram_bytes=4 * MIB)
_LINUX_SPOOL = Reserve(what="spool of unsent reports, state records", flash_bytes=64 * MIB, ram_bytes=4 * MIB)


def _linux(runtime: str, os_ram: int, application_ram: int) -> list[Reserve]:
    return [
        Reserve(what="operating system", flash_bytes=4 * GIB, ram_bytes=os_ram),
        _LINUX_SOFTWARE[runtime],
        _LINUX_TLS,
        _LINUX_SPOOL,
        Reserve(what="the application and its data", flash_bytes=4 * GIB, ram_bytes=application_ram),
    ]


def _board(
    slug: str,
    name: str,
    runtime: RuntimeName,
    chip: str,
    clock_hz: int,
    flash_total: int,
    ram_total: int,
    source: str,
    reserves: list[Reserve],
) -> Target:
    lines = list(reserves)
    if runtime not in EXPORT_ONLY:
        lines.append(second_slot(flash_total, reserves))
    return Target(
        slug=slug,
        name=name,
        runtime=runtime,
        chip=chip,
        clock_hz=clock_hz,
        flash_total_bytes=flash_total,
        ram_total_bytes=ram_total,
        source=source,
        subtraction=tuple(lines),
        chunk_bytes=CHUNK_BYTES_MICROPYTHON if runtime == "micropython" else CHUNK_BYTES_LINUX,
    )


_CARD = "16 GB card, the least the documentation recommends for Raspberry Pi OS Lite"
_CARD_BYTES = 16_000_000_000


class _LinuxBoard(NamedTuple):
    slug: str
    name: str
    chip: str
    clock_hz: int
    ram_bytes: int
    source: str
    os_ram: int
    application_ram: int

    def target(self, runtime: RuntimeName, suffix: str = "") -> Target:
        return _board(
            self.slug + suffix,
            self.name + (" (LiteRT)" if suffix else ""),
            runtime,
            self.chip,
            self.clock_hz,
            _CARD_BYTES,
            self.ram_bytes,
            self.source,
            _linux(runtime, self.os_ram, self.application_ram),
        )


_LINUX_BOARDS = [
    _LinuxBoard(
        "raspberry-pi-4",
        "Raspberry Pi 4 Model B",
        "BCM2711, 4x Cortex-A72",
        1_500_000_000,
        1 * GIB,
        f"Raspberry Pi 4 Model B product brief (smallest variant, 1 GB); {_CARD}",
        256 * MIB,
        256 * MIB,
    ),
    _LinuxBoard(
        "raspberry-pi-5",
        "Raspberry Pi 5",
        "BCM2712, 4x Cortex-A76",
        2_400_000_000,
        2 * GIB,
        f"Raspberry Pi 5 product brief (2 GB variant); {_CARD}",
        256 * MIB,
        512 * MIB,
    ),
    _LinuxBoard(
        "raspberry-pi-zero-2-w",
        "Raspberry Pi Zero 2 W",
        "RP3A0 (BCM2710A1), 4x Cortex-A53",
        1_000_000_000,
        512 * MIB,
        f"Raspberry Pi Zero 2 W product brief (512 MB); {_CARD}",
        160 * MIB,
        96 * MIB,
    ),
    _LinuxBoard(
        "jetson-nano",
        "NVIDIA Jetson Nano",
        "Tegra X1, 4x Cortex-A57",
        1_430_000_000,
        4 * GIB,
        "NVIDIA Jetson Nano module data sheet (4 GB LPDDR4, 16 GB eMMC)",
        1 * GIB,
        1 * GIB,
    ),
]

_AGENT_MICROPYTHON = Reserve(what="agent and plan interpreter", flash_bytes=64 * KIB, ram_bytes=64 * KIB)
_SPOOL_MICROPYTHON = Reserve(
    what="spool of unsent reports, state records", flash_bytes=64 * KIB, ram_bytes=4 * KIB
)
_TLS_MICROPYTHON = Reserve(what="TLS session (mbedTLS record buffers)", ram_bytes=40 * KIB)


def _micropython(firmware: Reserve, radio: Reserve) -> list[Reserve]:
    return [firmware, radio, _TLS_MICROPYTHON, _AGENT_MICROPYTHON, _SPOOL_MICROPYTHON]


_MICROCONTROLLERS = [
    _board(
        "esp32-s3",
        "ESP32-S3 (8 MB flash, no PSRAM)",
        "micropython",
        "ESP32-S3, 2x Xtensa LX7",
        240_000_000,
        8 * MIB,
        512 * KIB,
        "ESP32-S3 series data sheet (512 KB SRAM); ESP32-S3-WROOM-1-N8 module; MicroPython's 8 MiB partition table",
        _micropython(
            Reserve(
                what="MicroPython firmware, ESP-IDF data, caches", flash_bytes=2 * MIB, ram_bytes=144 * KIB
            ),
            Reserve(what="Wi-Fi and lwIP buffers", ram_bytes=64 * KIB),
        ),
    ),
    _board(
        "esp32",
        "ESP32 (4 MB flash, no PSRAM)",
        "micropython",
        "ESP32, 2x Xtensa LX6",
        240_000_000,
        4 * MIB,
        520 * KIB,
        "ESP32 series data sheet (520 KB SRAM); ESP32-WROOM-32E-N4 module; MicroPython's 4 MiB partition table",
        _micropython(
            Reserve(
                what="MicroPython firmware, ESP-IDF data, 192 KB instruction RAM",
                flash_bytes=2 * MIB,
                ram_bytes=232 * KIB,
            ),
            Reserve(what="Wi-Fi and lwIP buffers", ram_bytes=64 * KIB),
        ),
    ),
    _board(
        "rp2040",
        "Raspberry Pi Pico W",
        "micropython",
        "RP2040, 2x Cortex-M0+",
        133_000_000,
        2 * MIB,
        264 * KIB,
        "RP2040 data sheet (264 KB SRAM); Pico W data sheet (2 MB flash); MicroPython's RPI_PICO_W layout "
        "(848 KiB of file system)",
        _micropython(
            Reserve(what="MicroPython firmware and its data", flash_bytes=1200 * KIB, ram_bytes=32 * KIB),
            Reserve(what="CYW43 driver and lwIP buffers", ram_bytes=24 * KIB),
        ),
    ),
    _board(
        "stm32f746",
        "STM32F746 Discovery",
        "tflite-micro",
        "STM32F746NG, Cortex-M7",
        216_000_000,
        1 * MIB,
        320 * KIB,
        "STM32F745xx STM32F746xx data sheet DS10916 (1 MB flash, 320 KB SRAM)",
        [
            Reserve(what="your firmware and its stack", flash_bytes=256 * KIB, ram_bytes=64 * KIB),
            Reserve(
                what="TensorFlow Lite Micro interpreter and kernels", flash_bytes=96 * KIB, ram_bytes=16 * KIB
            ),
            Reserve(what="TLS and network stack", flash_bytes=128 * KIB, ram_bytes=64 * KIB),
        ],
    ),
    _board(
        "nrf52840",
        "Nordic nRF52840",
        "tflite-micro",
        "nRF52840, Cortex-M4F",
        64_000_000,
        1 * MIB,
        256 * KIB,
        "nRF52840 product specification (1 MB flash, 256 KB RAM)",
        [
            Reserve(what="your firmware and its stack", flash_bytes=256 * KIB, ram_bytes=48 * KIB),
            Reserve(
                what="TensorFlow Lite Micro interpreter and kernels", flash_bytes=96 * KIB, ram_bytes=16 * KIB
            ),
            Reserve(what="SoftDevice (Bluetooth stack)", flash_bytes=152 * KIB, ram_bytes=32 * KIB),
        ],
    ),
]

TARGETS: dict[str, Target] = {
    target.slug: target
    for target in [
        *(board.target("onnxruntime") for board in _LINUX_BOARDS),
        *(board.target("litert", "-litert") for board in _LINUX_BOARDS),
        *_MICROCONTROLLERS,
    ]
}
