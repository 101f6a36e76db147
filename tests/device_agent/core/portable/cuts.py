"""Scenarios in which the power goes at the n-th write, flush, rename or removal."""

from device_agent.core.spool import Spool
from tests.device_agent.core.portable.bench import TRIAL, Bench, model
from tests.device_agent.core.portable.failing_storage import HALF, KEPT, LOST, BenchStorage, PowerCut

MODES = (LOST, HALF, KEPT)


def _ready():
    b = Bench()
    b.boot()
    b.deliver(model(1), "first")
    b.run(lambda: b.ended("first"))
    b.settle(1)
    return b


def _install(b):
    b.deliver(model(2), "second")
    return "second"


def _coded(b):
    data = model(2, size=1000)
    transport = b.broker.blob(bytes([1, 0xE8, 0x03, 0x17, 0xFC]) + data)
    transport["coding"] = "deflate"
    b.deliver(data, "second", transport=transport)
    return "second"


def _trial(b):
    b.deliver(model(2), "second", trial=TRIAL)
    return "second"


def _bad_trial(b):
    b.deliver(model(2, shift=1), "second", trial=TRIAL)
    return "second"


def _roll_back(b):
    b.deliver(model(2), "second")
    b.run(lambda: b.ended("second"))
    b.deliver(model(1), "back")
    return "back"


# name: (what is delivered, tags that may serve at any moment, tag at the end)
SCENARIOS = {
    "install": (_install, (1, 2), 2),
    "coded": (_coded, (1, 2), 2),
    "trial": (_trial, (1, 2), 2),
    "bad_trial": (_bad_trial, (1, 2), 1),
    "roll_back": (_roll_back, (1, 2), 1),
}


def _work(b):
    """Three requests of the application, whose answers the model 1 knows."""
    if b.serving() is not None:
        b.work(3)


def _finish(b, delivery, tags, restarts):
    """Step until the delivery is over, working meanwhile; the power may go at any moment."""
    end = b.clock.ticks_ms() + 3600000
    while True:
        try:
            if b.agent is None:
                b.boot()
                restarts.append(b.storage.operations)
            while not b.ended(delivery):
                assert b.clock.ticks_ms() < end, b.lines[-5:]
                b.steps(5)
                _work(b)
                assert b.honest(), b.lines[-5:]
                assert b.serving() in tags or b.agent.apps["main"].load_slot is not None, b.serving()
            b.settle(1)
            return
        except PowerCut:
            b.agent = None


def operations(name):
    """How many moments to lose power at a scenario has."""
    b = _ready()
    begun = b.storage.operations
    deliver, tags, _ = SCENARIOS[name]
    delivery = deliver(b)
    _finish(b, delivery, tags, [])
    return b.storage.operations - begun


def all_of_them():
    """How many cuts every moment of every scenario makes, in every mode."""
    return sum([operations(name) for name in SCENARIOS]) * len(MODES)


def cut(name, number, mode):
    """Lose power at one moment of a scenario; the device must get through, with the right model."""
    b = _ready()
    deliver, tags, last = SCENARIOS[name]
    b.storage.mode = mode
    b.storage.cut_at = b.storage.operations + number
    restarts = []
    try:
        delivery = deliver(b)
    except PowerCut:  # while the scenario was being prepared
        b.agent = None
        delivery = "back"
        b.boot()
        b.run(lambda: b.ended("second"))
        b.deliver(model(1), "back")
    _finish(b, delivery, tags, restarts)
    context = (name, number, mode, b.lines[-6:])
    assert b.installed() == b.serving() == last, context
    assert b.outcome() == ("rolled_back" if name == "bad_trial" else "succeeded"), context
    b.command("hello", "told")
    b.settle(2)
    facts = b.broker.messages("hello")[-1]["apps"]["main"]
    held = b.agent.apps["main"].installed()
    assert facts["installed"]["artifact"] == held["artifact"], context
    assert facts["outcome"]["delivery"] == delivery, context
    return len(restarts)


def cuts(every, offset=0):
    """Cut every `every`-th moment of every scenario in every mode; returns how many were cut."""
    done = 0
    for name in sorted(SCENARIOS):
        for number in range(1 + offset, operations(name) + 1, every):
            for mode in MODES:
                cut(name, number, mode)
                done += 1
    return done


def spool_cuts():
    """Lose power at every moment of filling a spool; returns how many there were."""
    done = 0
    for mode in MODES:
        number = 1
        while True:
            storage = BenchStorage()
            storage.mode, storage.cut_at = mode, number
            kept = []
            try:
                spool = Spool(storage, 400)
                for i in range(12):
                    spool.put("status", b"message %02d" % i)
                    kept.append(i)
            except PowerCut:
                spool = Spool(storage, 400)
                spool.put("status", b"message 99")
                kept.append(99)
            else:
                break
            found = _numbers(spool)
            # What `put` returned from is there, unless it was dropped as the oldest; the one cut may be there.
            assert found[-1] == 99 and found == sorted(found), (mode, number, found)
            assert [i for i in kept[-4:] if i not in found] == [], (mode, number, found, kept)
            number += 1
            done += 1
    return done


def _numbers(spool):
    found = []
    entry = spool.next()
    while entry is not None:
        found.append(int(entry[1][-2:]))
        entry = spool.next()
    return found
