"""What pictures share: how wide text becomes, and text cut to a width."""

from __future__ import annotations

import functools


@functools.lru_cache(maxsize=4096)
def text_width(text: str, size: float, bold: bool = False) -> float:
    """How wide a line of text in the default font becomes, in inches; `size` in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    return (
        text_to_path.get_text_width_height_descent(
            text, FontProperties(size=size, weight="bold" if bold else "normal"), False
        )[0]
        / 72
    )


def fit(text: str, size: float, width: float, bold: bool = False) -> str:
    """`text`, cut with an ellipsis to at most `width` inches."""
    if text_width(text, size, bold) <= width:
        return text
    low, high = 0, len(text)
    while low < high:  # the longest beginning that fits
        middle = (low + high + 1) // 2
        low, high = (
            (middle, high) if text_width(text[:middle] + "…", size, bold) <= width else (low, middle - 1)
        )
    return text[:low].rstrip() + "…"
