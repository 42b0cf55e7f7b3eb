"""Scores a detector on the validation list: AP as the reference computes it, and COCO's.

    python test.py                                                                  # what train.py left
    python test.py --model_def config/prune_yolov3-hand.cfg --weights_path checkpoints/prune_yolov3_ckpt.pth
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch
from terminaltables import AsciiTable

from darkslim import command, datafile, evaluation, files, weights
from darkslim.boxes import xywh_to_xyxy
from darkslim.data.dataset import to_input
from darkslim.data.loader import make_loader
from darkslim.data.plain import plain_dataset
from darkslim.report import examples
from darkslim.report.pr_curve import pr_curve

SHOWN = 0.3  # the least score of a detection that `--examples` draws


def parser() -> argparse.ArgumentParser:
    p = command.parser("Score a detector on the validation list of a data set.")
    p.add_argument("--model_def", metavar="CFG", default="config/yolov3-hand.cfg", help="the network")
    p.add_argument("--data_config", metavar="FILE", default="config/oxfordhand.data", help="classes, list and names")
    p.add_argument("--weights_path", metavar="FILE", default="checkpoints/yolov3_ckpt.pth", help="its weights: a .pth or .weights file")
    p.add_argument("--iou_thres", type=command.fraction(), default=0.5, help="overlap from which a detection is right")
    p.add_argument("--conf_thres", type=command.fraction(), default=0.01, help="least objectness of a detection")
    p.add_argument("--nms_thres", type=command.fraction(), default=0.5, help="overlap from which the weaker of two boxes goes")
    p.add_argument("--plus_one", action="store_true", help="overlaps with a pixel more on each side, as the reference counts")
    p.add_argument("--multi_label", action="store_true", help="every class of a box above --conf_thres, as Darknet's `detector map`")
    p.add_argument("--img_size", type=command.count(32, 8192), default=None, help="side of the square input; none: the cfg's size")
    p.add_argument("--batch_size", type=command.count(1), default=16, help="images at once")
    p.add_argument("--n_cpu", type=command.count(0, 256), default=min(2, os.cpu_count() or 1), help="processes that load images")
    p.add_argument("--amp", action="store_true", help="forward pass in bfloat16 (quicker, scores differ in the third digit)")
    p.add_argument("--figure", metavar="FILE", default=None, help="draw precision over recall into this PNG")
    p.add_argument("--examples", metavar="FILE", default=None, help="draw the first pictures with truths and detections into this PNG")
    return p


def main(args: argparse.Namespace) -> dict:
    device = command.device(args.device)
    check_outputs(args)
    command.seed_everything(args.seed)
    data = datafile.read_data(args.data_config)
    model = weights.load_model(args.model_def, args.weights_path)
    dataset = plain_dataset(model, data, "valid", args.img_size, command.progress)
    size, counts = dataset.img_size, dataset.report.counts
    print(f"{counts['images']} images, {counts['boxes']} boxes in {dataset.report.list_path}, at {size[1]}x{size[0]}")
    loader = make_loader(dataset, args.batch_size, workers=args.n_cpu, seed=args.seed)
    dataset.report.remember()
    model = model.to(device, memory_format=torch.channels_last)
    began = time.perf_counter()
    result = evaluation.evaluate(model, loader, iou_thres=args.iou_thres, conf_thres=args.conf_thres, nms_thres=args.nms_thres,
                                 plus_one=args.plus_one, multi_label=args.multi_label, device=device, amp=args.amp,
                                 progress=command.progress, names=data.names)
    seconds = time.perf_counter() - began
    print(table(result, args.iou_thres))
    print(f"{seconds:.1f} s, {result.images / seconds:.1f} images/s")
    if args.figure:
        title = f"{Path(args.model_def).name}: mAP {result.map50:.4f} at IoU {args.iou_thres:g}"
        files.save(args.figure, pr_curve(result.scores, data.names, title))
        print(f"curve: {args.figure}")
    if args.examples:
        files.save(args.examples, examples.sheet(look(args, model, dataset, device), data.names))
        print(f"examples: {args.examples} (truths green; detections of a score of at least {SHOWN:g})")
    return {**result.to_dict(), "seconds": seconds, "img_size": size, "model_def": args.model_def, "weights": args.weights_path,
            "iou_thres": args.iou_thres, "conf_thres": args.conf_thres, "nms_thres": args.nms_thres, "plus_one": args.plus_one,
            "multi_label": args.multi_label, "figure": args.figure}


def look(args, model, dataset, device, count: int = 12):
    """The first pictures as the network sees them, with truths and detections in its pixels."""
    for index in range(min(count, len(dataset))):
        pixels, rows = dataset.load(index)
        height, width = pixels.shape[:2]
        with torch.inference_mode():
            pred = model(to_input(torch.from_numpy(pixels).permute(2, 0, 1)[None], device))
        found = evaluation.detections(pred, SHOWN, args.nms_thres)[0]
        truths = xywh_to_xyxy(torch.from_numpy(rows[:, 1:5]) * torch.tensor([width, height, width, height]))
        yield pixels, truths.numpy(), found[found[:, 4] >= SHOWN].numpy()


def check_outputs(args) -> None:
    """Outputs must not be what is read, and must be writable.

    Raises:
        RequestError, FileError
    """
    reads = {"--model_def": args.model_def, "--data_config": args.data_config, "--weights_path": args.weights_path}
    command.check_outputs({"--figure": args.figure, "--examples": args.examples, "--json": args.json}, reads)


def table(result: evaluation.Result, iou_thres: float) -> str:
    """One row a class, and the means."""
    ap = f"AP{100 * iou_thres:.0f}"
    rows = [["class", "name", ap, "precision", "recall", "F1", "truths", "detections"]]
    rows += [[str(c["class"]), c["name"], *(f"{c[key]:.4f}" for key in ("ap50", "precision", "recall", "f1")), str(c["truths"]),
              str(c["detections"])] for c in result.per_class]
    rows.append(["", "mean", *(f"{v:.4f}" for v in (result.map50, result.precision, result.recall, result.f1)), str(result.boxes),
                 str(result.detections)])
    made = AsciiTable(rows)
    made.inner_footing_row_border = True
    made.justify_columns = {0: "right", **dict.fromkeys(range(2, 8), "right")}
    return f"{made.table}\nm{ap} {result.map50:.4f}, COCO AP .50:.95 {result.map:.4f}"


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
