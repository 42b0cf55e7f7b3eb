"""Residual blocks: which of them can be removed, removing the weakest, and the proof of it.

A residual block adds what its body makes to what the body reads: y = act(x + body(x)). Its score is the mean
|gamma| of the convolution before the shortcut, the scale of all that the body adds (the gammas of network
slimming, Liu 2017, arXiv 1708.06519, taken a layer at a time). Removing it takes out the body and the
shortcut; whoever read the sum reads x.

That is exact for a body that adds nothing. Two things are lost with a block: what its body did add, and the
shortcut's activation where that is not linear. `zeroed` is the network that has lost just these, with all its
layers still there: it is what a removal is compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

from ..base.errors import ProofError, RequestError
from ..network import layers
from ..network.cfg import Cfg
from ..network.channels import Channels
from ..network.darknet import Darknet
from ..network.graph import Graph
from ..network.node import HEADS, Node
from ..network.twins import empty, twin
from .importance import gammas
from .parts import batch_norm
from .verify import TOLERANCE, Proof, difference, inputs, largest

REFERENCES = {
    "route": "layers",
    "shortcut": "from",
    "sam": "from",
    "scale_channels": "from",
}  # the keys that name layers
SHOWN = 5  # reasons in one message


@dataclass(frozen=True)
class Block:
    """A residual block that can be removed.

    Attributes:
        shortcut: number of the [shortcut] layer.
        source: number of the layer that the body reads and is added to; it takes the block's place.
        body: the layers between the two, which go with the shortcut.
        convolution: the last convolution of the body.
        score: mean |gamma| of that convolution.
    """

    shortcut: int
    source: int
    body: tuple[int, ...]
    convolution: int
    score: float


@dataclass(frozen=True)
class Removal:
    """What `remove` has made.

    Attributes:
        model: the network without the blocks, in eval mode and on the CPU, with its own cfg.
        blocks: the blocks that were removed, weakest first, numbered as in the network that they were taken
            from.
        numbers: old layer number -> new one, for the layers that stay.
    """

    model: Darknet
    blocks: tuple[Block, ...]
    numbers: Mapping[int, int]


def find(model) -> tuple[tuple[Block, ...], tuple[tuple[int, str], ...]]:
    """The residual blocks that can be removed, and the shortcuts that cannot. `model` is only read.

    Returns:
        The removable blocks, ascending by (score, layer), and (shortcut layer, reason) for all other
        shortcuts.

    Raises:
        WeightsError: a gamma that is no finite number.
    """
    channels = Channels(model.graph)
    scores = gammas(model, channels)
    blocks, refused = [], []
    for node in model.graph.nodes:
        if node.type != "shortcut":
            continue
        reason = _obstacle(channels, node)
        if reason:
            refused.append((node.index, reason))
            continue
        last = _end_of_body(model.graph, node)
        blocks.append(Block(node.index, node.inputs[1], _body(node), last, float(scores[last].mean())))
    return tuple(sorted(blocks, key=lambda b: (b.score, b.shortcut))), tuple(refused)


def remove(model, count: int) -> Removal:
    """The network without its `count` weakest residual blocks. `model` stays as it is.

    The cfg keeps its text but for the removed sections and the references that change: a relative one stays
    relative, an absolute one absolute, and one to a removed shortcut becomes one to what takes its place.

    Args:
        count: how many blocks; 0 gives an equal copy.

    Raises:
        RequestError: `count` is no number of blocks, or there are fewer; says why the other shortcuts stay.
        WeightsError: a gamma that is no finite number.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise RequestError("shortcuts", repr(count), "a whole number of at least 0")
    found, refused = find(model)
    if count > len(found):
        raise RequestError(
            "shortcuts", f"{count} residual blocks to remove", f"at most {len(found)}", _listed(refused)
        )
    blocks = found[:count]
    cfg, numbers = _renumbered(model.cfg, blocks)
    smaller = empty(cfg)
    with torch.no_grad():
        for old, new in numbers.items():
            stored, wanted = model.module_list[old].state_dict(), smaller.module_list[new].state_dict()
            for source, target in zip(stored.values(), wanted.values(), strict=True):
                target.copy_(source)
    smaller.seen = model.seen
    return Removal(smaller.eval(), blocks, MappingProxyType(numbers))


def zeroed(model, blocks: Collection[Block]) -> Darknet:
    """A copy of `model`, all layers in place, in which the blocks pass on what they read, unchanged.

    Gamma and beta of each block's last convolution are 0, so that its body adds nothing, and the activation
    of its shortcut is linear. A shortcut that was not linear has thereby lost its activation too, as it does
    when it is removed.

    Raises:
        RequestError: one of the blocks is no removable block of this network.
    """
    bodies = {block.shortcut: block.body for block in find(model)[0]}
    cfg = model.cfg.copy()
    for block in blocks:
        if bodies.get(block.shortcut) != block.body:
            raise RequestError(
                "blocks",
                f"layer {block.shortcut} ends no removable block of {model.cfg.path} with these layers",
                "blocks that were found in this network",
            )
        if model.graph.nodes[block.shortcut].opts["activation"] != "linear":
            cfg.layers[block.shortcut].set("activation", "linear")
    first = next(model.parameters())
    copy = empty(cfg, first.device).to(first.dtype)
    copy.load_state_dict(model.state_dict())
    copy.seen = model.seen
    with torch.no_grad():
        for block in blocks:
            bn = batch_norm(copy, block.convolution)
            bn.weight.zero_()
            bn.bias.zero_()
    return copy.train(model.training)


def prove_removal(model, removal: Removal, images: int = 2, seed: int = 0) -> Proof:
    """Compares the smaller network with `zeroed` on random inputs, both in float64. In the result, `error`
    equals `relative`.

    Raises:
        ProofError: the difference is above 1e-5 of the largest value, or no number.
        RequestError: the blocks were not removed from this network.
    """
    # maps of the original at a size it accepts are equal where they are joined, so the smaller network
    # accepts that size too
    x, size = inputs(model, images, seed)
    with torch.inference_mode():
        expected, maps = (
            twin(net, "cpu", torch.float64).eval().raw_heads(x)
            for net in (zeroed(model, removal.blocks), removal.model)
        )
    apart = difference(maps, expected)
    relative = apart / largest(expected)
    if not relative <= TOLERANCE:
        raise ProofError(
            removal.model.cfg.path,
            f"the network without {len(removal.blocks)} residual blocks differs by {relative:.1e} of "
            "the largest value from the one in which they add nothing",
            f"at most {TOLERANCE:.0e}",
            "nothing was written",
        )
    return Proof(apart, relative, relative, size, images)


# --- what can be removed
# ---------------------------------------------------------------------------------------------


def _obstacle(channels: Channels, node: Node) -> str | None:
    """Why a shortcut is no removable block; None if it is one."""
    graph = channels.graph
    if len(node.inputs) != 2:
        return f"adds {len(node.inputs)} layers, not two"
    if node.opts["weights_type"] != "none":
        return "weights what it adds"
    if node.in_shapes[0] != node.in_shapes[1]:
        return f"adds {node.in_shapes[1][0]} channels (layer {node.inputs[1]}) to {node.in_shapes[0][0]}"
    if node.inputs[0] == node.inputs[1]:
        return f"adds layer {node.inputs[0]} to itself"
    return _in_body(graph, node) or _at_end_of_body(graph, node) or _behind(channels, node)


def _body(node: Node) -> tuple[int, ...]:
    return tuple(range(node.inputs[1] + 1, node.index))


def _in_body(graph: Graph, node: Node) -> str | None:
    """Anything that makes the layers between source and sum more than one function of the source."""
    body = _body(node)
    inside = {node.inputs[1], *body}
    for layer in body:
        inner = graph.nodes[layer]
        if inner.type in HEADS:
            return f"has [{inner.type}] layer {layer} inside"
        if inner.type == "shortcut":
            return f"has the shortcut of layer {layer} inside, and cannot go while that stands"
        outside = [i for i in inner.inputs if i not in inside]
        if outside:
            return f"has [{inner.type}] layer {layer} inside, which also reads layer {outside[0]}"
        readers = [i for i in graph.consumers[layer] if i > node.index]
        if readers:
            return (
                f"has layer {layer} inside, which [{graph.nodes[readers[0]].type}] layer {readers[0]} reads"
            )
    return None


def _end_of_body(graph: Graph, node: Node) -> int:
    """The last layer of the body that is no dropout; the source if there is none."""
    last = node.inputs[0]
    while last > node.inputs[1] and graph.nodes[last].type == "dropout":
        last -= 1
    return last


def _at_end_of_body(graph: Graph, node: Node) -> str | None:
    """Anything that keeps gamma and beta 0 from making the body add nothing."""
    last = graph.nodes[_end_of_body(graph, node)]
    if last.index == node.inputs[1]:
        return f"adds layer {last.index} to itself"
    if last.type != "convolutional":
        return f"adds [{last.type}] layer {last.index}, not a convolution"
    if not last.opts["batch_normalize"]:
        return f"adds layer {last.index}, which has no batch_normalize, so no gamma"
    activation = last.opts["activation"]
    if float(layers.activate(activation, torch.zeros(1))) != 0:
        return f"adds layer {last.index}, whose activation {activation} is not 0 at 0"
    return None


def _behind(channels: Channels, node: Node) -> str | None:
    """A head that reads the sum, at once or through further sums: what feeds it is protected."""
    for head in channels.graph.heads:
        if set(channels.ids[node.index].tolist()) & set(
            channels.of(channels.graph.nodes[head].inputs[0]).tolist()
        ):
            return f"feeds [{channels.graph.nodes[head].type}] layer {head}"
    return None


def _listed(refused: tuple[tuple[int, str], ...]) -> str:
    if not refused:
        return "the network has no other shortcut"
    more = f"; and {len(refused) - SHOWN} more" if len(refused) > SHOWN else ""
    return (
        "the others stay: " + "; ".join(f"layer {layer} {reason}" for layer, reason in refused[:SHOWN]) + more
    )


# --- the cfg without them
# --------------------------------------------------------------------------------------------


def _renumbered(cfg: Cfg, blocks: Collection[Block]) -> tuple[Cfg, dict[int, int]]:
    """The cfg without the blocks, and old layer number -> new one for the layers that stay."""
    instead = {block.shortcut: block.source for block in blocks}
    gone = {layer for block in blocks for layer in (*block.body, block.shortcut)}
    stay = [section.index for section in cfg.layers if section.index not in gone]
    numbers = {old: new for new, old in enumerate(stay)}

    def number(layer: int) -> int:
        while layer in instead:  # the source may itself have been the sum of a removed block
            layer = instead[layer]
        return numbers[layer]

    smaller = cfg.without(gone)
    for section, old in zip(smaller.layers, stay, strict=True):
        key = REFERENCES.get(section.type)
        if key:
            section.set(
                key,
                ",".join(_moved(text, old, section.index, number) for text in section.get(key).split(",")),
            )
    return smaller, numbers


def _moved(text: str, old: int, new: int, number: Callable[[int], int]) -> str:
    """One reference of layer `old`, now `new`: absolute or relative as it was written, and the same text if
    it is the same number.
    """
    if not text:  # behind a trailing comma
        return text
    reference = int(float(text))
    moved = number(reference) if reference >= 0 else number(old + reference) - new
    return text if moved == reference else str(moved)
