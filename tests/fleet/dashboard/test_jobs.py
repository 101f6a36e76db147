"""The job pages: submit, refuse, watch, cancel, export."""

import pytest
from django.core.exceptions import ValidationError

from compression_jobs.models import Candidate, Job
from compression_jobs.pipeline.recipe import parse_recipe, recipe_schema
from fleet.accounts.roles import Role
from fleet.dashboard.forms.recipe import StepForm, option_field
from fleet.registry.models import Target
from tests.factories import DatasetFactory, JobFactory, TargetFactory, VersionFactory
from tests.fleet.dashboard.conftest import Login
from tests.fleet.dashboard.sending import as_sent


def fields(**changes: object) -> dict[str, object]:
    """A form that is accepted."""
    made = {"version": VersionFactory().pk, "dataset": DatasetFactory().pk, "targets": [TargetFactory().slug]}
    return {**made, "min_accuracy": "0.9", "max_drop": "", "objective": "bytes", "seed": "0", **changes}


def candidate(job: Job, target: Target, key: str, size: int, **fields: object) -> Candidate:
    """A measured candidate."""
    accuracy = {"value": 0.95, "low": 0.91, "high": 0.97, "n": 200}
    values: dict[str, object] = {"fits": True, "measurements": {"accuracy": accuracy}, **fields}
    return Candidate.objects.create(
        job=job, target=target, key=key, sha256=key * 64, format="onnx", bytes=size, **values
    )  # type: ignore[misc]


def test_a_job_is_submitted_and_the_same_one_again_is_refused(
    login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.registry.queueing.send", lambda *_, **__: None)
    client, form = login(Role.ENGINEER), fields(train_steps="0", candidates="")
    sent = client.post("/jobs/new/", form)
    job = Job.objects.get()
    assert sent.headers["Location"] == f"/jobs/{job.pk}/"
    assert job.goals == {"min_accuracy": 0.9, "max_drop": None, "objective": "bytes"}
    assert job.effort == {"train_steps": 0, "candidates": 40, "max_seconds": None}
    again = client.post("/jobs/new/", form)
    assert again.status_code == 409
    assert f"Follow job {job.pk}" in again.content.decode()


def test_a_goal_or_target_that_cannot_work_is_refused_in_words(login: Login) -> None:
    client = login(Role.ENGINEER)
    nothing = client.post("/jobs/new/", fields(min_accuracy=""))
    assert "Say what must survive" in nothing.content.decode()
    assert not Job.objects.exists()


def test_a_recipe_is_put_together_step_by_step_without_javascript(
    login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.registry.queueing.send", lambda *_, **__: None)
    client = login(Role.ENGINEER)
    form: dict[str, object] = fields(min_accuracy="", seed="7")
    for name in ("quantize", "prune"):
        form = {**as_sent(client.post("/jobs/new/", {**form, "edit": "add", "added": name}).content)}
    form |= {"step-0-granularity": "per_tensor", "step-1-sparsity": "0.25", "step-1-steps": "lots"}
    form = {**as_sent(client.post("/jobs/new/", {**form, "edit": "up-1"}).content)}
    assert form["step"] == ["prune", "quantize"]
    kept = [form[name] for name in ("step-0-steps", "step-1-granularity", "seed")]
    assert kept == [["lots"], ["per_tensor"], ["7"]]
    refused = client.post("/jobs/new/", form)
    assert "Enter a whole number." in refused.content.decode()
    sent = client.post("/jobs/new/", {**form, "step-0-steps": ""})
    assert sent.status_code == 302, sent.content.decode()
    prune, quantize = Job.objects.get().recipe
    assert (prune["options"]["sparsity"], prune["options"]["steps"]) == (0.25, 300)
    assert quantize["options"]["granularity"] == "per_tensor"
    assert "recipe prune (global, hard) → quantize" in client.get(sent.headers["Location"]).content.decode()


def test_what_no_recipe_can_be_is_refused_beside_it(login: Login) -> None:
    client, form = login(Role.ENGINEER), fields()
    late = client.post("/jobs/new/", {**form, "step": ["quantize", "prune"]})
    assert late.status_code == 422
    assert "prune cannot follow" in late.content.decode()
    assert as_sent(late.content)["step"] == ["quantize", "prune"]
    assert client.post("/jobs/new/", {**form, "step": "magic"}).status_code == 422
    many = client.post("/jobs/new/", {**form, "step": ["fold"] * 500, "edit": "add", "added": "fold"})
    assert len(as_sent(many.content)["step"]) == 32
    removed = client.post("/jobs/new/", {**form, "step": "fold", "edit": "remove-0"})
    assert "step" not in as_sent(removed.content)
    assert not Job.objects.exists()


def test_every_option_of_every_pass_has_a_field_that_takes_its_default() -> None:
    for name in recipe_schema():
        shown = StepForm(name, 0)
        sent = {f"step-0-{option}": field.value() for option, field in zip(shown.fields, shown, strict=True)}
        step = StepForm(name, 0, {key: value for key, value in sent.items() if value not in (None, False)})
        assert step.is_valid(), (name, step.errors)
        assert parse_recipe([step.step()]).as_list() == parse_recipe([name]).as_list()


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "3", 3),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "", None),
        ({"$ref": "#/$defs/Mode"}, "b", "b"),
        ({"type": "array", "items": {"type": "integer"}}, "[1, 2]", [1, 2]),
        ({"type": "string"}, "", None),
        ({"const": 4}, "4", 4),
    ],
)
def test_other_kinds_of_options_have_a_field_too(schema: dict[str, object], text: str, value: object) -> None:
    field = option_field("some_option", schema, {"Mode": {"enum": ["a", "b"]}})
    assert field.clean(text) == value


def test_a_list_that_is_none_is_refused_in_words() -> None:
    with pytest.raises(ValidationError, match="Write it as JSON"):
        option_field("layers", {"type": "array"}, {}).clean("[" * 1500)


def test_a_candidate_shows_all_that_is_known_and_lends_its_recipe(login: Login) -> None:
    job = JobFactory(state=Job.State.SUCCEEDED)
    made = candidate(
        job,
        job.targets.get(),
        "a",
        90_000,
        recipe=[{"name": "quantize", "options": {"granularity": "per_tensor", "samples": 64}}],
        fits=False,
        rejected="accuracy: 91.0 % of n = 200, 95.0 % asked",
        parameters=12_345,
        macs=6_789_000,
        transport_bytes=61_440,
        measurements={
            "missed": ["flash: 9 KiB too much"],
            "agreement": 0.935,
            "notes": ["n = 200 cannot show 1 point"],
            "host_latency_us": {"p50": 120, "p95": 180},
        },
    )
    page = login(Role.ENGINEER).get(f"/jobs/{job.pk}/").content.decode()
    for text in (
        "accuracy: 91.0 % of n",
        "9 KiB too much",
        "93.5",
        "12,345",
        "60",
        "180",
        "cannot show 1 point",
    ):
        assert text in page, text
    assert "&quot;samples&quot;: 64" in page
    form = as_sent(login(Role.ENGINEER).get(f"/jobs/new/?like={made.pk}").content)
    assert form["step"] == ["quantize"]
    assert (form["step-0-samples"], form["step-0-granularity"]) == (["64"], ["per_tensor"])
    assert form["targets"] == [made.target.slug]


def test_the_page_shows_progress_sentences_candidates_and_their_csv(login: Login) -> None:
    job = JobFactory(
        state=Job.State.RUNNING,
        progress={"step": "measure", "done": 2, "total": 8, "message": "int8", "target": "raspberry-pi-4"},
        results={"raspberry-pi-4": {"met": True, "shown": False, "sentence": "met with 86 KiB"}},
    )
    candidate(job, job.targets.get(), "a", 90_000, rejected="less accurate")
    client = login()
    page = client.get(f"/jobs/{job.pk}/").content.decode()
    for text in (
        "Measure for raspberry-pi-4: 2 of 8",
        "Met with 86 KiB.",
        "Less accurate.",
        "1 candidate measured.",
        'id="pareto-option"',
    ):
        assert text in page
    csv = client.get(f"/jobs/{job.pk}/?csv=pareto").content.decode().splitlines()
    assert csv[0].startswith("candidate,recipe,bytes,accuracy")
    assert csv[1].startswith("a,as uploaded,90000,0.95,0.91,0.97,200")


def test_cancelling_asks_first_and_then_stops_the_job(login: Login) -> None:
    job = JobFactory()
    client = login(Role.ENGINEER)
    assert "Cancel this job?" in client.get(f"/jobs/{job.pk}/").content.decode()
    assert "Cancel this job?" not in login().get(f"/jobs/{job.pk}/").content.decode()
    client.post(f"/jobs/{job.pk}/cancel/")
    job.refresh_from_db()
    assert job.state == Job.State.CANCELLED
    assert "is over already" in client.post(f"/jobs/{job.pk}/cancel/", follow=True).content.decode()


def test_the_page_shows_what_each_layer_can_spare(login: Login) -> None:
    layers = [
        {"name": "stem<b>", "parameters": 160, "quantized_drop": 0.25, "pruned_drop": 0.5},
        {"name": "head", "parameters": 330, "quantized_drop": 0.0, "pruned_drop": None},
    ]
    job = JobFactory(sensitivity={"n": 200, "split": "validation", "layers": layers})
    client = login(Role.VIEWER)
    page = client.get(f"/jobs/{job.pk}/").content.decode()
    assert all(
        words in page for words in ("What each layer can spare", "stem&lt;b&gt;", "25.0 %", "stays whole")
    )
    assert "What each layer" not in client.get(f"/jobs/{JobFactory().pk}/").content.decode()
