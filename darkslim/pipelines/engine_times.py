"""The time of networks in an engine. Engines other than PyTorch have a process of their own while they are
timed: some do not bear each other, nor what else a job does (OpenVINO was seen to end a process that had
loader workers beside it).
"""

from __future__ import annotations

import multiprocessing
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from ..base.errors import DarkslimError, RequestError
from ..deploy.engines import ENGINES
from ..latency import Timing, time_networks
from ..network import weights
from ..network.darknet import Darknet
from .running import running

LEFT_OUT = ("torch-compiled", "torch-bf16", "openvino-bf16")  # minutes to compile, or not on every processor
LIMIT = 600.0  # seconds for one engine


def time_under(
    models: Sequence[Darknet], engine: str, size: tuple[int, int], device: torch.device
) -> list[Timing]:
    """The time of each network at batch 1, measured in turn; all of them end on the CPU.

    Raises:
        RequestError: an engine that is not installed, that cannot run one of them, or not on that device.
    """
    if engine == "torch":
        for model in models:
            model.to(device)
        found = time_networks(models, size)
        for model in models:
            model.cpu()
        return found
    if engine.startswith("torch"):
        return time_networks([running(model, engine, size, device) for model in models], size)
    if device.type != "cpu":
        raise RequestError("--engine", f"{engine} runs on the processor here", remedy="--device cpu")
    with tempfile.TemporaryDirectory(prefix="darkslim") as folder:
        networks = []
        for i, model in enumerate(models):
            cfg, file = Path(folder, f"{i}.cfg"), Path(folder, f"{i}.weights")
            cfg.write_bytes(model.cfg.to_bytes())
            file.write_bytes(weights.weights_bytes(model, 0))
            networks.append((str(cfg), str(file)))
        return time_apart(networks, engine, size)


def engine_times(
    networks: Sequence[tuple[str, str]], size: tuple[int, int], progress
) -> dict[str, list[Timing] | None]:
    """Engine -> the time of each network at batch 1, measured in turn; None where the engine is not installed
    or cannot run one of them.

    Args:
        networks: (cfg, weights) files. size: (height, width) of the input.
        progress: wraps the engines, as that of an observer.
    """
    found: dict[str, list[Timing] | None] = {}
    names = [name for name in ENGINES if name not in LEFT_OUT]
    for name in progress(names, desc="timing engines"):
        try:
            found[name] = time_apart(networks, name, size)
        except RequestError:
            found[name] = None
    return found


def time_apart(networks: Sequence[tuple[str, str]], engine: str, size: tuple[int, int]) -> list[Timing]:
    """The time of each network, measured in turn in a process of its own.

    Args:
        networks: (cfg, weights) files.

    Raises:
        RequestError: an engine that is not installed, cannot run one of them, or ended its process.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(
        target=_work, args=(there, networks, engine, size, torch.get_num_threads()), daemon=True
    )
    process.start()
    there.close()
    try:
        said = here.recv() if here.poll(LIMIT) else f"took more than {LIMIT:.0f} s"
    except EOFError:
        said = "ended its process"
    finally:
        process.kill()  # what it measured is here; how it ends is nobody's business
        process.join()
    if isinstance(said, str):
        raise RequestError(f"--engine {engine}", said, "an engine that runs this network here")
    return said


def _work(pipe, networks, engine: str, size, threads: int) -> None:
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    try:
        models = [weights.load_model(cfg, file) for cfg, file in networks]
        pipe.send(
            time_networks([running(model, engine, size, torch.device("cpu")) for model in models], size)
        )
    except DarkslimError as e:
        pipe.send(str(e))
