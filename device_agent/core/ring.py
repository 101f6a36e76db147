"""Joins predictions with the truth that comes later, in bounded memory."""
# mypy: disable-error-code="type-arg"


class Ring:
    """The last `size` predictions by id; older ones are forgotten."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.ids = [0] * size
        self.entries: list = [None] * size
        self.count = 0

    def put(self, base: int, entry: tuple) -> int:
        """Keep `entry` and return its id, `base` + a number that only rises; ids start at base + 1."""
        self.count += 1
        place = self.count % self.size
        self.ids[place] = base + self.count
        self.entries[place] = entry
        return base + self.count

    def forget(self, owner: object) -> None:
        """Drop the entries that begin with `owner`: nobody is left to judge them."""
        for place in range(self.size):
            entry = self.entries[place]
            if entry is not None and entry[0] is owner:
                self.entries[place] = None
                self.ids[place] = 0

    def take(self, prediction_id: object) -> "tuple | None":
        """The entry of that id, once; None when it is unknown, forgotten or was taken before."""
        if not isinstance(prediction_id, int) or isinstance(prediction_id, bool):
            return None
        place = (prediction_id & 0xFFFFFFFF) % self.size
        if self.ids[place] != prediction_id:
            return None
        entry: tuple = self.entries[place]
        self.ids[place] = 0
        self.entries[place] = None
        return entry
