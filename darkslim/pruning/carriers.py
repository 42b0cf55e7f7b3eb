"""Carriers: the few constant channels that make a cut exact along zero-padded borders.

What cut channels add to a padded convolution is constant in the interior and less along the border, where a
part of the kernel lies on the padding. A running mean cannot express that; a kept channel that is itself
constant can, because it meets the same padding. So for each group of padded consumers one cut class stays
with gamma 0 and a chosen beta, and its kernel there is the sum of the cut kernels, each times its constant.

Which classes stay is a set cover: every (consumer, group) that has an inflow needs one class that reaches it
with a value other than zero. It is solved greedily, by consumers covered per channel kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..network.channels import Channels
from .constants import Inflow, activate, inflow, propagate
from .parts import array, offset

ONE, NIL = (
    1.0,
    {"logistic": -100.0},
)  # betas: act(1) is not 0 for any activation; act(0) is 0 for all but logistic
WEAK = 1e-3  # a carrier weaker than this would need kernels a thousand times larger than what they stand for


@dataclass(frozen=True)
class Carrier:
    """A cut class that stays as a constant.

    Attributes:
        channel_class: its class id.
        betas: (layer, channel) of each producer -> the beta (bias, without batch norm) it gets; its gamma
            (kernel) is 0.
    """

    channel_class: int
    betas: Mapping[tuple[int, int], float]


@dataclass(frozen=True)
class Use:
    """Where a consumer reads a carrier: the input position, and the constant that it finds there."""

    position: int
    value: float


@dataclass(frozen=True)
class Folding:
    """All that surgery needs to know about the constants of the cut channels.

    Attributes:
        inflows: convolution -> what the cut channels add to it; only where that is not zero.
        carriers: the classes that stay as constants (none unless folding is exact).
        uses: (padded convolution, group) -> the carrier position that it reads.
    """

    inflows: Mapping[int, Inflow]
    carriers: tuple[Carrier, ...]
    uses: Mapping[tuple[int, int], Use]


def cut_constants(model, channels: Channels, keep: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Convolution -> float64 (filters,): act(beta) of the channels that `keep` cuts, NaN for the others."""
    made = {}
    for layer, kept in keep.items():
        if not kept.all():
            beta = array(offset(model, layer))
            made[layer] = np.where(
                kept, np.nan, activate(channels.graph.nodes[layer].opts["activation"], beta)
            )
    return made


def fold(model, channels: Channels, keep: Mapping[int, np.ndarray], exact: bool = True) -> Folding:
    """Works out where the constants of the cut channels go.

    Args:
        keep: convolution -> bool (filters,): what the masked network keeps; classes whole.
        exact: choose carriers for padded consumers.
    """
    made = cut_constants(model, channels, keep)
    constants = propagate(model, channels, made)
    cut = cut_classes(channels, keep)
    inflows = {}
    for layer in channels.convolutions:
        source = channels.graph.nodes[layer].inputs[0]
        gone = cut[channels.of(source)]
        if gone.any():
            flow = inflow(model, channels, layer, constants[source], gone, keep[layer])
            if flow.kernel.any():
                inflows[layer] = flow
    carriers, uses = _choose(model, channels, keep, cut, made, inflows) if exact else ((), {})
    return Folding(inflows, carriers, uses)


def cut_classes(channels: Channels, keep: Mapping[int, np.ndarray]) -> np.ndarray:
    """bool (classes,): the classes that `keep` cuts."""
    cut = np.zeros(channels.count, dtype=bool)
    for layer, kept in keep.items():
        cut[channels.ids[layer][~kept]] = True
    return cut


def _choose(
    model, channels, keep, cut, made, inflows
) -> tuple[tuple[Carrier, ...], dict[tuple[int, int], Use]]:
    needs = _needs(channels, inflows)
    if not needs:
        return (), {}
    options = _options(model, channels, cut, made)
    classes = np.flatnonzero(cut)
    row = np.full(channels.count, -1)
    row[classes] = np.arange(len(classes))
    covers, places = _coverage(channels, needs, options, row, len(classes))
    cost = np.array([len(channels.producers[c]) for c in classes], dtype=float)
    picked = _cover(covers, cost)
    if picked is None:  # a class is needed with two different betas: what it has serves all that need it
        last = len(options) - 1
        picked = {row: last for row in _cover(covers[last:], cost)}
    picked = {int(classes[row]): option for row, option in picked.items()}
    uses = _uses(channels, needs, options, picked, places)
    picked |= {c: len(options) - 1 for c in _balance(channels, cut, set(picked))}
    carriers = tuple(
        Carrier(c, _betas(channels, c, options[option][0])) for c, option in sorted(picked.items())
    )
    return carriers, uses


def _cover(covers: np.ndarray, cost: np.ndarray) -> dict[int, int] | None:
    """Greedy set cover: row -> option, so that every need is covered; None where that gets stuck.

    Args:
        covers: bool (options, rows, needs).
        cost: channels kept per row (rows,).
    """
    gain, picked, waiting = covers.sum(axis=2), {}, np.ones(covers.shape[2], dtype=bool)
    while waiting.any():
        worth = gain / cost
        worth[:, list(picked)] = 0  # a class has one set of betas
        option, best = np.unravel_index(int(worth.argmax()), worth.shape)
        if worth[option, best] == 0:
            return None
        picked[int(best)] = int(option)
        done = covers[option, best] & waiting
        gain = gain - covers[:, :, done].sum(axis=2)
        waiting &= ~done
    return picked


def _balance(channels: Channels, cut: np.ndarray, picked: set[int]) -> set[int]:
    """Cut classes that must stay beside the carriers, so that layers sliced by count keep equal slices."""
    more: set[int] = set()
    stays = ~cut
    stays[list(picked)] = True
    changed = True
    while changed:
        changed = False
        for layer, groups in channels.slices:
            parts = channels.of(layer).reshape(groups, -1)
            most = max(int(stays[part].sum()) for part in parts)
            for part in parts:
                while int(stays[part].sum()) < most:
                    c = int(part[~stays[part]][0])
                    stays[c], changed = True, True
                    more.add(c)
    return more


def _needs(channels, inflows) -> list[tuple[int, int]]:
    """(consumer, group) of every padded convolution whose outputs in that group have an inflow."""
    needs = []
    for layer, flow in inflows.items():
        if flow.padded:
            groups = channels.graph.nodes[layer].opts["groups"]
            by_group = flow.kernel.reshape(groups, -1).any(axis=1)
            needs.extend((layer, int(g)) for g in np.flatnonzero(by_group))
    return needs


def _options(model, channels, cut, made):
    """Three ways to set the betas of a class, best first, each as ({layer: betas}, constants of every layer).

    1 in its first producing layer and nil in the rest, so that a sum is 1 all along a chain; 1 in every
    producer, for products and for readers of a later producer alone; and the betas that the class has, with
    which it is not zero at any consumer that needs it, or there would be no inflow.
    """
    first = {}
    for layer in channels.convolutions:
        for c in channels.ids[layer][~np.isnan(made[layer])] if layer in made else ():
            first.setdefault(int(c), layer)
    options = []
    for leading in (True, False, None):
        betas, values = {}, {}
        for layer, constant in made.items():
            name = channels.graph.nodes[layer].opts["activation"]
            beta = array(offset(model, layer))
            if leading is not None:
                is_first = np.array([first.get(int(c)) == layer for c in channels.ids[layer]])
                beta = np.where(is_first | (not leading), ONE, NIL.get(name, 0.0))
            betas[layer] = beta
            values[layer] = np.where(np.isnan(constant), np.nan, activate(name, beta))
        options.append((betas, propagate(model, channels, values)))
    return options


def _coverage(channels, needs, options, row, count):
    """covers: bool (options, classes, needs); places: (need, option) -> {class: (position, value)}."""
    covers = np.zeros((len(options), count, len(needs)), dtype=bool)
    places: dict[tuple[int, int], np.ndarray] = {}
    for n, (layer, group) in enumerate(needs):
        node = channels.graph.nodes[layer]
        source, depth = node.inputs[0], node.in_shapes[0][0] // node.opts["groups"]
        span = slice(group * depth, (group + 1) * depth)
        rows = row[channels.of(source)[span]]
        for o, (_, constants) in enumerate(options):
            values = constants[source][span]
            least = WEAK if o < len(options) - 1 else 0.0
            usable = (rows >= 0) & (np.abs(values) > least)
            covers[o, rows[usable], n] = True
            places[n, o] = np.flatnonzero(usable) + span.start
    return covers, places


def _uses(channels, needs, options, picked, places) -> dict[tuple[int, int], Use]:
    uses = {}
    for n, (layer, group) in enumerate(needs):
        source = channels.graph.nodes[layer].inputs[0]
        ids, best = channels.of(source), None
        for o, (_, constants) in enumerate(options):
            for p in places[n, o].tolist():  # the first position, where a class is repeated
                if picked.get(int(ids[p])) == o and best is None:
                    best = Use(p, float(constants[source][p]))
        uses[layer, group] = best
    return uses


def _betas(channels, c: int, betas) -> dict[tuple[int, int], float]:
    return {(layer, channel): float(betas[layer][channel]) for layer, channel in channels.producers[c]}
