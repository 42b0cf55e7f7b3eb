"""What runs a network in place of this program's own modules: one small interface.

    network = engines.build("openvino", model, size=(416, 416))
    boxes = network(images)     # (B, C, H, W) in 0..1 -> (B, boxes, 5 + classes), as `Darknet` in eval mode

An engine is a module without parameters to train, so that whatever evaluates, times or compares a `Darknet`
takes an engine as well.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..base.errors import RequestError
from ..network.cfg import Cfg
from ..network.graph import Graph
from ..network.heads import Head


class Engine(nn.Module):
    """A network run by another program.

    Args:
        cfg: the network that it runs. size: (height, width) that it was made for; None: any.
        batch: the only batch that it takes; None: any.

    Attributes:
        name: as `--engine` has it.
        cfg, graph, heads, trained_at: as those of `Darknet`.
    """

    name = ""

    def __init__(self, cfg: Cfg, size: tuple[int, int] | None = None, batch: int | None = None):
        super().__init__()
        self.cfg, self.graph = cfg, Graph(cfg)
        self.heads = [Head.of(self.graph.nodes[i]) for i in self.graph.heads]
        self.size, self.batch = size, batch
        self.trained_at: tuple[int, int] | None = None
        self.here = nn.Parameter(torch.zeros(0), requires_grad=False)  # says which device it is on

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) float, 0..1 -> (B, boxes, 5 + classes) float32.

        Raises:
            RequestError: a size that it was not made for.
        """
        if self.size is not None and tuple(x.shape[2:]) != tuple(self.size):
            raise RequestError(
                f"engine {self.name}",
                f"was made for {self.size[1]}x{self.size[0]}, and is given {x.shape[3]}x{x.shape[2]}",
                remedy="export it for that size (--img_size)",
            )
        if self.batch is not None and len(x) > self.batch:
            return torch.cat([self.run(part) for part in x.split(self.batch)])
        return self.run(x)

    def run(self, x: Tensor) -> Tensor:
        """A batch that the engine takes."""
        raise NotImplementedError
