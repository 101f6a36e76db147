"""A thin client of the REST API: one method a verb, one exception for everything that goes wrong."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import httpx

PREFIX = "/api/v1"
PAGE_ROWS = 100
# An upload's answer comes after the server has hashed and stored all of it.
UPLOAD_TIMEOUT = httpx.Timeout(30.0, read=600.0, write=600.0)


class ApiError(Exception):
    """The server refused, or did not answer; the text is the sentence a person reads, with the way out."""

    def __init__(
        self, detail: str, *, remedy: str = "", status: int = 0, code: str = "", problems: Sequence[str] = ()
    ) -> None:
        super().__init__(" ".join(part for part in (_sentence(detail), _sentence(remedy)) if part))
        self.detail = detail
        self.remedy = remedy
        self.status = status
        self.code = code
        self.problems = list(problems)


class Client:
    """Speaks to one server with one token. Paths are those below `/api/v1`."""

    def __init__(
        self,
        url: str,
        token: str = "",
        *,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = _address(url)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(
            base_url=self.url + PREFIX, headers=headers, timeout=timeout, transport=transport
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        """GET; query values that are None are left out."""
        return self._json("GET", path, params=_given(query))

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """POST a JSON body."""
        return self._json("POST", path, json=dict(body or {}))

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        """PUT a JSON body."""
        return self._json("PUT", path, json=dict(body))

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """PATCH with a JSON body."""
        return self._json("PATCH", path, json=dict(body))

    def delete(self, path: str) -> Any:
        """DELETE."""
        return self._json("DELETE", path)

    def items(self, path: str, **query: Any) -> list[Any]:
        """All rows of a list, however many pages it has."""
        found: list[Any] = []
        while True:
            page = self.get(path, limit=PAGE_ROWS, offset=len(found), **query)
            if isinstance(page, list):
                return page
            rows = page["items"]
            found.extend(rows)
            if not rows or len(found) >= page["count"]:
                return found

    def upload(
        self, path: str, files: Mapping[str, Sequence[Path]], data: Mapping[str, str] | None = None
    ) -> Any:
        """POST files as a form, streamed from disk."""
        with contextlib.ExitStack() as opened:
            parts = [(field, _part(opened, file)) for field, paths in files.items() for file in paths]
            return self._json("POST", path, files=parts, data=dict(data or {}), timeout=UPLOAD_TIMEOUT)

    def download(self, path: str, target: Path) -> int:
        """Write an answer's body to a file and return its size; a broken download leaves no file."""
        draft = target.with_name(target.name + ".part")
        try:
            with self._speaking(), self._http.stream("GET", path) as answer, draft.open("wb") as out:
                if answer.is_error:
                    answer.read()
                    raise _refusal(answer)
                for block in answer.iter_bytes():
                    out.write(block)
            draft.replace(target)
        except OSError as error:
            raise ApiError(f"{target} cannot be written: {error.strerror}") from error
        finally:
            draft.unlink(missing_ok=True)
        return target.stat().st_size

    def _json(self, method: str, path: str, **options: Any) -> Any:
        with self._speaking():
            answer = self._http.request(method, path, **options)
        if answer.is_error or answer.is_redirect:
            raise _refusal(answer)
        if not answer.content:
            return None
        try:
            return answer.json()
        except ValueError:
            raise ApiError(f"{self.url} answers, but not as a Tinyfleet server does") from None

    @contextlib.contextmanager
    def _speaking(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError:
            remedy = "Start one with `tinyfleet up`, or name another with --url or TINYFLEET_URL"
            raise ApiError(f"no server answers at {self.url}", remedy=remedy) from None
        except httpx.TimeoutException:
            raise ApiError(
                f"{self.url} did not answer in time", remedy="Look at `tinyfleet health`"
            ) from None
        except httpx.TransportError as error:
            remedy = "Look at the server's log, or at that of the proxy before it"
            raise ApiError(f"{self.url} closed the connection ({error})", remedy=remedy) from None


def _address(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ApiError(f"'{url}' is no server's address", remedy="Write one such as http://127.0.0.1:8000")
    return url.rstrip("/")


def _part(opened: contextlib.ExitStack, file: Path) -> tuple[str, IO[bytes]]:
    try:
        return file.name, opened.enter_context(file.open("rb"))
    except OSError as error:
        raise ApiError(f"{file} cannot be read: {error.strerror}") from error


def _refusal(answer: httpx.Response) -> ApiError:
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict) or "detail" not in body:
        place = f"{answer.request.method} {answer.request.url.path}"
        return ApiError(f"the server answers {answer.status_code} to {place}", status=answer.status_code)
    return ApiError(
        str(body["detail"]),
        remedy=str(body.get("remedy") or ""),
        status=answer.status_code,
        code=str(body.get("error") or ""),
        problems=[str(problem) for problem in body.get("problems") or ()],
    )


def _given(query: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text[-1] in ".!?" else text + "."
