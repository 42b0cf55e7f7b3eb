"""Surgery: the compact network that a plan describes, with what was cut folded into what stays.

Positions are found by following class ids through the graph, so nothing here knows about layer types but
convolutions and weighted shortcuts, the two that have parameters. All arithmetic is float64; only what is
stored is float32.
"""

from __future__ import annotations

import numpy as np
import torch

from ..base.errors import RequestError
from ..network.channels import Channels
from ..network.darknet import Darknet
from ..network.twins import empty
from . import carriers
from .parts import array, batch_norm, convolution, offset, put, view
from .plan import FOLDS, PrunePlan, check
from .widths import compact_cfg


def apply(model, plan: PrunePlan, fold: str = "exact") -> Darknet:
    """The compact network, in eval mode and on the CPU, with its own cfg. `model` and `plan` stay as they
    are.

    Args:
        fold: what becomes of the constants act(beta) that cut channels leave behind.
            `exact`: folded into running means and biases; padded convolutions get them through carrier
                channels.
            `interior`: all folded into running means and biases; wrong along zero-padded borders.
            `none`: dropped.

    Raises:
        RequestError: the plan was made for another network, or `fold` is none of these.
    """
    if fold not in FOLDS:
        raise RequestError("fold", repr(fold), "one of " + ", ".join(FOLDS))
    channels = Channels(model.graph)
    check(plan, channels)
    folding = carriers.fold(model, channels, plan.keep, exact=fold == "exact")
    stays = ~carriers.cut_classes(channels, plan.keep)
    stays[[carrier.channel_class for carrier in folding.carriers]] = True
    compact = empty(compact_cfg(model.cfg, channels, stays))
    for layer in channels.convolutions:
        _convolution(model, compact, channels, layer, stays, plan.keep[layer], folding, fold)
    _set_carriers(compact, channels, stays, folding)
    for node in channels.graph.nodes:
        if node.type == "shortcut" and node.opts["weights_type"] != "none":
            weights = array(model.module_list[node.index].weights)
            kept = stays[channels.ids[node.index]] if node.opts["weights_type"] == "per_channel" else [True]
            put(compact.module_list[node.index].weights, weights[:, kept])
    return compact.eval()


def staying(model, channels: Channels, plan: PrunePlan, compact: Darknet) -> np.ndarray:
    """bool (classes,): the classes that `compact` has, which `apply` made: what is kept, and the carriers if
    it has any.

    Raises:
        RequestError: it was not made by this plan.
    """
    stays = ~carriers.cut_classes(channels, plan.keep)
    for exact in (False, True):
        if exact:
            found = carriers.fold(model, channels, plan.keep).carriers
            stays[[carrier.channel_class for carrier in found]] = True
        widths = {layer: int(stays[channels.ids[layer]].sum()) for layer in channels.convolutions}
        if widths == {layer: conv.out_channels for layer, conv in compact.convolutions().items()}:
            return stays
    raise RequestError(
        "plan", "the compact network has other widths", "the network that `apply` made by this plan"
    )


def _convolution(model, compact, channels, layer, stays, alive, folding, fold) -> None:
    """Writes one convolution: kept filters, kept inputs, and the constants that flow in."""
    node = channels.graph.nodes[layer]
    source, groups = channels.of(node.inputs[0]), node.opts["groups"]
    rows = stays[channels.ids[layer]]
    columns = stays[source].reshape(groups, -1)
    columns = columns[0] if columns.shape[1] > 1 else np.ones(1, dtype=bool)  # the same in all groups
    weight = view(convolution(model, layer).weight)[
        np.ix_(rows, columns)
    ]  # float32 as it is: only what carriers bring is worked out
    flow, alive = folding.inflows.get(layer), alive[rows]
    if fold == "exact":
        _read_carriers(weight, node, source, stays, alive, rows, folding)
    put(convolution(compact, layer).weight, weight)
    folded = flow is not None and fold != "none" and not (fold == "exact" and flow.padded)
    shift = flow.interior[rows] if folded else np.zeros(len(weight))
    bn, new = batch_norm(model, layer), batch_norm(compact, layer)
    if bn is None:
        put(convolution(compact, layer).bias, array(convolution(model, layer).bias)[rows] + shift)
        return
    for name in ("weight", "bias", "running_var"):
        put(getattr(new, name), array(getattr(bn, name))[rows])
    put(new.running_mean, array(bn.running_mean)[rows] - shift)
    new.num_batches_tracked.copy_(bn.num_batches_tracked.cpu())


def _read_carriers(weight, node, source, stays, alive, rows, folding) -> None:
    """Sets what living filters read from carriers: the cut kernels' sum at one of them, nothing at the
    others.

    Args:
        weight: float32 (kept filters, kept inputs a group, k, k), changed in place.
        source: the class of each input channel (C,).
        alive: bool (kept filters,): carriers themselves are multiplied by gamma 0, so their kernels stay.
    """
    carrying = np.isin(source, [carrier.channel_class for carrier in folding.carriers])
    groups = node.opts["groups"]
    if not carrying.any() or groups == len(source) > 1:  # a depthwise carrier is read by carriers only
        return
    height, depth = len(weight) // groups, len(source) // groups
    for group in range(groups):
        span = slice(group * depth, (group + 1) * depth)
        living = np.flatnonzero(alive[group * height : (group + 1) * height]) + group * height
        weight[np.ix_(living, np.flatnonzero(carrying[span][stays[source[span]]]))] = 0
        use = folding.uses.get((node.index, group))
        if use is not None:
            column = int(stays[source[span.start : use.position]].sum())
            kernel = folding.inflows[node.index].kernel[rows][living] / use.value
            weight[living, column] = kernel.reshape(-1, *weight.shape[2:])


def _set_carriers(compact, channels, stays, folding) -> None:
    """Gives the carriers gamma 0 (without batch norm a kernel of zeros) and the beta that makes their
    constant.
    """
    with torch.no_grad():
        for carrier in folding.carriers:
            for (layer, channel), beta in carrier.betas.items():
                at = int(stays[channels.ids[layer]][:channel].sum())
                bn = batch_norm(compact, layer)
                (convolution(compact, layer).weight if bn is None else bn.weight)[at] = 0.0
                offset(compact, layer)[at] = beta
