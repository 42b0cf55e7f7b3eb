"""The file that measured times are kept in: JSON, {"version", "machines": {machine: {family: [{"axes",
"seconds"}]}}}.

Anybody may have written it, so nothing in it is believed before it was looked at, and nothing in it stops a
command.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import tempfile
import warnings
from collections.abc import Collection
from pathlib import Path

from ..base import files
from ..base.errors import FileError, short
from .grid import Grid

VERSION = 1
MAX_BYTES = 8 * files.MIB
MAX_WIDTHS = 64  # on one axis
MAX_WIDTH = 1 << 31
MAX_SECONDS = 1e6

Times = dict[str, dict[str, list[Grid]]]  # machine -> family -> grids


def default_path() -> Path:
    """Where the table is kept: $XDG_CACHE_HOME or ~/.cache, then darkslim/latency.json."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not folder.is_absolute():  # the XDG specification: a relative one is to be ignored
        try:
            folder = Path.home() / ".cache"
        except RuntimeError:  # an account without a home
            folder = Path(tempfile.gettempdir())
    return folder / "darkslim" / "latency.json"


def read(path: Path) -> Times:
    """What a cache holds; what is not as it should be is left out with a warning."""
    if not os.path.lexists(path):
        return {}
    try:
        data = json.loads(files.read_bytes(path, "latency table", MAX_BYTES))
    except (FileError, ValueError, RecursionError) as e:
        warnings.warn(f"the latency table {path} is ignored: {e}", stacklevel=2)
        return {}
    if (
        not isinstance(data, dict)
        or data.get("version") != VERSION
        or not isinstance(data.get("machines"), dict)
    ):
        found = short(repr(data.get("version") if isinstance(data, dict) else type(data)))
        warnings.warn(
            f"the latency table {path} is ignored: version {found}; expected {VERSION}", stacklevel=2
        )
        return {}
    times: Times = {}
    bad = 0
    for machine, families in data["machines"].items():
        for family, grids in families.items() if isinstance(families, dict) else [("", None)]:
            for item in grids if isinstance(grids, list) else [None]:
                grid = _grid(item)
                if grid is None:
                    bad += 1
                else:
                    times.setdefault(machine, {}).setdefault(family, []).append(grid)
    if bad:
        warnings.warn(
            f"the latency table {path}: {bad} entries are ignored, for they are no times by width",
            stacklevel=2,
        )
    return times


def write(path: Path, machine: str, families: dict[str, list[Grid]], forgotten: Collection[str] = ()) -> None:
    """Writes a machine's times into a cache, beside what others have added to it; a warning if that cannot
    be.

    Args:
        forgotten: families of which nothing else that the file has for this machine is to stay.

    Of two processes that write in the same instant the later one wins; what is lost is measured again when it
    is needed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is broken is replaced now
        merged = read(path)
    here = merged.setdefault(machine, {})
    for family, grids in families.items():
        ours = {grid.axes for grid in grids}
        here[family] = [
            g for g in here.get(family, ()) if g.axes not in ours and family not in forgotten
        ] + grids
    machines = {
        name: {
            family: [{"axes": g.axes, "seconds": g.seconds} for g in grids] for family, grids in found.items()
        }
        for name, found in merged.items()
    }
    try:
        files.save(
            path,
            json.dumps({"version": VERSION, "machines": machines}, allow_nan=False, separators=(",", ":"))
            + "\n",
        )
    except FileError as e:
        warnings.warn(f"the latency table is not kept: {e}", stacklevel=2)


def _grid(item) -> Grid | None:
    """A stored grid, if it is one."""
    axes, seconds = (item.get("axes"), item.get("seconds")) if isinstance(item, dict) else (None, None)
    if (
        not isinstance(axes, list)
        or len(axes) > 2
        or not isinstance(seconds, list)
        or not all(map(_is_axis, axes))
    ):
        return None
    if len(seconds) != math.prod(map(len, axes)) or not all(
        type(t) in (int, float) and 0 < t < MAX_SECONDS for t in seconds
    ):
        return None
    return Grid(tuple(map(tuple, axes)), tuple(map(float, seconds)))


def _is_axis(axis) -> bool:
    return (
        isinstance(axis, list)
        and 0 < len(axis) <= MAX_WIDTHS
        and all(type(w) is int and 0 < w < MAX_WIDTH for w in axis)
        and all(a < b for a, b in itertools.pairwise(axis))
    )
