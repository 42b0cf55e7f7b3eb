"""The network that a cfg describes: forward only, no loss, no printing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .cfg import Cfg, read_cfg
from .graph import Graph
from .heads import Head, decode, raw_map, stored_map
from .layers import build


class Darknet(nn.Module):
    """A detector built from its cfg.

    Args:
        cfg: a parsed cfg, or the path of one.
        drawn: whether kernels start from random numbers; else they are whatever memory holds, to be written.

    Attributes:
        cfg: the Cfg it was built from.
        graph: its layers with absolute inputs and shapes at the cfg's input size.
        heads: its detection layers, in order.
        module_list: one module a layer.
        gates: coefficients on what convolutions read (gates.py), only while it is trained with them.
        seen: images trained on so far, as the .weights header has it.

    Raises:
        CfgError: the cfg cannot be read or describes an impossible network.
    """

    def __init__(self, cfg: Cfg | str, drawn: bool = True):
        super().__init__()
        self.cfg = cfg if isinstance(cfg, Cfg) else read_cfg(cfg)
        self.graph = Graph(self.cfg)
        self.module_list = nn.ModuleList(build(node, drawn) for node in self.graph.nodes)
        self.heads = [Head.of(self.graph.nodes[i]) for i in self.graph.heads]
        self.gates: nn.Module | None = None
        self.seen = 0
        self.trained_at: tuple[int, int] | None = None  # (height, width), where a checkpoint says so
        self._inputs = [node.inputs for node in self.graph.nodes]
        self._last_use = {i: i for i in range(len(self._inputs))}
        for node in self.graph.nodes:
            self._last_use.update(dict.fromkeys(node.inputs, node.index))
        self._head_at = {head.index: head for head in self.heads}

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Boxes in eval mode, raw head maps in train mode.

        Args:
            x: (B, C, H, W), values in 0..1; H and W may differ from the cfg's.

        Returns:
            eval: (B, boxes, 5 + classes): centre x, y, width, height in input pixels, objectness, class
                probabilities.
            train: a list of raw maps (B, masks, H, W, 5 + classes), one a head.
        """
        raws = self.raw_heads(x)
        if self.training:
            return raws
        return torch.cat(
            [decode(raw, head, tuple(x.shape[2:])) for raw, head in zip(raws, self.heads, strict=True)], 1
        )

    def raw_heads(self, x: Tensor) -> list[Tensor]:
        """The raw head maps (B, masks, H, W, 5 + classes), whatever the mode."""
        return self._run(x)[1]

    def layer_outputs(self, x: Tensor) -> list[Tensor]:
        """The output of every layer, (B, C, H, W) each; for a head the map that Darknet stores."""
        return self._run(x, keep_all=True)[0]

    def layer_output(self, layer: int, *inputs: Tensor) -> Tensor:
        """The output of one layer as those behind it read it, from the outputs of those that it reads."""
        y, head = self._layer(layer, list(inputs)), self._head_at.get(layer)
        return y if head is None else stored_map(raw_map(y, head), head)

    def _layer(self, layer: int, inputs: list[Tensor]) -> Tensor:
        if self.gates is not None:
            inputs = self.gates(layer, inputs)
        return self.module_list[layer](*inputs)

    def _run(self, x: Tensor, keep_all: bool = False) -> tuple[list[Tensor | None], list[Tensor]]:
        outputs: list[Tensor | None] = []
        raws = []
        for i, sources in enumerate(self._inputs):
            y = self._layer(i, [x if s < 0 else outputs[s] for s in sources])
            head = self._head_at.get(i)
            if head is not None:
                raw = raw_map(y, head)
                raws.append(raw)
                # only what somebody reads is worth activating
                y = stored_map(raw, head) if keep_all or self._last_use[i] > i else y
            outputs.append(y)
            if not keep_all:  # a map is dropped after its last reader: memory stays that of the widest moment
                for s in (*sources, i):
                    if s >= 0 and self._last_use[s] == i:
                        outputs[s] = None
        return outputs, raws

    def batch_norms(self) -> dict[int, nn.BatchNorm2d]:
        """Layer number -> its batch norm, for every convolution that has one."""
        return {
            n.index: getattr(self.module_list[n.index], f"batch_norm_{n.index}")
            for n in self.graph.nodes
            if n.type == "convolutional" and n.opts["batch_normalize"]
        }

    def convolutions(self) -> dict[int, nn.Conv2d]:
        """Layer number -> its convolution."""
        return {
            n.index: getattr(self.module_list[n.index], f"conv_{n.index}")
            for n in self.graph.nodes
            if n.type == "convolutional"
        }

    def load_state_dict(self, state_dict, strict: bool = True, assign: bool = False):
        """As torch does it; the counters that only newer batch norms store may be missing."""
        own = super().state_dict()
        counters = {k: v for k, v in own.items() if k.endswith("num_batches_tracked") and k not in state_dict}
        return super().load_state_dict({**counters, **state_dict}, strict, assign)
