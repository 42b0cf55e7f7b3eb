"""What is odd about a cfg that can be read: keys that no reader knows, names that only some know, lists that
crash Darknet.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterator

from ..base.errors import short
from . import schema
from .cfg import MAX_SHOWN, Cfg, Section, shown
from .key_kinds import OTHER_NAMES


def warn_of_doubts(cfg: Cfg) -> None:
    """Warns of everything that is odd, once a cfg."""
    if not cfg.doubted:
        cfg.doubted = True
        for line in shown(cfg.path, doubts(cfg)):
            cfg.warnings.append(line)
            warnings.warn(line, stacklevel=3)


def doubts(cfg: Cfg) -> list[str]:
    """A line for everything that is odd; where there are many, those behind the first ten give no hints."""
    lines: list[str] = []
    for section in cfg.sections:
        lines += _of_section(section, hints=len(lines) < MAX_SHOWN)
    return lines


def _of_section(section: Section, hints: bool) -> Iterator[str]:
    table = schema.SECTIONS.get(section.type)
    if table is None:
        return
    options = section.options
    for number, (key, text) in enumerate((k, v) for k, v in options.items() if k not in table):
        # looking for the nearest of 90 names takes a millisecond: hostile files have 100,000 keys
        near = difflib.get_close_matches(key[:100], table, 1) if hints and number < MAX_SHOWN else ()
        hint = f"did you mean {near[0]}?" if near else "Darknet ignores it too"
        yield f"{section.place_of(key)}: unknown key {short(key)}={short(text)}; {hint}"
    name = options.get("activation")
    if name in OTHER_NAMES:
        yield (
            f"{section.place_of('activation')}: activation={name} is taken for "
            f"{OTHER_NAMES[name]}, as OpenCV takes it; Darknet does not know the name and would use "
            f"relu: write {OTHER_NAMES[name]}"
        )
    if section.type == "net":
        steps, scales = (len([v for v in options.get(k, "").split(",") if v]) for k in ("steps", "scales"))
        if options.get("policy") == "steps" and steps != scales:
            yield (
                f"{section.place_of('steps')}: {steps} steps and {scales} scales, on which Darknet crashes "
                "or reads past the end; give as many of the one as of the other"
            )
    if section.type == "yolo":
        yield from _anchors(section, options)


def _anchors(section: Section, options: dict[str, str]) -> Iterator[str]:
    given = len([v for v in options.get("anchors", "").split(",") if v]) // 2
    num = options.get("num", "1")
    if num.isascii() and num.isdigit() and int(num) > given > 0:
        yield (
            f"{section.place_of('num')}: num={short(num)} with {given} anchors: Darknet makes up the rest, "
            f"and no mask of this head uses them; write num={given}"
        )
