"""The rules of the house: sizes, names, docstrings, layers, and documents that say what the code says."""

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CODE = ("fleet", "compression_jobs", "device_agent")
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["tinyfleet"]["house"]
MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 40
TOP_LEVEL = {
    *("manage.py", "pyproject.toml", "README.md", "docker-compose.yml", "fleet", "compression_jobs", "device_agent", "tests"),
    *("Makefile", "LICENSE", "CHANGELOG.md", ".ci", ".gitignore", ".pre-commit-config.yaml"),
}  # fmt: skip


def tracked(*suffixes: str) -> list[str]:
    """Paths git tracks or would track, with one of the suffixes."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]
    return [p for p in paths if p.endswith(suffixes)] if suffixes else paths


PYTHON = [p for p in tracked(".py") if "/migrations/" not in p]
PRODUCT = [p for p in PYTHON if p.split("/")[0] in CODE]


def functions(path: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function of a file with its dotted name."""

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield prefix + child.name, child
                yield from walk(child, prefix + child.name + ".")
            elif isinstance(child, ast.ClassDef):
                yield from walk(child, prefix + child.name + ".")

    yield from walk(ast.parse((ROOT / path).read_text()), "")


def test_only_the_agreed_names_stand_at_the_top() -> None:
    assert {path.split("/")[0] for path in tracked()} == TOP_LEVEL


def test_files_stay_under_400_lines() -> None:
    long = {p: n for p in PYTHON if (n := len((ROOT / p).read_text().splitlines())) > MAX_FILE_LINES}
    assert set(long) == set(CONFIG["long_files"]), long


def test_functions_stay_under_40_lines() -> None:
    long = {
        f"{path}:{name}"
        for path in PYTHON
        for name, node in functions(path)
        if (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert long == set(CONFIG["long_functions"])


def test_every_module_and_public_function_says_what_it_is() -> None:
    silent = []
    for path in PRODUCT:
        tree = ast.parse((ROOT / path).read_text())
        if tree.body and not ast.get_docstring(tree):
            silent.append(path)
        for name, node in functions(path):
            parts = name.split(".")
            nested_in_function = any(part[:1].islower() for part in parts[:-1])
            public = not any(part.startswith("_") for part in parts) and not nested_in_function
            if public and not ast.get_docstring(node) and not overrides_documented(node):
                silent.append(f"{path}:{node.lineno} {name}")
    assert silent == []


def overrides_documented(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a decorator says that the base class documents it (`@override`, setters, overloads)."""
    names = {ast.unparse(d).split(".")[-1] for d in node.decorator_list}
    return bool(names & {"override", "setter", "overload"})


def test_nothing_is_unfinished() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")
    found = [
        f"{p}:{i}"
        for p in PRODUCT
        for i, line in enumerate((ROOT / p).read_text().splitlines(), 1)
        if marks.search(line)
    ]
    assert found == CONFIG["unfinished_marks"]


def test_no_function_has_an_empty_body() -> None:
    def empty(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
        body = [s for s in node.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
        return not body or all(isinstance(s, ast.Pass) for s in body)

    hollow = [
        f"{p}:{name}"
        for p in PRODUCT
        for name, node in functions(p)
        if empty(node) and not overrides_documented(node)
    ]
    assert sorted(hollow) == sorted(CONFIG["empty_bodies"])


def test_no_drawer_for_everything() -> None:
    banned = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers"}
    assert [p for p in PYTHON if banned & {part.removesuffix(".py") for part in p.split("/")}] == []


def test_package_files_stay_empty() -> None:
    assert [p for p in PRODUCT if p.endswith("__init__.py") and (ROOT / p).read_text().strip()] == []


def test_no_machine_path_stands_in_the_project() -> None:
    pattern = re.compile(r"/(?:work|home|Users|root)/[a-z]+/")
    found = [
        p
        for p in tracked(".py", ".md", ".yml", ".toml", ".html", ".sh")
        if pattern.search((ROOT / p).read_text())
    ]
    assert found == ["tests/test_house.py"] or found == []


def test_the_sample_of_thorough_variants_names_tests_that_exist() -> None:
    named = re.findall(r"(tests/[\w/]+\.py)::(\w+)", (ROOT / "Makefile").read_text())
    assert named
    gone = [f"{path}::{name}" for path, name in named if f"def {name}(" not in (ROOT / path).read_text()]
    assert gone == []


def test_readme_lists_every_environment_variable() -> None:
    from fleet.config.environment import VARIABLES

    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"^\| `([A-Z][A-Z0-9_]+)` \|", readme, flags=re.MULTILINE))
    assert named == {variable.name for variable in VARIABLES}


def test_readme_names_only_things_that_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    missing = [t for t in re.findall(r"`make ([a-z-]+)", readme) if t not in targets]
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", readme) if "://" not in link]
    missing += [link for link in links if not (ROOT / link).exists()]
    assert missing == []


def test_every_thorough_test_of_the_sample_exists() -> None:
    listed = (ROOT / "Makefile").read_text().partition("SAMPLE := ")[2].partition("\n\n")[0]
    sample = shlex.split(listed.replace("\\\n", " "))
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n", "0", "-m", "full", *sample]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert sample
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("app", ["inventory", "telemetry", "rollouts", "registry"])
def test_each_app_uses_the_same_file_names(app: str) -> None:
    names = {p.name for p in (ROOT / "fleet" / app).iterdir()}
    assert {"models.py", "services.py", "tasks.py", "api.py", "apps.py"} <= names
