"""What a device does with its transport, run by test_umqtt.py in CPython and in the MicroPython VM.

`umqtt_scenario.py SCENARIO CONFIG.json` prints one JSON object.
"""

import gc
import json
import sys
import time

sys.path.insert(0, ".")

from device_agent.core import ports
from device_agent.transports.umqtt import UmqttTransport

PRESENCE = "fleet/v1/d/pi-1/presence"
REPORT = "fleet/v1/d/pi-1/report"
COMMAND = "fleet/v1/d/pi-1/command"
READY = "fleet/v1/d/pi-1/status"
CHUNKS = ["fleet/v1/blobs/%d" % i for i in range(16)]


class ScenarioClock(ports.Clock):
    """Milliseconds that neither interpreter lets go back during a test."""

    def ticks_ms(self):
        """Milliseconds since 1970."""
        return int(time.time() * 1000)


def until(transport, look):
    """Keep the connection going until `look` is true."""
    end = time.time() + 20
    while not look():
        if time.time() > end:
            raise OSError("waited in vain, " + str(transport.failure()))
        transport.wait(50)


def opened(config, session=1):
    """A connection, or the reason why there is none."""
    transport = UmqttTransport(config, ScenarioClock(), 1)
    again(transport, session)
    return transport


def again(transport, session):
    """Connect and wait for the answer."""
    transport.connect(PRESENCE, b"gone", session)
    until(transport, lambda: transport.connected() or transport.failure())


def next_message(transport):
    """The next message, copied out of the transport's buffer."""
    found = []

    def look():
        message = transport.receive()
        if message is not None:
            found.append((message[0], bytes(message[1])))
        return found

    until(transport, look)
    return found[0]


def chunk_message(transport, done, commands):
    """The next chunk of another topic than those: a busy embedded broker may send a retained one twice, as devices know.

    The command may come at any time; it is put into `commands`.
    """
    message = next_message(transport)
    while message[0] in done or message[0] == COMMAND:
        if message[0] == COMMAND:
            commands.append(message)
        message = next_message(transport)
    return message


def talk(config):
    """Publish, fetch a window of chunks, take a command, say good-bye."""
    transport = opened(config)
    transport.subscribe([(COMMAND, 1)])
    transport.publish(READY, b"", 1)
    tokens = [transport.publish(REPORT, b"%d" % i * 900, 1) for i in range(20)]

    commands = []

    def acknowledged():
        message = transport.receive()
        if message is not None:
            commands.append((message[0], bytes(message[1])))
        return all(transport.acknowledged(token) for token in tokens)

    until(transport, acknowledged)
    gc.collect()
    transport.subscribe([(topic, 0) for topic in CHUNKS])
    right, done = True, []
    for topic in CHUNKS:
        gc.collect()
        right = right and chunk_message(transport, done, commands) == (topic, (topic.encode() * 500)[:4096])
        done.append(topic)
    transport.unsubscribe(CHUNKS)
    while not commands:
        message = next_message(transport)
        if message[0] not in done:
            commands.append(message)
    transport.publish(PRESENCE, b"offline", 1, True)
    transport.disconnect(True)
    return {
        "chunks": right,
        "command": [commands[0][0], commands[0][1].decode()],
        "unknown": transport.acknowledged(999),
    }


def refused(config):
    """Why there is no connection."""
    try:
        transport = opened(config)
    except OSError as error:
        return {"reason": str(error)}
    return {"reason": transport.failure(), "connected": transport.connected()}


def lost(config):
    """Tell that the broker may be killed; notice it, and connect to the next one."""
    transport = opened(config)
    first = transport.publish(REPORT, b"before", 1)

    def closed():
        transport.receive()
        return not transport.connected()

    until(transport, closed)
    reason = transport.failure()
    try:
        transport.publish(REPORT, b"x", 1)
        refusal = ""
    except OSError as error:
        refusal = str(error)
    end = time.time() + 20
    while True:
        try:
            again(transport, 2)
            if transport.connected():
                break
        except OSError:
            pass  # the broker is not back yet
        if time.time() > end:
            raise OSError("the broker did not come back")
        time.sleep(0.05)
    stale = transport.acknowledged(first)
    token = transport.publish(REPORT, b"after", 1)
    until(transport, lambda: transport.receive() or transport.acknowledged(token))
    transport.disconnect(False)
    return {"reason": reason, "refusal": refusal, "stale": stale}


def quiet(config):
    """Nothing happens for three keep-alive times."""
    transport = opened(config)
    end = time.time() + 3
    while time.time() < end and transport.connected():
        transport.receive()
        transport.wait(100)
    result = {"connected": transport.connected()}
    transport.disconnect(True)
    return result


def hostile(config):
    """What is left of one connection after another to a broker that says nonsense."""
    ends = []
    for session in range(config["connections"]):
        transport = UmqttTransport(config, ScenarioClock(), 1)
        transport.connect(PRESENCE, b"gone", session)
        messages = 0
        while transport.failure() is None:
            messages += transport.receive() is not None
            transport.connected()
            transport.wait(20)
        ends.append([transport.failure(), messages, transport.connected()])
        transport.disconnect(False)
    return {"ends": ends}


SCENARIOS = {"hostile": hostile, "talk": talk, "refused": refused, "lost": lost, "quiet": quiet}

if __name__ == "__main__":
    with open(sys.argv[2]) as config_file:
        fields = json.loads(config_file.read())
    print(json.dumps(SCENARIOS[sys.argv[1]](fields)))
