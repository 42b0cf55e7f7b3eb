"""Channel classes: which channels of a network must be kept or cut together, and which must be kept.

Channels are followed through the graph that the cfg describes. Every output channel of every layer gets an
id; a convolution makes fresh ids, and every other layer passes ids on, permutes them or unites them
(union-find over positions). A class is what has been united; it is kept or cut as a whole.

To add a layer type, write one function that returns the ids of its output and give it a row in `RULES`.
A type without a row is protected, not guessed at.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..base.errors import RequestError

STRATEGIES = ("normal", "shortcut", "slim", "group")


class _UnionFind:
    """Disjoint sets of whole numbers; the root is the smallest member, so that ids follow the layers'
    order.
    """

    def __init__(self):
        self.parent: list[int] = []

    def fresh(self, count: int) -> np.ndarray:
        start = len(self.parent)
        self.parent.extend(range(start, start + count))
        return np.arange(start, start + count)

    def find(self, x: int) -> int:
        parent = self.parent
        while parent[x] != x:
            parent[x] = x = parent[parent[x]]
        return x

    def unite(self, a: np.ndarray, b: np.ndarray) -> None:
        for x, y in zip(a.tolist(), b.tolist(), strict=True):
            x, y = self.find(x), self.find(y)
            if x != y:
                self.parent[max(x, y)] = min(x, y)

    def roots(self) -> np.ndarray:
        return np.array([self.find(x) for x in range(len(self.parent))], dtype=np.int64)


class Channels:
    """The channel classes of a graph.

    Attributes:
        ids: for every layer an int array (C,) with the class of each output channel.
        image_ids: the classes of the image's channels.
        count: how many classes there are; they are numbered 0..count-1 in the order of their first channel.
        producers: class -> list of (layer, channel) of the convolutions that make it, in layer order.
        protected: class -> why it cannot be cut.
        slices: (layer, groups) of layers that a route or slice reads by count: each of the `groups` equal
            slices of that layer's output must keep equally many channels.
        convolutions: the indices of all convolutional layers.
    """

    def __init__(self, graph):
        self.graph = graph
        self.slices: list[tuple[int, int]] = []
        self._sets = _UnionFind()
        self._made: list[tuple[int, np.ndarray]] = []
        self._protect: list[tuple[np.ndarray, str]] = []
        self._ties: list[tuple[np.ndarray, int]] = []
        self.image_ids = self._sets.fresh(graph.input_shape[0])
        self._protect.append((self.image_ids, "is the image"))
        self.ids: list[np.ndarray] = []
        for node in graph.nodes:
            rule = RULES.get(node.type, _unknown)
            self.ids.append(rule(self, node, [self.of(i) for i in node.inputs]))
        for node in graph.nodes:
            if not graph.consumers[node.index] and node.type not in HEADS:
                self._protect.append(
                    (self.ids[node.index], f"leaves the network at [{node.type}] layer {node.index}")
                )
        self._close()

    def of(self, layer: int) -> np.ndarray:
        """The ids of a layer's output; -1 is the image."""
        return self.image_ids if layer < 0 else self.ids[layer]

    def _tie(self, layer: int, a: np.ndarray, b: np.ndarray) -> None:
        self._sets.unite(a, b)
        self._ties.append((a, layer))

    def _close(self) -> None:
        """Numbers the classes and turns everything that was noted into per-class tables."""
        roots, number = np.unique(self._sets.roots(), return_inverse=True)
        self.count = len(roots)
        self.image_ids = number[self.image_ids]
        self.ids = [number[ids] for ids in self.ids]
        self.convolutions = tuple(layer for layer, _ in self._made)
        self.producers: dict[int, list[tuple[int, int]]] = {}
        for layer, ids in self._made:
            for channel, c in enumerate(number[ids].tolist()):
                self.producers.setdefault(c, []).append((layer, channel))
        self.protected: dict[int, str] = {}
        for ids, reason in self._protect:
            for c in number[ids].tolist():
                self.protected.setdefault(c, reason)
        self._tied: dict[int, set[int]] = {}
        for ids, layer in self._ties:
            for c in number[ids].tolist():
                self._tied.setdefault(c, set()).add(layer)
        del self._sets, self._made, self._protect, self._ties

    def obstacle(self, c: int, strategy: str = "normal") -> str | None:
        """Why class `c` cannot be cut by a strategy; None if it can.

        Raises:
            RequestError: the strategy is not known.
        """
        if strategy not in STRATEGIES:
            raise RequestError("strategy", repr(strategy), "one of " + ", ".join(STRATEGIES))
        if c in self.protected:
            return self.protected[c]
        layers = sorted({layer for layer, _ in self.producers.get(c, ())})
        if not any(self.graph.nodes[layer].opts["batch_normalize"] for layer in layers):
            return (
                "has" if len(layers) == 1 else f"is made by {_listed(layers)}, which have"
            ) + " no batch_normalize, so no gamma"
        if strategy == "normal" and len(layers) > 1:
            kinds = sorted({self.graph.nodes[i].type for i in self._tied.get(c, ())}) or ["route"]
            return (
                f"joined with {_listed(layers)} by [{'] ['.join(kinds)}]; `normal` cuts only what one "
                "convolution makes"
            )
        return None

    def prunable(self, strategy: str = "normal") -> np.ndarray:
        """The classes that a strategy may cut, ascending.

        `normal` asks for one producing convolution; the others take classes with any number of them.
        One producer needs batch_normalize: without it there is no gamma to go by. The others may lack it, as
        the convolutions of a squeeze-and-excitation do; what is cut of them is masked by a kernel of zeros.
        """
        return np.array([c for c in self.producers if self.obstacle(c, strategy) is None], dtype=np.int64)

    def prunable_channels(self, strategy: str = "normal") -> dict[int, np.ndarray]:
        """Convolution -> bool array (filters,): which of its channels (gammas) a strategy may cut."""
        may = np.zeros(self.count, dtype=bool)
        may[self.prunable(strategy)] = True
        return {layer: may[self.ids[layer]] for layer in self.convolutions}

    def protected_layers(self, strategy: str = "normal") -> list[tuple[int, str]]:
        """(layer, reason) of every convolution that a strategy may not cut, or only in part."""
        found = []
        for layer in self.convolutions:
            reasons: dict[str, int] = {}
            for c in self.ids[layer].tolist():
                reason = self.obstacle(c, strategy)
                if reason:
                    reasons[reason] = reasons.get(reason, 0) + 1
            if reasons:
                total = len(self.ids[layer])
                parts = [
                    why if n == total else f"{n} of {total} channels: {why}" for why, n in reasons.items()
                ]
                found.append((layer, "; ".join(parts)))
        return found


def _listed(layers: list[int], limit: int = 6) -> str:
    shown = ", ".join(map(str, layers[:limit]))
    return f"layer{'s' if len(layers) > 1 else ''} {shown}" + (
        f" and {len(layers) - limit} more" if len(layers) > limit else ""
    )


def _convolutional(self: Channels, node, inputs: list[np.ndarray]) -> np.ndarray:
    filters, groups, (source,) = node.opts["filters"], node.opts["groups"], inputs
    if groups == 1:
        out = self._sets.fresh(filters)
    elif groups == len(source):  # depthwise, with any multiplier: an input and the outputs made of it are one
        out = np.repeat(source, filters // groups)
        self._ties.append((source, node.index))
    else:  # positions that are equal within their groups go together, so that all groups stay equally wide
        out = self._sets.fresh(filters)
        for ids in (source, out):
            rows = ids.reshape(groups, -1)
            for row in rows[1:]:
                self._tie(node.index, rows[0], row)
    self._made.append((node.index, out))
    return out


def _same(self: Channels, node, inputs: list[np.ndarray]) -> np.ndarray:
    return inputs[0]


def _shortcut(self: Channels, node, inputs: list[np.ndarray]) -> np.ndarray:
    for other in inputs[1:]:
        shared = min(len(inputs[0]), len(other))
        self._tie(node.index, inputs[0][:shared], other[:shared])
    return inputs[0]


def _route(self: Channels, node, inputs: list[np.ndarray]) -> np.ndarray:
    groups, group = node.opts["groups"], node.opts["group_id"]
    if groups == 1:
        return np.concatenate(inputs)
    parts = []
    for source, ids in zip(node.inputs, inputs, strict=True):
        if len(ids) % groups:
            return _unknown(self, node, inputs)
        parts.append(ids.reshape(groups, -1)[group])
        self.slices.append((source, groups))
    return np.concatenate(parts)


def _product(self: Channels, node, inputs: list[np.ndarray]) -> np.ndarray:
    """sam and scale_channels: a product is constant only where both factors are, so they are one."""
    if len(inputs) != 2 or len(inputs[0]) != len(inputs[1]):
        return _unknown(self, node, inputs)
    self._tie(node.index, *inputs)
    return inputs[0]


def _reorg(self: Channels, node, inputs: list[np.ndarray]) -> np.ndarray:
    """The old reorg scatters s*s neighbouring input channels over the output channels k*s*s + m, k mod
    C/(s*s) = their number.

    Where s*s does not divide the map, an output channel holds parts of several of them, so their
    constants would make a pattern, not a constant; these classes are protected.
    """
    (source,), square = inputs, node.opts["stride"] ** 2
    if square == 1:
        return source
    if len(source) % square:
        return _unknown(self, node, inputs)
    rows = source.reshape(-1, square)
    for column in rows.T[1:]:
        self._tie(node.index, rows[:, 0], column)
    self._protect.append(
        (source, f"[reorg] layer {node.index} mixes its channels, so that what is cut would be no constant")
    )
    return np.tile(rows, (square, 1)).reshape(-1)


def _reorg3d(self: Channels, node, inputs: list[np.ndarray]) -> np.ndarray:
    return np.tile(inputs[0], node.opts["stride"] ** 2)  # output channel (dy * s + dx) * C + c


def _head(self: Channels, node, inputs: list[np.ndarray]) -> np.ndarray:
    for ids in inputs:
        self._protect.append((ids, f"feeds [{node.type}] layer {node.index}"))
    return inputs[0]


def _unknown(self: Channels, node, inputs: list[np.ndarray]) -> np.ndarray:
    reason = f"is read by [{node.type}] layer {node.index}, through which channels cannot be followed"
    for ids in inputs:
        self._protect.append((ids, reason))
    out = self._sets.fresh(node.shape[0])
    self._protect.append((out, reason))
    return out


HEADS = ("yolo", "region")
RULES: dict[str, Callable[[Channels, object, list[np.ndarray]], np.ndarray]] = {
    "convolutional": _convolutional,
    "shortcut": _shortcut,
    "route": _route,
    "maxpool": _same,
    "avgpool": _same,
    "upsample": _same,
    "dropout": _same,
    "sam": _product,
    "scale_channels": _product,
    "reorg": _reorg,
    "reorg3d": _reorg3d,
    "yolo": _head,
    "region": _head,
}
