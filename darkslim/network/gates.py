"""Gates: one coefficient a channel class, on what convolutions read, while a network is trained.

A gate multiplies a channel after its activation, wherever it is read. Channels that shortcuts join have one
gate, since they are one class. Where every reader multiplies by the gate, 0 is a true zero whatever the
activation: the channel can be cut and leaves no constant. A gate is nothing that a cfg can say; `folded`
writes it into the kernels of the readers, which is the same network.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from .channels import Channels
from .darknet import Darknet
from .twins import empty


class Gates(nn.Module):
    """The gates of the classes that a strategy may cut, all 1 at first.

    Depthwise convolutions are no readers: what they read and what they make is one class, whose gate stands
    where others read that.

    Attributes:
        value: (n,) the gates. classes: int64 (n,) the class of each.
        layers: the convolutions that read any of them.
    """

    def __init__(self, graph, strategy: str = "normal"):
        super().__init__()
        channels = Channels(graph)
        classes = channels.prunable(strategy)
        self.value = nn.Parameter(torch.ones(len(classes)))
        self.register_buffer("classes", torch.from_numpy(np.asarray(classes, np.int64)), persistent=False)
        place = np.full(channels.count, len(classes))  # behind the gates stands a 1, for what has none
        place[classes] = np.arange(len(classes))
        self.layers = []
        for layer in channels.convolutions:
            read = channels.of(graph.nodes[layer].inputs[0])
            if (place[read] < len(classes)).any() and not _depthwise(graph.nodes[layer]):
                self.layers.append(layer)
                self.register_buffer(f"read_{layer}", torch.from_numpy(place[read]), persistent=False)
        self._reads = frozenset(self.layers)

    def of(self, layer: int) -> Tensor | None:
        """(C,) what each input channel of a layer is multiplied by; None if it reads no gated class."""
        if layer not in self._reads:
            return None
        return torch.cat([self.value, self.value.new_ones(1)])[getattr(self, f"read_{layer}")]

    def forward(self, layer: int, inputs: list[Tensor]) -> list[Tensor]:
        """The inputs of a layer, (B, C, H, W) each, as it reads them."""
        factors = self.of(layer)
        if factors is None:
            return inputs
        (x,) = inputs
        return [x * factors.to(x.dtype).view(1, -1, 1, 1)]


def _depthwise(node) -> bool:
    return node.opts["groups"] > 1 and node.opts["groups"] == node.in_shapes[0][0]


def folded(model: Darknet) -> Darknet:
    """The same network without gates: they are in the kernels of a copy. A network that has none is returned
    as it is.
    """
    if model.gates is None:
        return model
    first = next(model.parameters())
    plain = empty(model.cfg, first.device).to(first.dtype)
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("gates.")}
    plain.load_state_dict(state)
    plain.seen, plain.trained_at = model.seen, model.trained_at
    with torch.no_grad():
        for layer, conv in plain.convolutions().items():
            factors = model.gates.of(layer)
            if factors is not None:
                groups, inside = conv.groups, conv.weight.shape[1]
                each = factors.double().view(groups, 1, inside, 1, 1)
                kernels = conv.weight.double().view(groups, -1, *conv.weight.shape[1:]) * each
                conv.weight.copy_(kernels.view(conv.weight.shape))
    return plain.train(model.training)
