"""The time of networks in every engine that is installed, each engine in a process of its own: some do not
bear each other.
"""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Sequence

import torch

from ..base.errors import DarkslimError
from ..deploy.engines import ENGINES
from ..latency import Timing
from ..network import weights
from .running import time_under

LEFT_OUT = ("torch-compiled", "torch-bf16", "openvino-bf16")  # minutes to compile, or not on every processor
LIMIT = 300.0  # seconds for one engine


def engine_times(
    networks: Sequence[tuple[str, str]], size: tuple[int, int], progress
) -> dict[str, list[Timing] | None]:
    """Engine -> the time of each network at batch 1, measured in turn; None where the engine is not
    installed or cannot run one of them.

    Args:
        networks: (cfg, weights) files. size: (height, width) of the input.
        progress: wraps the engines, as that of an observer.
    """
    names = [name for name in ENGINES if name not in LEFT_OUT]
    return {name: _apart(name, networks, size) for name in progress(names, desc="timing engines")}


def _apart(name: str, networks: Sequence[tuple[str, str]], size: tuple[int, int]) -> list[Timing] | None:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(
        target=_work, args=(there, name, networks, size, torch.get_num_threads()), daemon=True
    )
    process.start()
    there.close()
    try:
        return here.recv() if here.poll(LIMIT) else None
    except EOFError:  # the engine took its process with it
        return None
    finally:
        process.terminate()
        process.join()


def _work(pipe, name: str, networks, size, threads: int) -> None:
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    try:
        models = [weights.load_model(cfg, file) for cfg, file in networks]
        pipe.send(time_under(models, name, size, torch.device("cpu")))
    except DarkslimError:
        pipe.send(None)
