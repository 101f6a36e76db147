"""Models, versions, uploads, aliases, artifacts."""

from unittest.mock import ANY

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from fleet.accounts.roles import Role
from fleet.registry.models import Alias, CheckState, Dataset, Model, ModelVersion
from tests.factories import ArtifactFactory, DatasetFactory, ModelFactory, VersionFactory, npz, onnx_bytes
from tests.fleet.dashboard.conftest import Login


@pytest.fixture(autouse=True)
def _quiet_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    # No broker runs here; the outcome of a check is the registry's own test.
    monkeypatch.setattr("fleet.registry.queueing.send", lambda *_, **__: ANY)


def test_a_new_model_leads_to_its_upload_and_an_upload_to_the_page_that_watches_the_check(
    login: Login,
) -> None:
    client = login(Role.ENGINEER)
    made = client.post(
        "/models/new/", {"slug": "digits", "name": "Digits", "task": "classification", "description": ""}
    )
    assert made.headers["Location"] == "/models/digits/upload/"
    sent = client.post(
        made.headers["Location"],
        {"model_files": SimpleUploadedFile("m.onnx", onnx_bytes()), "notes": "first"},
    )
    assert sent.headers["Location"] == "/models/digits/1/"
    page = client.get("/models/digits/1/").content.decode()
    assert "checking" in page
    assert f'data-live="version:{ModelVersion.objects.get().pk}"' in page


def test_a_refused_upload_says_exactly_why_beside_the_form(login: Login) -> None:
    ModelFactory(slug="digits")
    client = login(Role.ENGINEER)
    answer = client.post("/models/digits/upload/", {"model_files": SimpleUploadedFile("m.pt", b"PK")})
    assert answer.status_code == 422
    assert (
        "an upload is one .onnx or .tflite file, or an .onnx with its data file; this one is m.pt"
        in answer.content.decode()
    )
    first = {"model_files": SimpleUploadedFile("m.onnx", onnx_bytes(1))}
    client.post("/models/digits/upload/", first)
    again = client.post(
        "/models/digits/upload/", {"model_files": SimpleUploadedFile("other.onnx", onnx_bytes(1))}
    )
    assert again.status_code == 409
    assert "this file is digits version 1 already" in again.content.decode()


def test_the_reasons_of_a_refused_version_stand_on_its_page(login: Login) -> None:
    problems = ["Loop_3: control flow", "If_4: control flow"]
    VersionFactory(
        model=ModelFactory(slug="m"),
        state=CheckState.REFUSED,
        reason="2 nodes cannot be used",
        problems=problems,
    )
    page = login().get("/models/m/1/").content.decode()
    assert all(text in page for text in ("2 nodes cannot be used", *problems))


def test_a_dataset_is_uploaded_and_described(login: Login) -> None:
    client = login(Role.ENGINEER)
    sent = client.post(
        "/datasets/upload/", {"file": SimpleUploadedFile("d.npz", npz(seed=10_000)), "name": ""}
    )
    assert sent.headers["Location"] == f"/datasets/{Dataset.objects.get().pk}/"
    page = client.get(f"/datasets/{DatasetFactory().pk}/").content.decode()
    assert "validation" in page
    assert "60 × 4" in page


def test_an_alias_moves_and_its_history_is_shown(login: Login) -> None:
    version = VersionFactory(model=ModelFactory(slug="m"))
    client = login(Role.ENGINEER)
    client.post("/models/m/1/alias/", {"name": "champion", "reason": "it is the best"})
    assert Alias.objects.get(name="champion").version == version
    assert "it is the best" in client.get("/models/m/1/").content.decode()
    bad = client.post("/models/m/1/alias/", {"name": "Not A Slug"}, follow=True)
    assert "Alias &#x27;Not A Slug&#x27; is not valid" in bad.content.decode()


def test_the_matrix_shows_budget_accuracy_interval_and_the_way_to_the_bytes(login: Login) -> None:
    artifact = ArtifactFactory(version=VersionFactory(model=ModelFactory(slug="m")), content=b"x" * 4096)
    client = login()
    page = client.get("/models/m/1/").content.decode()
    assert "4.0 KiB" in page
    assert "95.0 % (91.0–97.0 %, n = 250)" in page
    answer = client.get(f"/artifacts/{artifact.pk}/download/")
    assert b"".join(answer.streaming_content) == b"x" * 4096  # type: ignore[attr-defined]
    assert answer.headers["Content-Disposition"] == 'attachment; filename="m-v1-raspberry-pi-4.onnx"'


def test_names_that_people_chose_are_never_markup(login: Login) -> None:
    Model.objects.create(slug="m", name="<script>alert(1)</script>")
    assert "<script>alert" not in login().get("/models/").content.decode()
