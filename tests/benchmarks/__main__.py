"""Runs benchmarks: `python -m tests.benchmarks` all of them, `python -m tests.benchmarks NAME [options]` one.

A benchmark is a module of this folder with `run(options) -> iterator of figures` and, when it has options,
`add_arguments(parser)`. Each result is one JSON line: {"bench": NAME, ...figures..., "n": ..., "seed": ...}.
Speed is stated as ratios measured in one run, because absolute times say more about the machine than about the code.
"""

import argparse
import importlib
import json
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Every benchmark of this folder."""
    return sorted(m.name for m in pkgutil.iter_modules([str(FOLDER)]) if not m.name.startswith("_"))


def play(name: str, module: ModuleType, arguments: list[str]) -> None:
    """Run one benchmark and print its lines."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.benchmarks {name}", description=module.__doc__)
    parser.add_argument("--seed", type=int, default=0)
    if hasattr(module, "add_arguments"):
        module.add_arguments(parser)
    options = parser.parse_args(arguments)
    for figures in module.run(options):
        print(json.dumps({"bench": name, **figures, "seed": options.seed}), flush=True)


def main(arguments: list[str]) -> int:
    """Run what was asked for; 2 for a name that does not exist."""
    known = names()
    chosen, rest = (arguments[:1], arguments[1:]) if arguments else (known, [])
    unknown = [name for name in chosen if name not in known]
    if unknown:
        print(f"no benchmark is called {unknown[0]}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    for name in chosen:
        play(name, importlib.import_module(f"tests.benchmarks.{name}"), rest)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
