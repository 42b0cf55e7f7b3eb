"""How many augmented pictures a second the loader hands over, with 1 and 2 workers.

python benchmarks/loader.py                                       # JPEGs of 640 x 480 made on the fly
python benchmarks/loader.py --data_config data/bccd/bccd.data --json loader.json
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from terminaltables import AsciiTable

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from darkslim import commands
from darkslim.data.augment import Augment
from darkslim.data.datafile import read_data
from darkslim.data.dataset import ListDataset
from darkslim.data.loader import make_loader


def parser() -> argparse.ArgumentParser:
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--data_config", metavar="FILE", help="a .data file; its training list is read")
    p.add_argument("--images", type=commands.count(8), default=256, help="pictures an epoch")
    p.add_argument("--batch_size", type=commands.count(1), default=8, help="pictures a batch")
    p.add_argument("--img_size", type=commands.count(32, 4096), default=416, help="side of the network input")
    p.add_argument(
        "--workers",
        type=commands.count(0, 64),
        nargs="+",
        default=[0, 1, 2],
        help="numbers of workers to measure",
    )
    p.add_argument(
        "--epochs",
        type=commands.count(1),
        default=3,
        help="epochs to measure; the fastest counts, after one to warm up",
    )
    return p


def synthetic(folder: Path, count: int, seed: int) -> Path:
    """A list of `count` JPEGs of 640 x 480 with the detail of photographs (blurred noise), each with three
    boxes.
    """
    rng = np.random.default_rng(seed)
    for name in ("images", "labels"):
        (folder / name).mkdir()
    paths = []
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8)).resize(
            (640, 480), Image.Resampling.BICUBIC
        )
        grain = rng.normal(0, 6, (480, 640, 1))
        path = folder / "images" / f"{i}.jpg"
        Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)).save(path, quality=90)
        boxes = rng.uniform(0.2, 0.8, (3, 2))
        (folder / "labels" / f"{i}.txt").write_text("".join(f"0 {x:.4f} {y:.4f} 0.2 0.3\n" for x, y in boxes))
        paths.append(f"{path}\n")
    (folder / "list.txt").write_text("".join(paths))
    return folder / "list.txt"


def rate(dataset: ListDataset, args, workers: int) -> float:
    """Pictures a second."""
    loader = make_loader(dataset, args.batch_size, shuffle=True, workers=workers, seed=args.seed)
    best = 0.0
    for epoch in range(args.epochs + 1):
        loader.set_epoch(epoch)
        start, count = time.perf_counter(), 0
        for images, _ in loader:
            count += len(images)
        if epoch:
            best = max(best, count / (time.perf_counter() - start))
    return best


def core(dataset: ListDataset, count: int) -> float:
    """Milliseconds of processor time for one augmented picture, decoding included."""
    count = min(count, len(dataset))
    start = time.process_time()
    for i in range(count):
        dataset[(0, i)]
    return (time.process_time() - start) / count * 1000


def main(args: argparse.Namespace) -> dict:
    import torch

    torch.set_num_threads(1)
    side = (args.img_size, args.img_size)
    with tempfile.TemporaryDirectory() as temporary:
        if args.data_config:
            config = read_data(args.data_config)
            listing, classes = config.list_path("train"), config.classes
        else:
            listing, classes = synthetic(Path(temporary), args.images, args.seed), 1
        start = time.perf_counter()
        dataset = ListDataset(listing, classes, side, Augment(), seed=args.seed, cache=False)
        checked = time.perf_counter() - start
        core(dataset, 20)
        result = {
            "data": str(args.data_config or "synthetic 640 x 480"),
            "img_size": args.img_size,
            "batch_size": args.batch_size,
            "images": len(dataset),
            "check_seconds": checked,
            "cpu_ms_per_image": core(dataset, args.images),
            "images_per_second": {str(n): rate(dataset, args, n) for n in args.workers},
        }
    print(
        AsciiTable(
            [["workers", "images/s"], *([n, f"{r:.1f}"] for n, r in result["images_per_second"].items())]
        ).table
    )
    print(
        f"{result['cpu_ms_per_image']:.2f} ms of processor time an augmented picture; check of "
        f"{len(dataset)} pictures: {checked:.2f} s"
    )
    return result


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
