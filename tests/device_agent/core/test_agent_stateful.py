"""Whatever happens in whatever order: no exception, only proven models serve, every message is well formed."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from device_agent.core import protocol
from device_agent.core.agent import NoModel
from tests.device_agent.core.portable import bench, failing_broker, failing_storage

FAULTS = st.lists(st.integers(min_value=failing_broker.KEEP, max_value=failing_broker.EMPTY), max_size=12)
MODELS = {
    1: bench.model(1),
    2: bench.model(2, shift=1),
    3: bench.model(3, fault=bench.UNLOADABLE),
    4: bench.model(4, fault=bench.CRASHING),
    5: bench.model(5, size=6000),
}
UNUSABLE = {3}


class AgentMachine(RuleBasedStateMachine):
    """One device against a broker that loses, doubles, reorders, truncates and flips, and a power that fails."""

    @initialize()
    def begin(self) -> None:
        self.bench = bench.Bench()
        self.delivery = 0
        self.asked: list[int] = []
        self.bench.boot()

    def _surviving(self, action) -> None:  # type: ignore[no-untyped-def]
        try:
            action()
        except failing_storage.PowerCut:
            self.bench.boot()

    @rule(
        tag=st.sampled_from(sorted(MODELS)),
        trial=st.sampled_from(["", "own", "shadow"]),
        honest=st.booleans(),
    )
    def offer(self, tag: int, trial: str, honest: bool) -> None:
        self.delivery += 1
        data = MODELS[tag]
        changes = {"trial": dict(bench.TRIAL, max_seconds=120)} if trial else {}
        if trial == "shadow":
            changes["trial"]["shadow"] = True
        if not honest:
            changes["self_test"] = self.bench.broker.blob(bench.self_test(data[1] + 1))
        self.bench.deliver(data, f"d{self.delivery}", **changes)

    @rule(
        tag=st.sampled_from(sorted(MODELS)),
        wrong=st.sampled_from(["device", "app", "target", "replay", "bytes"]),
    )
    def offer_what_must_be_refused(self, tag: int, wrong: str) -> None:
        fields = self.bench.manifest(MODELS[tag], "refused")
        topic = protocol.desired_topic("d-1", "main")
        before = self.bench.broker.retained.get(topic, b"")
        if wrong == "replay":
            fields["sequence"] = 0
        elif wrong != "bytes":
            fields[wrong] = "other"
        self.bench.sequence -= 1
        payload = self.bench.publish(fields)
        if wrong == "bytes":
            payload = payload[:-9] + b"x" + payload[-8:]
        self.bench.broker.retain(topic, payload)
        self._surviving(lambda: self.bench.steps(3))
        self.bench.broker.retain(topic, before)

    @rule(count=st.integers(1, 60))
    def step(self, count: int) -> None:
        self._surviving(lambda: self.bench.steps(count))

    @rule(faults=FAULTS)
    def disturb(self, faults: list[int]) -> None:
        self.bench.broker.faults = faults

    @rule(chunk=st.integers(0, 30))
    def lose_a_chunk(self, chunk: int) -> None:
        topics = sorted(t for t in self.bench.broker.retained if "/blobs/" in t)
        if topics:
            self.bench.broker.retained.pop(topics[chunk % len(topics)])

    @rule()
    def drop_the_connection(self) -> None:
        self.bench.transport.up = False

    @rule(up=st.booleans())
    def broker(self, up: bool) -> None:
        self.bench.broker.up = up

    @rule(
        operations=st.integers(1, 30),
        mode=st.sampled_from([failing_storage.LOST, failing_storage.HALF, failing_storage.KEPT]),
    )
    def cut_the_power_soon(self, operations: int, mode: int) -> None:
        storage = self.bench.storage
        storage.cut_at, storage.mode = storage.operations + operations, mode

    @rule()
    def restart(self) -> None:
        self._surviving(self.bench.boot)

    @rule(full=st.booleans())
    def disk(self, full: bool) -> None:
        self.bench.storage.full = full

    @rule(
        loads=st.integers(0, 12), files=st.integers(0, 12), in_pieces=st.booleans(), can_restart=st.booleans()
    )
    def fill_the_heap(self, loads: int, files: int, in_pieces: bool, can_restart: bool) -> None:
        self.bench.hungry, self.bench.storage.starved, self.bench.in_pieces = loads, files, in_pieces
        self.bench.can_restart = self.bench.agent.device.can_restart = can_restart

    @rule(minutes=st.integers(1, 5))
    def let_time_pass(self, minutes: int) -> None:
        self._surviving(lambda: self.bench.settle(minutes))

    @rule(count=st.integers(1, 12), label=st.sampled_from([None, 0, 1, "two"]))
    def work(self, count: int, label: object) -> None:
        def predict_and_label() -> None:
            for i in range(count):
                try:
                    number, _ = self.bench.agent.predict([i % bench.CLASSES])
                except (NoModel, ValueError):
                    continue
                if label is not None:
                    self.bench.agent.label(number, label)

        self._surviving(predict_and_label)

    @rule(
        name=st.sampled_from(["selftest", "report_now", "hello", "restart", "dance"]),
        number=st.integers(0, 9),
    )
    def command(self, name: str, number: int) -> None:
        self.bench.command(name, f"c{number}")

    @rule(topic=st.sampled_from(["command", "desired/main", "desired/x"]), payload=st.binary(max_size=200))
    def noise(self, topic: str, payload: bytes) -> None:
        self.bench.transport.deliver(protocol.ROOT + "/d/d-1/" + topic, payload)

    @rule()
    def lose_the_state(self) -> None:
        self.bench.storage.files.clear()
        self.bench.storage.durable.clear()
        self._surviving(self.bench.boot)

    @invariant()
    def only_proven_models_serve(self) -> None:
        app = self.bench.agent.apps["main"]
        assert self.bench.serving() not in UNUSABLE
        assert self.bench.honest()
        if app.serving is not None:
            assert app.serving.slot in app.state["slots"] or app.delivery.ends()

    @invariant()
    def messages_are_well_formed(self) -> None:
        for topic, payload in self.bench.broker.sent:
            leaf = protocol.parse_device_topic(topic)[1]
            getattr(protocol, "parse_" + leaf)(payload)
        self.bench.broker.sent.clear()

    def teardown(self) -> None:
        """When all is well again, the device takes the next good model."""
        if not hasattr(self, "bench"):
            return
        b = self.bench
        b.broker.up, b.broker.faults, b.storage.full, b.storage.cut_at = True, [], False, 0
        b.hungry, b.storage.starved, b.in_pieces = 0, 0, False
        b.broker.retained.update(b.broker.store)
        b.run(lambda: b.installed() is None or b.serving() is not None, minutes=240)
        b.run(lambda: b.agent.apps["main"].state["delivery"] is None, minutes=240)
        b.sequence += 1000
        b.deliver(bench.model(9), "last")
        b.run(lambda: b.ended("last"), minutes=120)
        assert b.outcome() == "succeeded"
        assert b.serving() == b.installed() == 9


TestAgent = AgentMachine.TestCase
TestAgent.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
