"""What a browser would send of the form on a page."""

from html.parser import HTMLParser


class _Fields(HTMLParser):
    """Collects the named fields inside <main>, as they stand."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.inside, self.select, self.text = False, "", ""

    def handle_starttag(self, tag: str, given: list[tuple[str, str | None]]) -> None:
        attributes = dict(given)
        name, value = attributes.get("name") or "", attributes.get("value")
        self.inside = self.inside or tag == "main"
        if not self.inside:
            return
        if tag == "select":
            self.select = name
        elif tag == "option" and self.select and ("selected" in attributes or not self._has(self.select)):
            self.found = [pair for pair in self.found if pair[0] != self.select]
            self.found.append((self.select, value or ""))
        elif tag == "textarea":
            self.text = name
            self.found.append((name, ""))
        elif tag == "input" and name and ("checked" in attributes or attributes.get("type") != "checkbox"):
            self.found.append((name, value if value is not None else ""))

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "main"
        if tag in ("select", "textarea"):
            self.select = self.text = ""

    def handle_data(self, data: str) -> None:
        if self.text:
            self.found[-1] = (self.text, self.found[-1][1] + data)

    def _has(self, name: str) -> bool:
        return any(found == name for found, _ in self.found)


def as_sent(page: bytes) -> dict[str, list[str]]:
    """Every field's values by its name, without any button."""
    parser = _Fields()
    parser.feed(page.decode())
    sent: dict[str, list[str]] = {}
    for name, value in parser.found:
        sent.setdefault(name, []).append(value)
    return sent
