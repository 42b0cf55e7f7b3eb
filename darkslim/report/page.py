"""A page to look at: one HTML file with everything in it, which asks nobody for anything.

It reads on a phone and in print; tables have headings, pictures have words for those who cannot see them, and
colours are never all that tells two things apart.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Code:
    """Lines to be copied."""

    text: str
    kind: str = "code"


@dataclass(frozen=True)
class Facts:
    """(name, value) after (name, value)."""

    rows: Sequence[tuple[str, str]]
    kind: str = "facts"


@dataclass(frozen=True)
class Table:
    """Rows of texts; a number from 0 to 1 is drawn as a bar."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str | float]]
    kind: str = "table"


@dataclass(frozen=True)
class Picture:
    """A PNG or JPEG, with what it shows in words."""

    data: bytes
    alt: str
    caption: str = ""
    kind: str = "picture"

    @property
    def source(self) -> str:
        return inline(self.data)


@dataclass(frozen=True)
class Pair:
    """The same thing before and after, side by side."""

    caption: str
    before: bytes
    after: bytes
    left_alt: str
    right_alt: str
    kind: str = "pair"

    @property
    def left(self) -> str:
        return inline(self.before)

    @property
    def right(self) -> str:
        return inline(self.after)


@dataclass(frozen=True)
class Section:
    """A heading with blocks under it."""

    title: str
    blocks: Sequence[Text | Code | Facts | Table | Picture | Pair]


@dataclass(frozen=True)
class Page:
    """A page; sections without blocks are left out."""

    title: str
    summary: str
    sections: Sequence[Section] = field(default_factory=tuple)
    foot: str = ""

    def html(self) -> str:
        """The file."""
        from jinja2 import Environment, StrictUndefined

        text = resources.files(__package__).joinpath("page.html").read_text()
        environment = Environment(autoescape=True, undefined=StrictUndefined)
        shown = Page(self.title, self.summary, [s for s in self.sections if s.blocks], self.foot)
        return environment.from_string(text).render(page=shown)


def inline(data: bytes) -> str:
    """A picture as an address that holds it."""
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
