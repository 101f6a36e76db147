"""One device's application: asks its agent for predictions over loopback and labels part of them a little later.

Run as a child: `python -m fleet.cli.demo.workload --port N --rows field.json`. Standard library only, as an
application on a small board would be.
"""

import argparse
import collections
import http.client
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

RATE_PER_S = 25
LABEL_EVERY = 2
LABEL_DELAY = 5
RETRY_S = 0.5


def ask(port: int, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """One request to the agent; raises OSError while it does not listen."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def play(port: int, rows: dict[str, Any], pace_s: float) -> None:
    """Go round the rows for ever; every second answer gets its true label a few predictions later."""
    waiting: collections.deque[tuple[Any, int]] = collections.deque()
    said = ""
    for number in itertools.count():
        row = number % len(rows["y"])
        try:
            status, answer = ask(port, "/predict", {"app": "main", "x": rows["x"][row]})
        except OSError as error:
            status, answer = 0, {"error": f"the agent does not listen: {error}"}
        if status != 200:
            said = say_once(said, str(answer.get("error")))
            time.sleep(RETRY_S)
            continue
        said = ""
        if number % LABEL_EVERY == 0:
            waiting.append((answer["prediction"], rows["y"][row]))
        if len(waiting) > LABEL_DELAY:
            prediction, label = waiting.popleft()
            label_later(port, prediction, label)
        time.sleep(pace_s)


def label_later(port: int, prediction: Any, label: int) -> None:
    """Tell the truth about an earlier prediction; an agent that restarted meanwhile has forgotten it."""
    try:
        ask(port, "/label", {"app": "main", "prediction": prediction, "y": label})
    except OSError as error:
        print(f"a label was lost: {error}", file=sys.stderr, flush=True)


def say_once(said: str, message: str) -> str:
    """Print a message when it differs from the last one; return what was said."""
    if message != said:
        print(message, flush=True)
    return message


def main() -> None:
    """Play until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=RATE_PER_S, help="predictions a second")
    options = parser.parse_args()
    play(options.port, json.loads(options.rows.read_text()), 1 / options.rate)


if __name__ == "__main__":
    main()
