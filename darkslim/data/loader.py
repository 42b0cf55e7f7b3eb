"""Seeded batches for any number of workers and ranks.

The sampler hands (epoch, index, size) to the dataset, so persistent workers know the epoch and multi-scale
training changes the size without restarting them. The order and the sizes depend on (seed, epoch) alone.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..base.errors import DatasetError, RequestError, TrainingError
from .balance import repeated
from .dataset import Failure, collate

ORDER, SIZES = 2**32 - 1, 2**32 - 2  # streams of random numbers that no picture's index reaches


@dataclass(frozen=True)
class MultiScale:
    """A new input size every so many batches, as Darknet's random=1: round(r w / 32 + 1) * 32 with r in /1.4
    to *1.4.

    Attributes:
        size: (height, width) of the cfg.
        spread: 1.4.
        every: batches.
        step: sizes are multiples of this, the largest stride of the network.
    """

    size: tuple[int, int]
    spread: float = 1.4
    every: int = 10
    step: int = 32

    def at(self, seed: int, batch: int) -> tuple[int, int]:
        """(height, width) of a batch, counted from the first of the first epoch."""
        u = np.random.default_rng([seed, SIZES, batch // self.every]).random()
        r = 1 / self.spread + u * (self.spread - 1 / self.spread)
        height, width = (max(1, int(r * side / self.step + 1.5)) * self.step for side in self.size)
        return height, width


class EpochBatches(Sampler):
    """Batches of (epoch, index, size) for one rank.

    Every rank has the same number of pictures: the order is padded from its start. With `shuffle` it changes
    each epoch; with `factors` as well, pictures come about as often as they say (balance.py).

    Raises:
        RequestError: a batch size, rank or world that cannot be; no full batch with drop_last.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        rank: int = 0,
        world: int = 1,
        multiscale: MultiScale | None = None,
        factors: np.ndarray | None = None,
    ):
        if batch_size < 1:
            raise RequestError("--batch_size", str(batch_size), "at least 1")
        if not 0 <= rank < world:
            raise RequestError("rank", f"{rank} of {world} processes", "0 to world - 1")
        self.count, self.batch_size, self.shuffle, self.seed = count, batch_size, shuffle, seed
        self.drop_last, self.rank, self.world, self.multiscale = drop_last, rank, world, multiscale
        self.factors = factors
        self.each = -(-count // world)
        self.epoch = self.start = 0
        if len(self) == 0:
            raise RequestError(
                "--batch_size",
                f"{batch_size} is more than the {self.each} images a process has",
                remedy="make it smaller",
            )

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        self.epoch, self.start = int(epoch), int(start)

    def order(self) -> np.ndarray:
        """This rank's indices in this epoch."""
        order = np.arange(self.count)
        if self.shuffle:
            rng = np.random.default_rng([self.seed, self.epoch, ORDER])
            order = rng.permutation(self.count) if self.factors is None else repeated(self.factors, rng)
        return np.resize(order, self.each * self.world)[
            self.rank :: self.world
        ]  # resize repeats from the start

    def __len__(self) -> int:
        return self.each // self.batch_size if self.drop_last else -(-self.each // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int, tuple[int, int] | None]]]:
        order, epoch = self.order(), self.epoch
        for batch in range(self.start, len(self)):
            size = self.multiscale.at(self.seed, epoch * len(self) + batch) if self.multiscale else None
            yield [
                (epoch, int(i), size) for i in order[batch * self.batch_size : (batch + 1) * self.batch_size]
            ]


def _collate(batch: list):
    failures = [item for item in batch if isinstance(item, Failure)]
    return failures[0] if failures else collate(batch)


def start_worker(_worker: int) -> None:
    """What a process that loads pictures does first."""
    torch.set_num_threads(1)
    # Ctrl-C is for the main process; its handlers, inherited by a fork, must not keep a worker from ending
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Loader(DataLoader):
    """A DataLoader of `collate`d batches that knows the epoch and turns the trouble of workers into typed
    errors.
    """

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Another order and another augmentation; the same for the same epoch. Batches before `start` are
        left out.
        """
        self.batch_sampler.set_epoch(epoch, start)

    def close(self) -> None:
        """Ends the worker processes; the next iteration starts new ones."""
        iterator, self._iterator = getattr(self, "_iterator", None), None
        if iterator is not None and hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __iter__(self):
        batches = super().__iter__()
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as e:
                self._iterator = None  # its workers are of no use any more; the next epoch starts new ones
                text = str(e)
                if "timed out" in text:
                    raise TrainingError(
                        "data loader",
                        f"no batch came within {self.timeout:g} seconds",
                        remedy="use fewer workers (--n_cpu), or a faster disk",
                    ) from e
                if "DataLoader worker" in text:
                    raise TrainingError(
                        "data loader",
                        "a worker process died (killed, or out of memory?)",
                        remedy="use fewer workers (--n_cpu), or a smaller batch",
                    ) from e
                raise
            if isinstance(batch, Failure):
                raise DatasetError(*batch.parts)
            yield batch


def make_loader(
    dataset: Dataset,
    batch_size: int,
    shuffle: bool = False,
    workers: int = 0,
    seed: int = 0,
    drop_last: bool = False,
    rank: int = 0,
    world: int = 1,
    multiscale: MultiScale | None = None,
    factors: np.ndarray | None = None,
    pin_memory: bool = False,
    timeout: float = 120.0,
) -> Loader:
    """Batches of uint8 (B, C, H, W) pictures in channels_last memory (see `dataset.to_input`) and float32 (N,
    6) targets.

    Args:
        shuffle: another order each epoch; call `set_epoch` before each.
        workers: processes; they live as long as the loader. 0 loads in this process.
        rank, world: this process's share of each epoch; all have the same number of batches.
        multiscale: changing sizes, for training.
        factors: (pictures,) how often each is shown, with `shuffle`; None: once.
        timeout: seconds to wait for a worker before giving up.

    Raises:
        RequestError: the batch size cannot be.
        While iterating: DatasetError (a picture changed since the check), TrainingError (a worker died or
            hangs).
    """
    batches = EpochBatches(
        len(dataset), batch_size, shuffle, seed, drop_last, rank, world, multiscale, factors
    )
    extra = {"persistent_workers": True, "prefetch_factor": 4, "timeout": timeout} if workers else {}
    return Loader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        worker_init_fn=start_worker,
        generator=torch.Generator().manual_seed(seed),
        **extra,
    )
