"""The client turns every answer, and every silence, into rows or one sentence."""

from pathlib import Path

import httpx
import pytest

from fleet.cli.client import ApiError, Client
from fleet.cli.ports import free_port


def serving(answer) -> Client:
    return Client("http://fleet.test", "tf_x", transport=httpx.MockTransport(answer))


def test_lists_are_read_to_their_end():
    def answer(request: httpx.Request) -> httpx.Response:
        limit, offset = (int(request.url.params[name]) for name in ("limit", "offset"))
        return httpx.Response(
            200, json={"items": list(range(offset, min(offset + limit, 250))), "count": 250}
        )

    assert serving(answer).items("/devices") == list(range(250))


def test_a_list_that_shrinks_while_it_is_read_ends():
    def answer(request: httpx.Request) -> httpx.Response:
        rows = [1, 2] if request.url.params["offset"] == "0" else []
        return httpx.Response(200, json={"items": rows, "count": 250})

    assert serving(answer).items("/devices") == [1, 2]


def test_a_refusal_is_the_servers_sentence_with_its_way_out():
    body = {
        "error": "refused",
        "detail": "y has labels up to 12",
        "remedy": "Use 0 to 9",
        "problems": ["row 3", "row 9"],
    }
    with pytest.raises(ApiError) as caught:
        serving(lambda request: httpx.Response(422, json=body)).get("/datasets")
    assert str(caught.value) == "y has labels up to 12. Use 0 to 9."
    assert (caught.value.status, caught.value.code, caught.value.problems) == (
        422,
        "refused",
        ["row 3", "row 9"],
    )


@pytest.mark.parametrize(
    "answer",
    [httpx.Response(502, text="<html>Bad gateway"), httpx.Response(302), httpx.Response(500, json=[])],
)
def test_an_answer_that_is_not_ours_is_named_by_its_status(answer):
    with pytest.raises(ApiError, match=f"the server answers {answer.status_code} to GET /api/v1/models"):
        serving(lambda request: answer).get("/models")


def test_a_page_instead_of_json_is_no_tinyfleet_server():
    with pytest.raises(ApiError, match="not as a Tinyfleet server does"):
        serving(lambda request: httpx.Response(200, text="<html>")).get("/models")


def test_silence_says_how_to_start_a_server():
    with pytest.raises(
        ApiError, match=r"no server answers at http://127.0.0.1:\d+. Start one with `tinyfleet up`"
    ):
        Client(f"http://127.0.0.1:{free_port()}").get("/health")


@pytest.mark.parametrize("url", ["fleet.test", "http://", "ftp://x"])
def test_an_address_that_is_none_is_named(url):
    with pytest.raises(ApiError, match="is no server's address"):
        Client(url).get("/health")


def test_a_file_that_is_missing_is_named_before_anything_is_sent(tmp_path):
    with pytest.raises(ApiError, match=r"lost\.npz cannot be read: No such file"):
        serving(lambda request: pytest.fail("sent")).upload("/datasets", {"file": [tmp_path / "lost.npz"]})


def test_uploads_carry_their_files_and_fields(tmp_path):
    for name in ("m.onnx", "m.onnx.data"):
        (tmp_path / name).write_text(name)

    def answer(request: httpx.Request) -> httpx.Response:
        body = request.read()
        assert body.count(b'name="files"; filename="m.onnx') == 2
        assert b'name="notes"\r\n\r\nfirst' in body
        return httpx.Response(202, json={"version": 1})

    files = {"files": [tmp_path / "m.onnx", tmp_path / "m.onnx.data"]}
    assert serving(answer).upload("/models/m/versions", files, {"notes": "first"}) == {"version": 1}


def test_a_download_is_written_whole_or_not_at_all(tmp_path: Path):
    target = tmp_path / "model.onnx"
    assert (
        serving(lambda request: httpx.Response(200, content=b"abc")).download("/artifacts/1/download", target)
        == 3
    )
    assert target.read_bytes() == b"abc"

    def broken(request: httpx.Request) -> httpx.Response:
        def blocks():
            yield b"half"
            raise httpx.ReadError("cut")

        return httpx.Response(200, content=blocks())

    with pytest.raises(ApiError, match="closed the connection"):
        serving(broken).download("/artifacts/1/download", target)
    with pytest.raises(ApiError, match="gone"):
        serving(lambda request: httpx.Response(404, json={"detail": "gone"})).download("/x", target)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("model.onnx", b"abc")]
