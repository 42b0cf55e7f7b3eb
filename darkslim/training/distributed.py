"""Several processes under `torchrun`: who am I, agree, and average.

Each process takes an equal share of every optimizer step's batch. DistributedDataParallel averages gradients
over processes, so the loss of a share is divided by (whole batch / processes), and batch norms count the
images of all processes (`sync_norm`): the average is then the gradient that one process would have computed
for the whole batch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from ..base.errors import RequestError
from .sync_norm import synchronise

PATIENCE = timedelta(days=7)  # the first process may evaluate for long while the others wait


@dataclass(frozen=True)
class World:
    """This process among its fellows.

    Attributes:
        made: the group of processes was made for this world, and ends with it.
        patient: a second group, over the network's sockets, whose waits do not time out.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")
    made: bool = False
    patient: dist.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """True in the process that writes and speaks."""
        return self.rank == 0

    def share(self, batch_size: int, micro_batches: int = 1) -> int:
        """Images of one optimizer step that this process loads.

        Raises:
            RequestError: the batch does not divide evenly.
        """
        if batch_size % (self.size * micro_batches):
            raise RequestError(
                "--batch_size",
                f"{batch_size} images do not divide by {self.size} processes x {micro_batches} micro-batches",
                "a multiple of them",
            )
        return batch_size // self.size

    def wrap(self, model: nn.Module) -> nn.Module:
        """`model`, or its DistributedDataParallel, with batch norms over all processes."""
        if self.size == 1:
            return model
        synchronise(model)
        ids = [self.device.index] if self.device.type == "cuda" else None
        # the statistics of synchronised norms are the same everywhere, once they started the same
        return nn.parallel.DistributedDataParallel(model, device_ids=ids, forward_sync_buffers=False)

    def agree(self, *flags: bool) -> list[bool]:
        """For each flag: did any process raise it?"""
        if self.size == 1:
            return [bool(f) for f in flags]
        both = torch.tensor([float(f) for f in flags], device=self.device)
        dist.all_reduce(both, op=dist.ReduceOp.MAX)
        return [bool(v) for v in both.tolist()]

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The average over processes of a small tensor."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.size
        return values

    def wait(self) -> None:
        """Until every process is here, however long one of them still works; a process that dies is an error
        at once.
        """
        if self.size > 1:
            dist.barrier(group=self.patient)

    def close(self) -> None:
        """Ends the group of processes, unless it was there before: another job of this process may still need
        it.
        """
        if self.made and dist.is_initialized():
            dist.destroy_process_group()


def join(device: torch.device) -> World:
    """The world that torchrun's environment describes; alone without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World(device=device)
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise RequestError(
                "torchrun",
                f"process {local} of this machine has no GPU",
                remedy="start fewer, or use --device cpu",
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    made = not dist.is_initialized()
    if made:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return World(rank, size, device, made, dist.new_group(backend="gloo", timeout=PATIENCE))
