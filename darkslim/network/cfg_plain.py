"""A cfg in the one form that no known reader misreads: what the program writes."""

from __future__ import annotations

from . import schema
from .cfg import Cfg, Entry, Section
from .key_kinds import OTHER_NAMES

# keys whose defaults differ between readers, so that they are always written
EXPLICIT = {
    "convolutional": ("size", "stride", "filters", "activation"),
    "maxpool": ("size", "stride"),
    "upsample": ("stride",),
    "shortcut": ("activation",),
}


def plain(cfg: Cfg) -> Cfg:
    """A copy without anything that some reader stumbles over.

    No BOM, blanks, inline comments, duplicate keys, `batch_normalize=0` or names of activations that Darknet
    does not know; lines end in LF, since Darknet keeps the CR of some and crashes, and the last line is
    empty. Comments on lines of their own, key order and values stay.
    """
    twin = cfg.copy()
    twin.bom = False
    for entry in twin.preamble:
        entry.raw = _lf(entry.raw)
    for section in twin.sections:
        _lines(section)
        _keys(section)
    end = twin.sections[-1].entries
    if end[-1].raw.strip():
        end.append(Entry("\n", end[-1].line + 1))
    return twin


def _lines(section: Section) -> None:
    """Drops duplicate keys and rewrites every line that is more than `key=value`."""
    seen, kept = set(), []
    for e in section.entries:
        if e.key is not None:
            if e.key in seen:
                continue
            seen.add(e.key)
            e.raw = f"{e.key}={e.value}\n"
        else:
            e.raw = f"[{section.type}]\n" if e is section.entries[0] else _lf(e.raw)
        kept.append(e)
    section.entries = kept


def _lf(raw: str) -> str:
    return raw.rstrip("\r\n") + "\n"


def _keys(section: Section) -> None:
    """Writes out the keys whose defaults differ between readers, and drops `batch_normalize=0`."""
    if section.type not in schema.SECTIONS:
        return
    opts = schema.values(section)
    for key in EXPLICIT.get(section.type, ()):
        # a maxpool's size defaults to its stride
        value = opts[key] if opts[key] is not None else opts["stride"]
        if section.get(key) is None:
            section.set(key, value)
    if section.get("activation") in OTHER_NAMES:
        section.set("activation", opts["activation"])
    if section.get("batch_normalize") is not None and not opts.get("batch_normalize", True):
        section.drop("batch_normalize")
