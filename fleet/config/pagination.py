"""How every list of the API is cut: `limit` and `offset`, both bounded."""

from ninja import Field, Schema
from ninja.pagination import LimitOffsetPagination

MOST_ROWS = 1000
# Databases count rows in 64 bits; no list here is as long as this.
LAST_OFFSET = 2**31


class Pages(LimitOffsetPagination):
    """`limit` rows from `offset` on, and how many there are in all."""

    class Input(Schema):
        """Which part of the list."""

        limit: int = Field(100, ge=1, le=MOST_ROWS, description="How many rows at most.")
        offset: int = Field(0, ge=0, le=LAST_OFFSET, description="How many rows to leave out before them.")
