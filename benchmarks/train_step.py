"""Our training step against plain float32 NCHW eager of the same network and loss, and the loader against the
step.

    python benchmarks/train_step.py [--data_config FILE] [--json docs/results/train_step.json]

Both steps do the same: forward, loss, backward, SGD, on the same batch. Each has a process of its own, since
one of them changes how memory is kept; they take turns, one working while the other waits, so that whatever
else the machine does falls on both. The ratio is that of the medians.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from darkslim import commands
from darkslim.base import devices
from darkslim.data import datafile
from darkslim.data.augment import Augment
from darkslim.data.dataset import ListDataset
from darkslim.data.loader import make_loader
from darkslim.network import schema
from darkslim.network.darknet import Darknet
from darkslim.report import machine
from darkslim.training.loop import Run, train_step
from darkslim.training.loss import DetectionLoss
from darkslim.training.memory import freed_memory_kept
from darkslim.training.objective import Detection, Objective
from darkslim.training.optim import Schedule, make_optimizer
from darkslim.training.precision import Precision


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--model_def", default="config/yolov3-tiny-hand.cfg", help="the network")
    p.add_argument(
        "--data_config", default=None, help="real images for the loader; none: synthetic JPEGs of 640x480"
    )
    p.add_argument("--batch_size", type=commands.count(1), default=8, help="images a step")
    p.add_argument("--img_size", type=commands.count(32), default=416, help="side of the input")
    p.add_argument("--rounds", type=commands.count(1), default=15, help="steps of each kind that are timed")
    p.add_argument("--n_cpu", type=commands.count(0), default=2, help="processes that load images")
    return p


def timed(device: torch.device, step) -> float:
    """Seconds of one call, the device's queue emptied before and after."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def batch(count: int, size: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images and twelve boxes on each."""
    boxes = 12 * count
    targets = torch.cat(
        [
            torch.arange(count).repeat_interleave(12)[:, None].float(),
            torch.randint(0, classes, (boxes, 1)).float(),
            torch.rand(boxes, 2) * 0.8 + 0.1,
            torch.rand(boxes, 2) * 0.3 + 0.02,
        ],
        1,
    )
    return torch.rand(count, 3, size, size), targets


def synthetic(folder: Path, count: int = 128) -> Path:
    """A list of JPEG photographs' size and texture, with three boxes each."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    lines = []
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(
            (640, 480), Image.Resampling.BICUBIC
        )
        noisy = np.asarray(coarse, np.int16) + rng.integers(-12, 13, (480, 640, 3))
        path = folder / "images" / f"{i}.jpg"
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        (folder / "labels" / f"{i}.txt").write_text(
            "0 0.3 0.4 0.2 0.2\n0 0.6 0.5 0.3 0.4\n0 0.5 0.5 0.1 0.1\n"
        )
        lines.append(str(path))
    (folder / "list.txt").write_text("\n".join(lines) + "\n")
    return folder / "list.txt"


def loader_speed(args, list_path, classes: int, net, head) -> float:
    """Images a second that the loader alone delivers with augmentation, first batches left out."""
    augment = Augment.from_options(net, head)
    dataset = ListDataset(list_path, classes, (args.img_size, args.img_size), augment=augment)
    loader = make_loader(
        dataset, args.batch_size, shuffle=True, workers=args.n_cpu, seed=args.seed, drop_last=True
    )
    images, start = 0, None
    for epoch in range(3):
        loader.set_epoch(epoch)
        for number, (some, _) in enumerate(loader):
            if start is not None:
                images += len(some)
            elif number >= 3:
                start = time.perf_counter()
    return images / (time.perf_counter() - start)


def our_step(args, device):
    """The step that train.py takes, and the loss alone."""
    freed_memory_kept(device.type == "cpu").__enter__()  # for the rest of this process
    model = Darknet(args.model_def).train().to(device, memory_format=torch.channels_last)
    loss, net = DetectionLoss(model.heads), schema.values(model.cfg.net)
    images, targets = batch(args.batch_size, args.img_size, model.heads[0].classes)
    run = Run(
        model,
        Objective(Detection(model.heads)),
        make_optimizer(model, 1e-4, net["momentum"], net["decay"]),
        Schedule(1e-4, 10_000),
        Precision("auto", device),
    )
    with torch.no_grad():
        maps = model(images.to(device, memory_format=torch.channels_last))
    raw, there = [r.requires_grad_() for r in maps], targets.to(device)
    return {
        "ours": lambda: train_step(run, images, targets),
        "loss": lambda: loss(raw, there, (args.img_size, args.img_size))[0].backward(),
    }


def plain_step(args, device):
    """What anyone would write first."""
    model = Darknet(args.model_def).train().to(device)
    loss, net = DetectionLoss(model.heads), schema.values(model.cfg.net)
    images, targets = (t.to(device) for t in batch(args.batch_size, args.img_size, model.heads[0].classes))
    optimizer = torch.optim.SGD(
        model.parameters(), lr=1e-4, momentum=net["momentum"], weight_decay=net["decay"]
    )

    def step():
        optimizer.zero_grad()
        total, _ = loss(model(images), targets, tuple(images.shape[2:]))
        total.backward()
        optimizer.step()

    return {"plain": step}


def serve(make, args, device, pipe) -> None:
    """A process: takes the step that it is asked for and answers with its seconds, until it is asked for
    None.
    """
    devices.seed_everything(args.seed)
    steps = make(args, device)
    pipe.send("ready")
    while (name := pipe.recv()) is not None:
        pipe.send(timed(device, steps[name]))


def race(args, device) -> dict[str, list[float]]:
    """Seconds of every round: ours, plain, and our loss alone."""
    context, ends, workers = multiprocessing.get_context("spawn"), [], []
    for make in (our_step, plain_step):
        mine, theirs = context.Pipe()
        workers.append(context.Process(target=serve, args=(make, args, device, theirs), daemon=True))
        workers[-1].start()
        ends.append(mine)
    for end in ends:
        end.recv()
    times: dict[str, list[float]] = {"ours": [], "plain": [], "loss": []}
    for number in commands.progress(range(args.rounds + 2), desc="steps"):
        for name, end in (("ours", ends[0]), ("plain", ends[1]), ("loss", ends[0])):
            end.send(name)
            seconds = end.recv()
            if number >= 2:
                times[name].append(seconds)
    for end, worker in zip(ends, workers, strict=True):
        end.send(None)
        worker.join()
    return times


def main(args) -> dict:
    device = devices.device(args.device)
    times = race(args, device)
    median = {name: statistics.median(values) for name, values in times.items()}
    model = Darknet(args.model_def)
    net, head = schema.values(model.cfg.net), model.heads[0].opts
    with tempfile.TemporaryDirectory() as folder:
        if args.data_config:
            data = datafile.read_data(args.data_config)
            list_path, classes = data.list_path("train"), data.classes
        else:
            list_path, classes = synthetic(Path(folder)), 1
        loaded = loader_speed(args, list_path, classes, net, head)
    consumed, kind = args.batch_size / median["ours"], Precision("auto", device).kind
    result = {
        "machine": machine.describe(),
        "model_def": args.model_def,
        "batch_size": args.batch_size,
        "img_size": args.img_size,
        "precision": kind,
        "rounds": args.rounds,
        "ours_seconds": median["ours"],
        "plain_seconds": median["plain"],
        "speedup": median["plain"] / median["ours"],
        "speedup_of_fastest": min(times["plain"]) / min(times["ours"]),
        "loss_seconds": median["loss"],
        "loss_share": median["loss"] / median["ours"],
        "loader_workers": args.n_cpu,
        "loader_images_per_second": loaded,
        "step_images_per_second": consumed,
        "loader_over_step": loaded / consumed,
        "ours_all": times["ours"],
        "plain_all": times["plain"],
    }
    print(
        f"step: ours {median['ours']:.3f} s ({kind}, channels_last), plain {median['plain']:.3f} s: "
        f"{result['speedup']:.2f} times as "
        f"fast (fastest of each: {result['speedup_of_fastest']:.2f}); the loss is "
        f"{result['loss_share']:.1%} of the step"
    )
    print(
        f"loader: {loaded:.1f} images/s with {args.n_cpu} workers, the step takes {consumed:.1f}: "
        f"{result['loader_over_step']:.2f} times"
    )
    return result


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
