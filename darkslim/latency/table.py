"""The table: measured once a machine, asked for any narrower version of what was measured."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from ..base.errors import RequestError
from ..network.graph import Graph
from ..network.node import Node
from . import table_file
from .grid import Grid
from .layer_keys import LayerKey, keys_to_measure, layer_keys
from .stopwatch import Stopwatch, machine


class LatencyTable:
    """Seconds of layers by their shape, measured once a machine and kept in a file.

    Args:
        path: the cache; `default_path()` if None. What cannot be used in it is ignored with a warning.
        device: what is measured on.
        repeats: measurements a point, of which the median counts; slow layers get fewer, at least three.
        limit: seconds that one `measure` may take, about; where they run out, there may be one measurement
            only.
        progress: wraps the pieces of work, called as darkslim.commands.progress(items, desc=...).
        timer: nodes -> seconds of each, in place of measuring.

    Attributes:
        machine: what the times hold for: processor, cores, threads, torch, device.
        scale: what `seconds` multiplies the sum by; see `calibrate`.
    """

    def __init__(
        self,
        path: Path | str | None = None,
        device="cpu",
        repeats: int = 15,
        limit: float = 60.0,
        progress: Callable | None = None,
        timer: Callable[[Sequence[Node]], Sequence[float]] | None = None,
    ):
        self.path = Path(path) if path is not None else table_file.default_path()
        self.machine = machine(device)
        self.scale = 1.0
        self._timer = timer or Stopwatch(device, repeats, limit, progress)
        self._grids: dict[str, list[Grid]] = table_file.read(self.path).get(self.machine, {})
        self._known: dict[tuple[str, tuple[int, ...]], float] = {}
        self._forgotten: set[str] = set()

    def seconds(self, graph: Graph) -> float:
        """Estimated seconds of one forward pass at batch 1: the sum over the layers, times `scale`.

        Raises:
            RequestError: a layer's shape was not measured.
        """
        return self.scale * sum(self.layer(node) for node in graph.nodes)

    def layer(self, node: Node) -> float:
        """Estimated seconds of one layer at batch 1, before `scale`; 0 for one that only passes its input on.

        Raises:
            RequestError: its shape was not measured.
        """
        found = layer_keys(node)
        for key in found:
            at = (key.family, key.widths)
            if at not in self._known:
                grids = [grid for grid in self._grids.get(key.family, ()) if grid.covers(key.widths)]
                if not grids:
                    continue
                closest = min(grids, key=lambda grid: [axis[-1] for axis in grid.axes])
                self._known[at] = closest.at(key.widths, key.blocked)
            return self._known[at]
        if not found:
            return 0.0
        raise RequestError(
            "latency table",
            f"has no time for {node.section.place} with widths {found[0].widths}",
            remedy="measure the network that it was cut from",
        )

    def measure(self, graph: Graph, again: bool = False) -> None:
        """Measures what `graph` and every narrower version of it may need, as far as the table has not got
        it.

        Narrower: the same layers with fewer channels, wherever some strategy may cut channels at all.

        Args:
            again: forget what is known of these families first, say because the machine was busy when they
                were measured.
        """
        grids: dict[tuple[str, tuple], LayerKey] = {}
        for key, axes in keys_to_measure(graph):
            if again:
                self._grids[key.family] = []
                self._forgotten.add(key.family)
            if all(grid.axes != axes for grid in self._grids.get(key.family, ())):
                grids.setdefault((key.family, axes), key)
        families = {family for family, _ in grids}
        known = {
            (family, widths): t
            for family in families
            for grid in self._grids.get(family, ())
            for widths, t in grid.points()
        }
        missing: dict[tuple[str, tuple[int, ...]], Node] = {}
        for (family, axes), key in grids.items():
            for widths in itertools.product(*axes):
                if (family, widths) not in known:
                    missing.setdefault((family, widths), key.build(widths))
        if missing:
            known.update(zip(missing, self._timer(list(missing.values())), strict=True))
        for family, axes in grids:
            seconds = tuple(known[family, widths] for widths in itertools.product(*axes))
            self._grids.setdefault(family, []).append(Grid(axes, seconds))
        self._known.clear()

    def calibrate(self, measured_seconds: float, graph: Graph) -> None:
        """Sets `scale` so that `seconds(graph)` is what was measured for the whole network. It is not saved.

        Raises:
            RequestError: a time that is no positive number, or `graph` was not measured.
        """
        total = sum(self.layer(node) for node in graph.nodes)
        if not (math.isfinite(measured_seconds) and measured_seconds > 0 and total > 0):
            raise RequestError(
                "latency table",
                f"cannot be scaled from {total} to {measured_seconds} seconds",
                "times above zero",
            )
        self.scale = measured_seconds / total

    def save(self) -> None:
        """Writes the cache, beside what other processes and machines have in it; a warning if that cannot
        be.
        """
        table_file.write(self.path, self.machine, self._grids, self._forgotten)
