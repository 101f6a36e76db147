"""A client that reads pages as a browser does: each id on them names one thing."""

from collections import Counter
from html.parser import HTMLParser
from typing import Any

from django.test import Client


class _Ids(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.update(value or "" for name, value in attrs if name == "id")


class Reader(Client):
    """Refuses pages with an id that is empty or there twice: labels find their fields, and live parts stay open, by ids."""

    def request(self, **request: Any) -> Any:
        """The answer, if its ids are in order."""
        answer = super().request(**request)
        if answer.headers.get("Content-Type", "").startswith("text/html") and not answer.streaming:
            ids = _Ids()
            ids.feed(answer.content.decode())
            unfit = [name for name, times in ids.found.items() if times > 1 or not name]
            assert not unfit, f"{request.get('PATH_INFO')} repeats the ids {unfit}"
        return answer
