"""From a network to one of 8 bits: pictures that give the ranges, and the layers that are better left
alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch

from .. import evaluation
from ..base.observer import Observer
from ..data import datafile
from ..data.loader import make_loader
from ..data.plain import plain_dataset
from ..deploy import int8
from ..deploy.engine_onnxruntime import OnnxRuntime
from ..network.darknet import Darknet
from ..network.rounding import head_layers

PICTURES = 128  # that give the ranges, and by which layers are judged
BATCH = 8
LOSS = 0.002  # of mAP50 on them that is put up with
ROUNDS = 4  # of leaving more layers in float32
SHARE = 8  # of the layers, one in so many more each round


@dataclass(frozen=True)
class Quantized:
    """A network in 8 bits.

    Attributes:
        data: the ONNX file. kept: layers in float32. pictures: that gave the ranges.
        tried: layers in float32 and mAP50 on these pictures, of every round.
    """

    data: bytes
    kept: tuple[int, ...]
    pictures: int
    tried: tuple[tuple[int, float], ...]


def quantized(
    model: Darknet,
    write: Callable[[Darknet], object],
    settings,
    size: tuple[int, int],
    observer: Observer,
    progress,
) -> Quantized:
    """The network in 8 bits: heads in float32, and of the other layers as many of the worst ones as it
    takes for mAP on the calibration pictures to stay.

    Args:
        model: without batch norms. write: what makes an ONNX model of it. settings: of `export`.
    """
    config = datafile.read_data(settings.data_config)
    key = "train"
    if settings.calibrate is not None:
        config, key = replace(config, valid=Path(settings.calibrate)), "valid"
    dataset = plain_dataset(
        model, config, key, settings.img_size, progress, settings.resize, **settings.reading
    )
    with make_loader(dataset, BATCH, shuffle=True, seed=settings.seed, workers=0) as loader:
        taken = list(islice(loader, -(-PICTURES // BATCH)))
    batches = [images.float() / 255 for images, _ in taken]
    arrays = [picture.contiguous().numpy() for batch in batches for picture in batch.split(1)]
    score = Judge(taken, config.names, settings)
    wanted = score(model)
    observer.say(f"calibrating on {score.pictures} pictures of {dataset.report.list_path}")
    found = int8.sensitivities(model, batches[0])
    kept = head_layers(model)
    worst = [i for i in sorted(found, key=found.get, reverse=True) if i not in kept]
    tried = []
    with int8.Ranges(arrays) as ranges:
        for _ in range(ROUNDS + 1):
            corrected = int8.corrected(model, batches, kept)
            data = ranges.int8_bytes(write(corrected), kept)
            reached = score(OnnxRuntime(data))
            tried.append((len(kept), reached))
            observer.say(f"{len(kept)} layers in float32: mAP50 {reached:.4f} on these, {wanted:.4f} before")
            if reached >= wanted - LOSS or not worst:
                break
            more = max(1, len(found) // SHARE)
            kept, worst = [*kept, *worst[:more]], worst[more:]
    return Quantized(data, tuple(sorted(kept)), score.pictures, tuple(tried))


class Judge:
    """mAP50 on batches that are at hand.

    Args:
        taken: (images, targets) of a loader.
    """

    def __init__(self, taken: list, names: list[str], settings):
        self.taken, self.names, self.settings = taken, names, settings
        self.pictures = sum(len(images) for images, _ in taken)

    def __call__(self, network: torch.nn.Module) -> float:
        s = self.settings
        return evaluation.evaluate(
            network,
            self.taken,
            iou_thres=s.iou_thres,
            conf_thres=s.conf_thres,
            nms_thres=s.nms_thres,
            names=self.names,
            coco=False,
        ).map50
