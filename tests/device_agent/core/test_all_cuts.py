"""Every moment at which the power can go, on CPython and in the VM; the normal run takes a fixed sample."""

import subprocess

import pytest

from tests.device_agent.core.portable import cuts, test_bad_days
from tests.device_agent.core.test_in_micropython import ROOT, micropython

pytestmark = pytest.mark.full

IN_VM = "import sys; sys.path.insert(0, '.'); from tests.device_agent.core.portable import cuts; print(cuts.cuts(1), cuts.all_of_them())"


def test_every_cut_on_cpython() -> None:
    done = cuts.cuts(every=1)
    print(f"{done} power cuts, 0 exceptions")
    assert done == cuts.all_of_them() > 500


def test_every_cut_in_the_vm() -> None:
    command = [micropython(), "-X", "heapsize=8m", "-c", IN_VM]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    survived, wanted = map(int, done.stdout.split())
    print(f"{survived} power cuts in the VM, 0 exceptions")
    assert survived == wanted > 500


def test_a_full_disk_at_every_write_of_an_install() -> None:
    done = test_bad_days.full_disks(every=1)
    print(f"full at each of {done} writes, 0 exceptions")
    assert done > 15
