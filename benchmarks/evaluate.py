"""How much quicker vectorised NMS, matching and AP are than a loop over boxes, on the same made-up network
outputs.

    python benchmarks/evaluate.py --json docs/results/evaluate.json

500 images with 1000 candidates each: clusters round a few objects, and clutter. The loop is the usual one,
box by box as in the reference's utilities, but with numpy rows instead of torch calls, which are several
times slower at this size. Both are run in turn, and must agree bit for bit: boxes, true positives, AP. Then
one picture of which every box is a candidate, as of an untrained yolov3 at 416: 10,647 of them.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from darkslim import commands
from darkslim.base.boxes import xywh_to_xyxy
from darkslim.base.errors import ProofError
from darkslim.evaluation import class_scores, detections, match
from darkslim.network.darknet import Darknet
from darkslim.report import machine

CFG = Path(__file__).resolve().parent.parent / "config/yolov3-hand.cfg"
SIZE = 416.0
CLUTTER = 0.4  # the share of candidates that belong to no object
CONF, NMS, IOU = 0.01, 0.5, 0.5


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--images", type=commands.count(1), default=500, help="number of images")
    p.add_argument("--candidates", type=commands.count(1), default=1000, help="candidates an image")
    p.add_argument("--classes", type=commands.count(1), default=3, help="number of classes")
    p.add_argument(
        "--repeats", type=commands.count(1), default=3, help="times that each is run; the median counts"
    )
    p.add_argument("--threads", type=commands.count(1), default=2, help="torch threads")
    return p


def made_up(rng: np.random.Generator, candidates: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """One image: output (N, 5 + classes) as a network gives it, every objectness above the threshold; truths
    (m, 5).
    """
    m, near = int(rng.integers(1, 12)), int(candidates * (1 - CLUTTER))
    centre, size, label = (
        rng.uniform(40, SIZE - 40, (m, 2)),
        rng.uniform(20, 160, (m, 2)),
        rng.integers(0, classes, m),
    )
    which = rng.integers(0, m, near)
    xywh = np.concatenate(
        (
            np.concatenate(
                (
                    centre[which] + rng.normal(0, 0.12, (near, 2)) * size[which],
                    size[which] * np.exp(rng.normal(0, 0.15, (near, 2))),
                ),
                1,
            ),
            np.concatenate(
                (
                    rng.uniform(0, SIZE, (candidates - near, 2)),
                    np.exp(rng.uniform(np.log(10), np.log(200), (candidates - near, 2))),
                ),
                1,
            ),
        )
    )
    objectness = np.concatenate((rng.uniform(CONF, 1, near), rng.uniform(CONF, 0.3, candidates - near)))
    probability = rng.uniform(0, 0.6, (candidates, classes))
    probability[np.arange(near), label[which]] += 0.4
    truths = np.concatenate((xywh_to_xyxy(np.concatenate((centre, size), 1)), label[:, None]), 1)
    pred = np.concatenate((xywh, objectness[:, None], probability), 1)
    return pred.astype(np.float32), truths.astype(np.float32)


def ours(pred: torch.Tensor, truths: list[np.ndarray]):
    found = []
    for start in range(0, len(pred), 16):
        found += detections(pred[start : start + 16], CONF, NMS)
    right = [match(f, t, IOU) for f, t in zip(found, truths, strict=True)]
    rows = torch.cat(found).numpy()
    scores = class_scores(np.concatenate(right), rows[:, 4], rows[:, 5], np.concatenate(truths)[:, 4])
    return [f.numpy() for f in found], right, [s.ap for s in scores]


def one_against(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of one box (4,) with others (M, 4)."""
    w = np.maximum(np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0]), 0)
    h = np.maximum(np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1]), 0)
    inter = w * h
    area = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    return inter / ((box[2] - box[0]) * (box[3] - box[1]) + area - inter + 1e-16)


def loop_detections(pred: np.ndarray) -> np.ndarray:
    pred = pred[pred[:, 4] >= CONF]
    label = pred[:, 5:].argmax(1)
    rows = np.concatenate(
        (
            xywh_to_xyxy(pred[:, :4]),
            pred[:, 4:5] * pred[np.arange(len(pred)), 5 + label][:, None],
            label[:, None].astype(np.float32),
        ),
        1,
    )
    rows = rows[np.argsort(-rows[:, 4], kind="stable")]
    kept = []
    while len(rows):
        kept.append(rows[0])
        rest = rows[1:]
        rows = rest[~((one_against(rows[0, :4], rest[:, :4]) > NMS) & (rest[:, 5] == rows[0, 5]))]
    return np.stack(kept) if kept else np.zeros((0, 6), np.float32)


def loop_match(found: np.ndarray, truths: np.ndarray) -> np.ndarray:
    right, taken = np.zeros(len(found), bool), set()
    for i, row in enumerate(found):
        same = np.flatnonzero(truths[:, 4] == row[5])
        if not len(same):
            continue
        overlap = one_against(row[:4].astype(np.float64), truths[same, :4].astype(np.float64))
        best = overlap.argmax()
        if overlap[best] >= IOU and same[best] not in taken:
            right[i] = True
            taken.add(same[best])
    return right


def loop_ap(found: list[np.ndarray], right: list[np.ndarray], truths: list[np.ndarray]) -> list[float]:
    result = []
    for label in sorted({int(c) for t in truths for c in t[:, 4]}):
        total = sum(int((t[:, 4] == label).sum()) for t in truths)
        ranked = [
            (-row[4], flag)
            for f, r in zip(found, right, strict=True)
            for row, flag in zip(f, r, strict=True)
            if row[5] == label
        ]
        recall, precision, hits = [0.0], [0.0], 0
        for n, (_, flag) in enumerate(sorted(ranked, key=lambda pair: pair[0]), 1):
            hits += int(flag)
            recall.append(hits / total)
            precision.append(hits / n)
        recall.append(1.0)
        precision.append(0.0)
        for i in range(len(precision) - 1, 0, -1):
            precision[i - 1] = max(precision[i - 1], precision[i])
        areas = [
            (recall[i] - recall[i - 1]) * precision[i]
            for i in range(1, len(recall))
            if recall[i] != recall[i - 1]
        ]
        result.append(float(np.sum(areas)))
    return result


def loop(pred: np.ndarray, truths: list[np.ndarray]):
    found = [loop_detections(p) for p in pred]
    right = [loop_match(f, t) for f, t in zip(found, truths, strict=True)]
    return found, right, loop_ap(found, right, truths)


def equal(a, b) -> bool:
    """Boxes, true positives and AP, bit for bit."""
    return all(
        len(x) == len(y) and all(np.array_equal(i, j) for i, j in zip(x, y, strict=True))
        for x, y in zip(a, b, strict=True)
    )


def untrained(cfg: Path, repeats: int) -> dict:
    """All boxes of a network with random weights as candidates: decided at once, and by the loop."""
    with torch.inference_mode():
        pred = Darknet(cfg).eval()(torch.rand(1, 3, int(SIZE), int(SIZE)))
    detections(pred, CONF, NMS)  # warm
    fast, slow = [], []
    for _ in range(repeats):
        seconds, mine = timed(detections, pred, CONF, NMS)
        fast.append(seconds)
        seconds, theirs = timed(loop_detections, pred[0].numpy())
        slow.append(seconds)
        if not np.array_equal(mine[0].numpy(), theirs):
            raise ProofError("benchmarks/evaluate.py", "the vectorised boxes differ from the loop's")
    ours, loops = statistics.median(fast), statistics.median(slow)
    print(
        f"{pred.shape[1]} candidates in one picture, {len(mine[0])} kept: {ours * 1e3:.1f} ms, {loops:.2f} s"
    )
    return {
        "network": cfg.name,
        "candidates": pred.shape[1],
        "kept": len(mine[0]),
        "seconds_ours": ours,
        "seconds_loop": loops,
        "ratio": round(loops / ours, 1),
    }


def timed(function, *args):
    start = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - start, result


def main(args) -> dict:
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(args.seed)
    images = [made_up(rng, args.candidates, args.classes) for _ in range(args.images)]
    pred, truths = np.stack([p for p, _ in images]), [t for _, t in images]
    tensor = torch.from_numpy(pred)
    ours(tensor[:16], truths[:16])  # warm
    times, kept, ap = {"ours": [], "loop": []}, 0, []
    for _ in commands.progress(range(args.repeats), desc="runs"):
        seconds, mine = timed(ours, tensor, truths)
        times["ours"].append(seconds)
        seconds, theirs = timed(loop, pred, truths)
        times["loop"].append(seconds)
        if not equal(mine, theirs):
            raise ProofError("benchmarks/evaluate.py", "the vectorised results differ from the loop's")
        kept, ap = sum(map(len, mine[0])), mine[2]
    fast, slow = statistics.median(times["ours"]), statistics.median(times["loop"])
    result = {
        "images": args.images,
        "candidates": args.candidates,
        "classes": args.classes,
        "kept": kept,
        "map50": float(np.mean(ap)),
        "equal": True,
        "seconds_ours": round(fast, 3),
        "seconds_loop": round(slow, 3),
        "ratio": round(slow / fast, 1),
        "repeats": args.repeats,
        "seed": args.seed,
        "machine": machine.describe(),
    }
    print(
        f"{args.images} images x {args.candidates} candidates, {kept} kept, mAP {result['map50']:.4f}, "
        "equal results"
    )
    print(f"loop {slow:.2f} s, vectorised {fast:.2f} s: {slow / fast:.1f} times faster")
    torch.manual_seed(args.seed)
    result["untrained"] = untrained(CFG, args.repeats)
    return result


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
