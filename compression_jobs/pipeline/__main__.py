"""The pipeline without a server: `python -m compression_jobs.pipeline inspect|run|search|convert`.

Results go to standard output and to `--out`, progress to standard error. Exit codes: 0 the goal is met,
2 the input was refused, 3 best effort but the goal is not met.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from compression_jobs.pipeline import transport
from compression_jobs.pipeline.candidate import Progress, Result
from compression_jobs.pipeline.dataset import check_pair, describe_dataset
from compression_jobs.pipeline.effort import Effort
from compression_jobs.pipeline.emit.table import FORMS
from compression_jobs.pipeline.errors import PipelineError, Refused
from compression_jobs.pipeline.goal import Goal, Objective
from compression_jobs.pipeline.graph.external import files_beside
from compression_jobs.pipeline.graph.facts import describe_model
from compression_jobs.pipeline.graph.ingest import inline_external
from compression_jobs.pipeline.publish import nearest_of
from compression_jobs.pipeline.ready import convert
from compression_jobs.pipeline.recipe import load_recipe
from compression_jobs.pipeline.run import run
from compression_jobs.pipeline.sandbox import run_limited
from compression_jobs.pipeline.search import search
from compression_jobs.pipeline.sensitivity import analyse
from compression_jobs.pipeline.suiting import suits
from compression_jobs.pipeline.targets import TARGETS

MET, REFUSED, NOT_MET, INTERRUPTED = 0, 2, 3, 130
BAR_WIDTH = 24
# Who keeps the state of a streaming model, by form.
KEEPERS = {
    "plan": "the interpreter does, and starts anew when it loads the plan or is told to reset.",
    "c": "model_run does, and starts anew after model_reset.",
    "tflite": "the runtime does, in resource variables.",
    "onnx": "ONNX has no place for them: each state is one more input, which takes what the run before gave as one more "
    "output. The file's metadata `states` names the pairs and the numbers of the first run.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = _parser().parse_args(arguments)
    try:
        return int(given.command(given))
    except PipelineError as error:
        print(f"refused: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m compression_jobs.pipeline", description=__doc__.splitlines()[0]
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    inspect = commands.add_parser("inspect", help="say what a model is, and whether data and target suit it")
    inspect.add_argument("model", type=Path)
    inspect.add_argument("--data", type=Path)
    inspect.add_argument("--target", choices=sorted(TARGETS))
    inspect.add_argument("--sensitivity", action="store_true", help="measure what each layer can spare")
    inspect.set_defaults(command=_inspect)
    ready = commands.add_parser("convert", help="write a ready int8 .tflite in another format")
    ready.add_argument("model", type=Path)
    ready.add_argument("--to", choices=list(FORMS), required=True, help="c writes a folder, or a .zip")
    ready.add_argument("--out", type=Path, required=True)
    ready.set_defaults(command=_convert)
    one = commands.add_parser("run", help="run one recipe for one target")
    _add_inputs(one)
    one.add_argument("--recipe", type=Path, required=True, help="YAML or JSON: a list of steps")
    one.add_argument("--target", required=True)
    one.set_defaults(command=_run)
    many = commands.add_parser("search", help="find the best candidate for each target")
    _add_inputs(many)
    many.add_argument("--target", action="append", required=True, help="may be given several times")
    many.add_argument("--max-drop", type=float, help="accuracy that may be lost, such as 0.01")
    many.add_argument(
        "--min-accuracy",
        type=float,
        help="share that must be right, such as 0.9; R² in regression, the area under the ROC curve for anomalies",
    )
    many.add_argument("--objective", choices=get_args(Objective), default="bytes")
    many.add_argument("--train-steps", type=int, default=Effort().train_steps, help="0: nothing is trained")
    many.add_argument("--max-candidates", type=int, default=Effort().candidates)
    many.add_argument("--max-seconds", type=float, help="only a stop; marks the lineage as cut short")
    many.set_defaults(command=_search)
    return parser


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)


# --- commands ------------------------------------------------------------------------------------


def _inspect(given: argparse.Namespace) -> int:
    facts = run_limited(describe_model, _existing(given.model), files_beside(given.model))
    shown: dict[str, Any] = {"model": facts}
    if given.data:
        shown["dataset"] = run_limited(describe_dataset, _existing(given.data))
        check_pair(facts, shown["dataset"])
    if given.sensitivity:
        if not given.data:
            raise Refused("--sensitivity needs rows to measure on", remedy="give --data")
        shown["sensitivity"] = run_limited(analyse, given.model, given.data)
    if given.target:
        shown["target"] = TARGETS[given.target].model_dump(mode="json")
        shown["suits"] = run_limited(suits, given.model, given.data, shown["target"])
    print(json.dumps(shown, indent=2))
    if given.target and not shown["suits"]["runs"]:
        raise Refused(f"{given.target} cannot run it: {'; '.join(shown['suits']['problems'])}")
    return MET


def _convert(given: argparse.Namespace) -> int:
    parent = given.out.absolute().parent
    if not parent.is_dir():
        raise Refused(f"{parent}: no such folder")
    makes_folder = given.to == "c" and given.out.suffix != ".zip"
    if given.out.exists() and given.out.is_dir() != makes_folder:
        kinds = ("file", "folder") if makes_folder else ("folder", "file")
        raise Refused(f"{given.out} is a {kinds[0]}; --out names the {kinds[1]} to write")
    if given.out.exists() and given.out.samefile(_existing(given.model)):
        raise Refused(f"{given.out} would be overwritten: name another file for what is made of it")
    made = run_limited(convert, _existing(given.model), given.to, given.out)
    print(f"{given.out}: {made['bytes']} bytes; its activations take {made['activation_bytes']}")
    if made["states"]:
        print(f"It keeps {made['state_bytes']} bytes from one run to the next; {KEEPERS[given.to]}")
    return MET


def _run(given: argparse.Namespace) -> int:
    recipe = load_recipe(given.recipe)
    model, data = _inputs(given)
    # Models that the recipe names lie beside it.
    others = {name: _existing(given.recipe.parent / name) for name in recipe.models_named}
    told = {"out": given.out, "seed": given.seed, "progress": _Printer(), "others": others}
    result = run(recipe, model, data, given.target, **told)
    return _report([result], given.out)


def _search(given: argparse.Namespace) -> int:
    try:
        goals = [
            Goal(
                target=target,
                min_accuracy=given.min_accuracy,
                max_drop=given.max_drop,
                objective=given.objective,
            )
            for target in given.target
        ]
        effort = Effort(
            train_steps=given.train_steps, candidates=given.max_candidates, max_seconds=given.max_seconds
        )
    except ValidationError as error:
        raise Refused(_in_words(error)) from error
    model, data = _inputs(given)
    told = {"out": given.out, "seed": given.seed, "progress": _Printer(), "effort": effort}
    results = search(goals, model, data, **told)
    return _report(list(results.values()), given.out)


def _in_words(error: ValidationError) -> str:
    found = error.errors()[0]
    name = f"{found['loc'][-1]}: " if found["loc"] else ""
    return name + found["msg"].removeprefix("Value error, ")


def _report(results: list[Result], out: Path) -> int:
    for result in results:
        print(result.sentence)
        nearest = nearest_of(out, result.target)
        if nearest.is_dir():
            print(f"{result.target}: the best effort is in {nearest}")
        if result.winner:
            print(f"{result.target}: {transport.sentence(result.winner.transport)}")
    return MET if all(result.met for result in results) else NOT_MET


# --- input and output ----------------------------------------------------------------------------


def _inputs(given: argparse.Namespace) -> tuple[Path, Path]:
    """Model and dataset; a model with its weights in a file beside it is made one file first."""
    model, data = _existing(given.model), _existing(given.data)
    try:
        given.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"--out {given.out} cannot be a folder: {error.strerror}") from error
    beside = files_beside(model)
    if beside:
        whole = given.out / "original.onnx"
        run_limited(inline_external, model, beside, whole)
        model = whole
    return model, data


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise Refused(f"{path}: no such file")
    return path


class _Printer:
    """Progress on standard error: one bar on a terminal, else a line a step."""

    def __call__(self, progress: Progress) -> None:
        if not sys.stderr.isatty():
            print(f"{progress.done}/{progress.total} {progress.message}", file=sys.stderr)
            return
        filled = BAR_WIDTH * progress.done // max(progress.total, 1)
        bar = "#" * filled + "." * (BAR_WIDTH - filled)
        end = "\n" if progress.done == progress.total else ""
        print(f"\r\033[K[{bar}] {progress.message[:90]}", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
