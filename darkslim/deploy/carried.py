"""What an exported file says about itself: the same few texts in every format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..base.errors import DarkslimError, FileError
from ..network.cfg import Cfg, parse_cfg
from ..network.graph import Graph
from .onnx_file import OUTPUT

KEYS = ("cfg", "names", "input_size")  # without which a file cannot be used


@dataclass(frozen=True)
class Carried:
    """The metadata of an exported file.

    Attributes:
        cfg: the network, in pictures that are put to it as its [net] says.
        names: of the classes; empty, where none were at hand.
        size: (height, width) that the file was made for.
        place: the file, for messages.
    """

    cfg: Cfg
    names: tuple[str, ...]
    size: tuple[int, int]
    place: str

    @classmethod
    def of(cls, texts: Mapping[str, str], place) -> Carried:
        """Read from texts.

        Raises:
            FileError: they are not those that export.py writes.
        """
        try:
            cfg = parse_cfg(str(texts["cfg"]), f"the cfg in {place}")
            Graph(cfg)
            names = json.loads(texts["names"])
            size = json.loads(texts["input_size"])
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ValueError("names")
            high, wide = (int(side) for side in size)
        except (KeyError, ValueError, TypeError, RecursionError, DarkslimError) as e:
            raise FileError(
                place,
                f"does not say what network it is ({type(e).__name__}: {str(e)[:120]})",
                "a file that export.py wrote",
            ) from None
        return cls(cfg, tuple(names), (high, wide), str(place))

    def require_boxes(self, outputs: Sequence[str]) -> None:
        """Raises:
        FileError: the network suppresses by itself, so that nothing here can count its boxes.
        """
        if OUTPUT not in outputs:
            raise FileError(
                self.place,
                f"gives {', '.join(map(str, outputs))[:100]}",
                f"the output {OUTPUT!r}",
                "export it without --nms; such files are for other programs",
            )
