"""Cuts the channels that sparsity training has made superfluous, proves the cut, and writes a smaller cfg and weights.

    python test_prune.py                                            # after sparsity training
    python test_prune.py --percent 0.7 --no_eval                    # needs no data set
    python train.py --model_def config/prune_yolov3-hand.cfg -pre checkpoints/prune_yolov3_ckpt.pth   # finetune
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from darkslim import command, datafile, evaluation, files, profile, schema, weights
from darkslim.channels import STRATEGIES
from darkslim.darknet import Darknet
from darkslim.data.check import check_dataset
from darkslim.data.dataset import ListDataset
from darkslim.data.loader import make_loader
from darkslim.errors import FileError, RequestError
from darkslim.graph import input_size
from darkslim.pruning import importance, surgery, verify
from darkslim.pruning.plan import FOLDS, PrunePlan, plan
from darkslim.report import figures, tables


def parser() -> argparse.ArgumentParser:
    p = command.parser("Cut a trained detector by its gammas, prove that the small network equals the masked one, and write it.")
    p.add_argument("--model_def", metavar="CFG", default="config/yolov3-hand.cfg", help="the network")
    p.add_argument("--data_config", metavar="FILE", default="config/oxfordhand.data", help="classes, lists and names")
    p.add_argument("--model", metavar="CKPT", default="checkpoints/yolov3_ckpt.pth", help="its weights: a .pth or .weights file")
    p.add_argument("--percent", type=command.fraction(), default=0.85, help="share of the prunable channels to cut")
    p.add_argument("--strategy", choices=STRATEGIES, default="normal", help="normal: cut what a single convolution makes")
    p.add_argument("--layer_keep", type=command.fraction(), default=0.01, help="share of its channels that every layer keeps, at least one")
    p.add_argument("--round_to", type=command.count(1, 4096), default=1, help="make widths multiples of this")
    p.add_argument("--fold", choices=FOLDS, default="exact",
                   help="what becomes of the constants that cut channels leave: exact at borders too, exact in the interior, dropped")
    p.add_argument("--no_eval", action="store_true", help="do not measure mAP; needs no data set")
    p.add_argument("--cfg_out", metavar="FILE", default=None, help="the new cfg; none: config/prune_NAME.cfg after --model_def")
    p.add_argument("--model_out", metavar="FILE", default="checkpoints/prune_yolov3_ckpt.pth",
                   help="the new weights; a .weights file and the picture of the channels (.png) go beside it")
    p.add_argument("--img_size", type=command.count(32, 8192), default=None,
                   help="side of the square input for mAP and latency; none: the cfg's")
    p.add_argument("--batch_size", type=command.count(1), default=16, help="images at once when measuring mAP")
    p.add_argument("--n_cpu", type=command.count(0, 256), default=min(2, os.cpu_count() or 1), help="processes that load images")
    p.add_argument("--iou_thres", type=command.fraction(), default=0.5, help="overlap from which a detection is right")
    p.add_argument("--conf_thres", type=command.fraction(), default=0.01, help="least objectness of a detection")
    p.add_argument("--nms_thres", type=command.fraction(), default=0.5, help="overlap from which the weaker of two boxes goes")
    return p


@dataclass(frozen=True)
class Outputs:
    """Where the results go."""

    cfg: Path
    checkpoint: Path
    weights: Path
    picture: Path


def main(args: argparse.Namespace) -> dict:
    began = time.perf_counter()
    out = outputs(args)
    device = command.device(args.device)
    command.seed_everything(args.seed)
    model = load(args)
    loader, names = (None, None) if args.no_eval else validation(args, model)
    decision = plan(model, args.percent, args.strategy, args.layer_keep, args.round_to, args.fold)
    report_gammas(decision)
    compact = surgery.apply(model, decision, args.fold)
    proof = verify.prove(model, decision, compact, args.fold, seed=args.seed)
    before, after = measure(args, [model, compact], device, loader, names)
    rows = [(layer, model.graph.nodes[layer].shape[0], compact.graph.nodes[layer].shape[0]) for layer in decision.keep]
    bars = figures.channel_bars(rows, f"{Path(args.model_def).name}: {before['params']:,} to {after['params']:,} parameters")
    verify.save_proven(compact, out.cfg, out.checkpoint, out.weights, more=[files.Save(out.picture, bars)], extra={
        "pruned_from": str(args.model_def), "percent": args.percent, "strategy": args.strategy, "fold": args.fold})
    if loader is not None:
        loader.dataset.report.remember()  # only now: a request that is refused changes nothing on disk
    carriers = {layer: after_ - int(decision.keep[layer].sum()) for layer, _, after_ in rows}
    show(args, decision, proof, rows, carriers, before, after, out)
    return {
        **{f"{key}_{when}": side[key] for key in ("params", "macs", "map50", "latency", "bytes")
           for when, side in (("before", before), ("after", after))},
        "max_abs_diff": proof.max_abs_diff, "max_rel_diff": proof.relative, "proof_error": proof.error, "fold": args.fold,
        "protected": [{"layer": layer, "reason": reason} for layer, reason in decision.protected],
        "layers": [{"layer": layer, "before": a, "after": b, "carriers": carriers[layer]} for layer, a, b in rows],
        "strategy": args.strategy, "percent": args.percent, "prunable": decision.prunable, "requested": decision.requested,
        "cut": decision.cut, "threshold": decision.threshold, "near_zero": importance.sparsity(decision.gammas).near_zero,
        "cfg": out.cfg, "checkpoint": out.checkpoint, "weights": out.weights, "picture": out.picture,
        "seconds": time.perf_counter() - began,
    }


# ---------------------------------------------------------------------------------------------------------- before the cut

def outputs(args) -> Outputs:
    """The files to write.

    Raises:
        RequestError: one of them is a file that is read, or another one of them.
        FileError: one of them cannot be written.
    """
    model_out = Path(args.model_out)
    if model_out.suffix not in (".pth", ".weights"):
        raise RequestError("--model_out", str(model_out), "a name that ends in .pth")
    cfg = Path(args.cfg_out) if args.cfg_out else Path("config") / f"prune_{Path(args.model_def).stem}.cfg"
    out = Outputs(cfg, *(model_out.with_suffix(end) for end in (".pth", ".weights", ".png")))
    reads = {"--model_def": args.model_def, "--model": args.model, "--data_config": args.data_config}
    writes = {"--cfg_out": out.cfg, "--model_out": out.checkpoint, "--model_out (.weights)": out.weights,
              "--model_out (.png)": out.picture, "--json": args.json}
    command.check_outputs(writes, reads)
    return out


def load(args) -> Darknet:
    """The network to be cut, in eval mode on the CPU."""
    model = Darknet(args.model_def)
    input_size(model.graph, args.img_size)  # refused now rather than after the work
    if not os.path.lexists(args.model):
        raise FileError(args.model, "no such checkpoint", remedy="train one (python train.py -sr), or name it with --model")
    weights.load_weights(model, args.model)
    return model.eval()


def validation(args, model: Darknet):
    """Batches of the validation list, and the class names. Everything is checked before the work starts."""
    data = datafile.read_data(args.data_config)
    for head in model.heads:
        if head.classes != data.classes:
            raise RequestError("--data_config", f"{data.path} has classes={data.classes}",
                               f"{head.classes} as {model.cfg.layers[head.index].place} has", "take the .data file that belongs to it")
    report = check_dataset(data.list_path("valid"), data.classes, need_boxes=True, save=False, progress=command.progress)
    net = schema.values(model.cfg.net)
    dataset = ListDataset(report.list_path, data.classes, input_size(model.graph, args.img_size), letterbox=bool(net["letter_box"]),
                          channels=model.cfg.channels, report=report)
    return make_loader(dataset, args.batch_size, workers=args.n_cpu, seed=args.seed), data.names


def report_gammas(decision: PrunePlan) -> None:
    """Shows how the gammas lie; warns where a cut goes deeper than sparsity training has prepared."""
    found = importance.sparsity(decision.gammas)
    print(f"|gamma| of the {decision.prunable} prunable channels: "
          + ", ".join(f"{mark}% {value:.4f}" for mark, value in found.quantiles.items()))
    print(tables.histogram(found.histogram))
    if decision.cut < decision.requested:
        warnings.warn(f"{decision.requested} channels were to be cut, {decision.cut} can be: the floor of --layer_keep "
                      f"{decision.layer_keep:g} and --round_to {decision.round_to} keep the rest", stacklevel=2)
    if decision.percent <= found.near_zero:
        return
    safe = int(100 * found.near_zero) / 100
    share = f"{100 * found.near_zero:.0f}% of the gammas are near zero (below {importance.NEAR_ZERO:g} of the 99th percentile)"
    if found.trained:
        warnings.warn(f"{share}; --percent {decision.percent:g} goes deeper, so expect mAP to fall before finetuning (safe now: {safe:g})",
                      stacklevel=2)
        return
    warnings.warn(f"this network looks never trained for sparsity: only {share}, the median is {found.quantiles[50]:.3g} and the "
                  f"largest {found.quantiles[100]:.3g}; --percent {safe:g} is safe now, {decision.percent:g} cuts channels that matter: "
                  "run train.py with -sr first, or expect to finetune from a low mAP", stacklevel=2)


# ----------------------------------------------------------------------------------------------------------- after the cut

def measure(args, models: list[Darknet], device, loader, names) -> list[dict]:
    """Parameters, MACs, bytes, latency and mAP of each network."""
    size = input_size(models[0].graph, args.img_size)
    sides = []
    for model in models:
        model.to(device)
        counted = profile.count(model.graph)
        result = loader and evaluation.evaluate(model, loader, iou_thres=args.iou_thres, conf_thres=args.conf_thres, names=names,
                                                nms_thres=args.nms_thres, progress=command.progress, coco=False)
        sides.append({"params": counted.params, "macs": counted.macs, "bytes": weights.model_bytes(model),
                      "map50": result.map50 if result else None})
    for side, seconds in zip(sides, profile.paired_latency(models, size), strict=True):
        side["latency"] = seconds
    for model in models:
        model.cpu()
    return sides


def show(args, decision: PrunePlan, proof, rows, carriers, before, after, out: Outputs) -> None:
    """Prints what was done, for a person."""
    print(tables.layers(rows, carriers))
    if decision.protected:
        print(f"not cut by strategy {args.strategy}:")
        print(tables.protected(decision.protected))
    print(f"{decision.cut} of {decision.prunable} prunable channels cut (|gamma| up to {decision.threshold:.4g}); "
          f"{sum(carriers.values())} of them stay as constant carriers")
    print(f"compact against masked over {proof.images} random images of {proof.size[1]}x{proof.size[0]}: "
          f"{proof.max_abs_diff:.2e} at most, {proof.relative:.1e} of the largest value (folding: {args.fold})")
    print("written, reloaded from the disk, and equal bit by bit")
    print(tables.comparison(before, after))
    for name, path in (("cfg", out.cfg), ("checkpoint", out.checkpoint), ("weights", out.weights), ("channels", out.picture)):
        print(f"{name + ':':12}{path}")
    data = "" if args.data_config == "config/oxfordhand.data" else f" --data_config {args.data_config}"
    print(f"finetune:   python train.py --model_def {out.cfg} -pre {out.checkpoint}{data}")


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
