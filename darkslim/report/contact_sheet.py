"""Many pictures on one, small, in the order in which they came."""

from __future__ import annotations

from PIL import Image

MOST, COLUMNS, SIDE = 48, 6, 240


class ContactSheet:
    """Takes pictures until it is full: of a long series every so-manieth.

    Args:
        count: how many will come; None: nobody knows, and the first ones are taken.
    """

    def __init__(self, count: int | None):
        self.every = 1 if count is None else max(1, -(-count // MOST))
        self.tiles: dict[int, Image.Image] = {}

    def wants(self, number: int) -> bool:
        """Whether the picture of a number (from 0) is to be on it."""
        return number % self.every == 0 and number // self.every < MOST

    def add(self, picture: Image.Image, number: int) -> None:
        """One more; they may come in any order."""
        tile = picture.copy()
        tile.thumbnail((SIDE, SIDE))
        self.tiles[number] = tile.convert("RGB")

    def picture(self) -> Image.Image:
        """All of them; one white tile where there was none."""
        columns = max(1, min(COLUMNS, len(self.tiles)))
        rows = max(1, -(-len(self.tiles) // columns))
        page = Image.new("RGB", (columns * SIDE, rows * SIDE), "white")
        for i, (_, tile) in enumerate(sorted(self.tiles.items())):
            left, top = i % columns * SIDE, i // columns * SIDE
            page.paste(tile, (left + (SIDE - tile.width) // 2, top + (SIDE - tile.height) // 2))
        return page
