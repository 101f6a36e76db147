"""Targets: what is left follows from the listed subtraction, and what cannot be made is refused in words."""

import pytest
from pydantic import ValidationError

from compression_jobs.pipeline.benches import BENCHES
from compression_jobs.pipeline.emit.table import EMITTERS
from compression_jobs.pipeline.errors import Refused
from compression_jobs.pipeline.ladder import LADDERS
from compression_jobs.pipeline.targets import (
    TARGETS,
    Reserve,
    Target,
    export_only_sentence,
    refuse_unknown,
)


@pytest.mark.parametrize("target", TARGETS.values(), ids=str)
def test_what_is_left_is_the_total_minus_every_line(target: Target) -> None:
    assert target.flash_bytes == target.flash_total_bytes - sum(
        line.flash_bytes for line in target.subtraction
    )
    assert target.ram_bytes == target.ram_total_bytes - sum(line.ram_bytes for line in target.subtraction)
    assert 0 < target.flash_bytes < target.flash_total_bytes
    assert 0 < target.ram_bytes < target.ram_total_bytes


@pytest.mark.parametrize("target", [t for t in TARGETS.values() if not t.export_only], ids=str)
def test_managed_targets_keep_as_much_flash_for_the_version_before(target: Target) -> None:
    second = [line for line in target.subtraction if line.what.startswith("second slot")]
    assert [line.flash_bytes for line in second] == [target.flash_bytes]


def test_the_presets_are_those_of_the_design() -> None:
    linux = ["raspberry-pi-4", "raspberry-pi-5", "raspberry-pi-zero-2-w", "jetson-nano"]
    runtimes = dict.fromkeys(linux, "onnxruntime") | {f"{slug}-litert": "litert" for slug in linux}
    runtimes |= dict.fromkeys(("esp32-s3", "esp32", "rp2040"), "micropython")
    runtimes |= dict.fromkeys(("stm32f746", "nrf52840"), "tflite-micro")
    assert {slug: target.runtime for slug, target in TARGETS.items()} == runtimes


def test_artifacts_are_written_and_measured_for_every_runtime() -> None:
    runtimes = {target.runtime for target in TARGETS.values()}
    assert runtimes == EMITTERS.keys() == BENCHES.keys() == LADDERS.keys()


def test_unknown_targets_are_refused_all_at_once() -> None:
    with pytest.raises(Refused) as refused:
        refuse_unknown(["raspberry-pi-4", "pdp-11", "toaster"])
    assert refused.value.problems == ["pdp-11: no such target", "toaster: no such target"]
    assert "esp32, esp32-s3, jetson-nano" in refused.value.remedy


def test_export_only_is_said_in_a_sentence() -> None:
    assert "export only" in export_only_sentence(TARGETS["stm32f746"])


def test_a_target_that_leaves_nothing_is_refused() -> None:
    plain = TARGETS["esp32"].model_dump(exclude={"flash_bytes", "ram_bytes", "export_only"})
    plain["subtraction"] = [Reserve(what="everything", ram_bytes=plain["ram_total_bytes"])]
    with pytest.raises(ValidationError, match="leaves no RAM"):
        Target.model_validate(plain)
