"""A network run layer by layer over many pictures, so that a layer can be changed before the next one runs.

The maps that lie between two layers are held for all pictures where they fit into the memory that is allowed;
where they do not (the first layers of a large network), they are worked out again from where they last did.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

MEMORY = 3 << 30  # bytes of maps held, of all networks that walk together
Maps = dict[int, Tensor]  # layer -> its output; -1: the picture


class Walk:
    """One network on its way over batches of pictures.

    Args:
        model: in eval mode. Layers behind the one that is asked for may change, those before it not.
        batches: pictures (B, C, H, W), uint8 or float in 0..1.
        memory: bytes of maps that may be held for all pictures together.
    """

    def __init__(self, model, batches: Sequence[Tensor], memory: int):
        self.model, self.batches, self.memory = model, batches, memory
        self.pictures = sum(len(batch) for batch in batches)
        self.device = next(model.parameters()).device
        self.dtype = next(model.parameters()).dtype
        self._last_use = {i: i for i in range(-1, len(model.graph.nodes))}
        for node in model.graph.nodes:
            self._last_use.update(dict.fromkeys(node.inputs, node.index))
        self._held: list[tuple[int, Maps] | None] = [None] * len(batches)

    def before(self, batch: int, layer: int) -> Maps:
        """The maps that `layer` and those behind it read, of one batch."""
        at, maps = self._held[batch] or (0, {-1: self.picture(batch)})
        maps = dict(maps)
        for i in range(at, layer):
            self._set(maps, i, self.model.layer_output(i, *self._inputs(maps, i)))
        self._hold(batch, layer, maps)
        return maps

    def through(self, batch: int, layer: int, watch: Callable[[Maps, Tensor], None]) -> None:
        """Runs one batch up to a convolution and through it.

        Args:
            watch: is called with the maps before the layer and with what the convolution itself makes,
                (B, filters, H, W) before its norm and activation.
        """
        maps = self.before(batch, layer)
        convolution, *rest = self.model.module_list[layer]
        y = convolution(*self._inputs(maps, layer))
        watch(maps, y)
        for module in rest:
            y = module(y)
        maps = dict(maps)
        self._set(maps, layer, y)
        self._hold(batch, layer + 1, maps)

    def picture(self, batch: int) -> Tensor:
        """One batch as the network takes it."""
        images = self.batches[batch].to(self.device)
        images = images.to(self.dtype) / 255 if images.dtype == torch.uint8 else images.to(self.dtype)
        return images.contiguous(memory_format=torch.channels_last)

    def _inputs(self, maps: Maps, layer: int) -> list[Tensor]:
        return [maps[i] for i in self.model.graph.nodes[layer].inputs]

    def _set(self, maps: Maps, layer: int, output: Tensor) -> None:
        """Adds the output of a layer and drops what nobody reads any more."""
        maps[layer] = output
        for i in (*self.model.graph.nodes[layer].inputs, layer):
            if self._last_use[i] <= layer:
                maps.pop(i, None)

    def _hold(self, batch: int, layer: int, maps: Maps) -> None:
        size = sum(y.numel() * y.element_size() for y in maps.values())
        if size * self.pictures <= self.memory * len(self.batches[batch]):
            self._held[batch] = layer, maps
