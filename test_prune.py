"""Cuts the channels that sparsity training has made superfluous, proves the cut, and writes a smaller cfg and weights.

    python test_prune.py                                            # after sparsity training
    python test_prune.py --percent 0.7 --no_eval                    # needs no data set
    python test_prune.py --strategy slim --target-macs 0.4          # through shortcuts, to 40% of the MACs
    python test_prune.py --sweep                                    # which ratio? a table and a picture; writes no network
    python train.py --model_def config/prune_yolov3-hand.cfg -pre checkpoints/prune_yolov3_ckpt.pth   # finetune
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from darkslim import command, datafile, evaluation, files, latency, profile, weights
from darkslim.channels import STRATEGIES
from darkslim.darknet import Darknet
from darkslim.data.dataset import ListDataset
from darkslim.data.loader import make_loader
from darkslim.data.plain import plain_dataset
from darkslim.errors import FileError, RequestError
from darkslim.graph import Graph, input_size
from darkslim.pruning import advice, cut, importance, policy, surgery, verify
from darkslim.pruning.budget import Target
from darkslim.pruning.plan import FOLDS, PrunePlan, plan
from darkslim.pruning.recalibrate import recalibrate
from darkslim.pruning.sweep import deepest, sweep
from darkslim.report import network, tables
from darkslim.report import pruning as texts
from darkslim.report import sweep as sweeping

PERCENT = 0.85
RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
CALIBRATION = 8  # batches, for --sweep and for scores that look at gradients
FAR = 1.3  # times that layers may add up to more or less than the network takes, before they are measured again
TIMINGS, CLOSE = 3, 0.03  # how often a latency target is timed and put right at most; the share of it that is near enough
SAFE_DROP = 0.01  # mAP that the recommended point of a sweep may lose


def parser() -> argparse.ArgumentParser:
    p = command.parser("Cut a trained detector by its gammas, prove that the small network equals the masked one, and write it.")
    p.add_argument("--model_def", metavar="CFG", default="config/yolov3-hand.cfg", help="the network")
    p.add_argument("--data_config", metavar="FILE", default="config/oxfordhand.data", help="classes, lists and names")
    p.add_argument("--model", metavar="CKPT", default="checkpoints/yolov3_ckpt.pth", help="its weights: a .pth or .weights file")
    how = p.add_argument_group("how much to cut (one of these)").add_mutually_exclusive_group()
    how.add_argument("--percent", type=command.fraction(), default=None, help=f"share of the prunable channels to cut; none: {PERCENT}")
    how.add_argument("--target-params", type=command.quantity(k=1e3, M=1e6, G=1e9), metavar="R", default=None,
                     help="parameters to end with: a share of those now (0.25), or their number (2.5M)")
    how.add_argument("--target-macs", type=command.quantity(k=1e3, M=1e6, G=1e9), metavar="R", default=None,
                     help="multiply-adds of one picture to end with: a share, or their number (3G)")
    how.add_argument("--target-latency", type=command.quantity(ms=1e-3, s=1), metavar="R", default=None,
                     help="time of one picture to end with: a share, or a time (20ms); by a table measured on this machine")
    how.add_argument("--max-map-drop", type=command.fraction(), metavar="D", default=None,
                     help="cut as much as costs at most this mAP on `valid`, before finetuning")
    how.add_argument("--sweep", type=command.fraction(), nargs="*", metavar="RATIO", default=None,
                     help="try ratios (none given: 0.1 to 0.9), show mAP and sizes, and write no network")
    p.add_argument("--strategy", choices=STRATEGIES, default="normal",
                   help="normal: what a single convolution makes; the others also what shortcuts join, as one, scored by its first member "
                        "(shortcut), its best (slim), or all of them (group)")
    p.add_argument("--score", choices=policy.SCORE_NAMES, metavar="NAME", default="gamma",
                   help="how much a channel matters: " + ", ".join(importance.SCORES) + "; of several that go together the mean, or with "
                        "-max or -l2 behind the name another")
    p.add_argument("--layer_keep", type=command.fraction(), default=0.01, help="share of its channels that every layer keeps, at least one")
    p.add_argument("--round_to", type=command.count(1, 4096), default=1, help="make widths multiples of this")
    p.add_argument("--shortcuts", type=command.count(), metavar="N", default=0, help="residual blocks to remove first, the weakest ones")
    p.add_argument("--fold", choices=FOLDS, default="exact",
                   help="what becomes of the constants that cut channels leave: exact at borders too, exact in the interior, dropped")
    p.add_argument("--recalibrate", type=command.count(), metavar="N", default=None,
                   help=f"batches of `train` to re-estimate the batch norms on; none: 0, with --sweep {CALIBRATION}")
    p.add_argument("--fuse-bn", action="store_true",
                   help="write batch norms folded into convolutions: for deployment (OpenCV has another epsilon), not for finetuning")
    p.add_argument("--no_eval", action="store_true", help="do not measure mAP; needs no data set")
    p.add_argument("--cfg_out", metavar="FILE", default=None, help="the new cfg; none: config/prune_NAME.cfg after --model_def")
    p.add_argument("--model_out", metavar="FILE", default="checkpoints/prune_yolov3_ckpt.pth",
                   help="the new weights; a .weights file and the picture of the network (.png) go beside it")
    p.add_argument("--sweep_out", metavar="NAME", default=None, help="NAME.csv and NAME.png of --sweep; none: checkpoints/sweep_CFG")
    p.add_argument("--latency_table", metavar="FILE", default=None, help="where measured layer times are kept; none: the user's cache")
    p.add_argument("--img_size", type=command.count(32, 8192), default=None,
                   help="side of the square input for mAP and latency; none: the cfg's")
    p.add_argument("--batch_size", type=command.count(1), default=16, help="images at once when measuring mAP and recalibrating")
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
    data = Data(args, model, device)
    if args.sweep is not None:
        return {**try_ratios(args, model, data, out), "seconds": time.perf_counter() - began}
    made = make_cut(args, model, data)
    before, after = measure(args, [model, made.compact], data)
    title = f"{Path(args.model_def).name}: {before['params']:,} to {after['params']:,} parameters"
    picture = network.network_picture(model.graph, made.compact.graph, title, made.numbers, made.carriers(), dict(made.protected()))
    verify.save_proven(made.compact, out.cfg, out.checkpoint, out.weights, more=[files.Save(out.picture, picture)], extra={
        "pruned_from": str(args.model_def), "percent": made.decision.percent, "strategy": args.strategy, "score": args.score,
        "fold": args.fold})
    data.remember()  # only now: a request that is refused changes nothing on disk
    show(args, made, before, after, out)
    return {**report(made, before, after), "cfg": out.cfg, "checkpoint": out.checkpoint, "weights": out.weights,
            "picture": out.picture, "seconds": time.perf_counter() - began}


# ---------------------------------------------------------------------------------------------------------- before the cut

def outputs(args) -> Outputs | Path:
    """The files to write; for --sweep their name without its end.

    Raises:
        RequestError: one of them is a file that is read, or another one of them; flags that exclude each other.
        FileError: one of them cannot be written.
    """
    if args.no_eval and args.max_map_drop is not None:
        raise RequestError("--max-map-drop", "given with --no_eval", "a data set to measure mAP on", "leave one of them out")
    reads = {"--model_def": args.model_def, "--model": args.model, "--data_config": args.data_config}
    if args.sweep is not None:
        name = Path(args.sweep_out or f"checkpoints/sweep_{Path(args.model_def).stem}")
        if not name.name or name.name == "..":
            raise RequestError("--sweep_out", f"{name} is a folder", "a name to which .csv and .png are added")
        writes = {f"--sweep_out ({end})": name.with_name(name.name + end) for end in (".csv", ".png")}
        command.check_outputs({**writes, "--json": args.json}, reads)
        return name
    model_out = Path(args.model_out)
    if model_out.suffix not in (".pth", ".weights"):
        raise RequestError("--model_out", str(model_out), "a name that ends in .pth")
    cfg = Path(args.cfg_out) if args.cfg_out else Path("config") / f"prune_{Path(args.model_def).stem}.cfg"
    out = Outputs(cfg, *(model_out.with_suffix(end) for end in (".pth", ".weights", ".png")))
    writes = {"--cfg_out": out.cfg, "--model_out": out.checkpoint, "--model_out (.weights)": out.weights,
              "--model_out (.png)": out.picture, "--json": args.json,
              "--latency_table": args.latency_table if args.target_latency is not None else None}
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


class Data:
    """The pictures that a request needs, all checked before the work starts.

    Attributes:
        batches: training batches, without augmentation, for recalibration and for scores that look at gradients.
    """

    def __init__(self, args, model: Darknet, device):
        self.args, self.device, self.reports = args, device, []
        self.recalibrates = args.recalibrate
        if args.recalibrate is None:
            self.recalibrates = 0 if args.sweep is None or args.no_eval else CALIBRATION
        gradients = args.score.startswith("taylor")
        self.loader, self.batches, self.names = None, [], None
        if args.no_eval and not self.recalibrates and not gradients:
            return
        config = datafile.read_data(args.data_config)
        self.names = config.names
        if not args.no_eval:
            valid = self._list(model, config, "valid")
            self.loader = make_loader(valid, args.batch_size, workers=args.n_cpu, seed=args.seed)
        wanted = max(self.recalibrates, CALIBRATION * gradients)
        if wanted:
            train = self._list(model, config, "train")
            loader = make_loader(train, args.batch_size, shuffle=True, seed=args.seed, drop_last=len(train) > args.batch_size)
            self.batches = list(islice(loader, wanted))

    def _list(self, model: Darknet, config: datafile.DataConfig, key: str) -> ListDataset:
        dataset = plain_dataset(model, config, key, self.args.img_size, command.progress)
        self.reports.append(dataset.report)
        return dataset

    def score(self, model: Darknet) -> float | None:
        """mAP50 on `valid`; None with --no_eval."""
        if self.loader is None:
            return None
        a = self.args
        model.to(self.device)
        result = evaluation.evaluate(model, self.loader, iou_thres=a.iou_thres, conf_thres=a.conf_thres, nms_thres=a.nms_thres,
                                     names=self.names, progress=command.progress, coco=False)
        model.cpu()
        return result.map50

    def recalibrate(self, model: Darknet) -> int:
        """Re-estimates the batch norms of a network in place; how many pictures that took, 0 where nothing was asked for."""
        if not self.recalibrates:
            return 0
        model.to(self.device)
        pictures = recalibrate(model, command.progress(self.batches[: self.recalibrates], desc="recalibrating"))
        model.cpu()
        return pictures

    def remember(self) -> None:
        """Keeps what the checks found for the next command."""
        for checked in self.reports:
            checked.remember()


# ------------------------------------------------------------------------------------------------------------------ the cut

def make_cut(args, model: Darknet, data: Data) -> cut.Cut:
    """Blocks, channels, proofs, recalibration, fusing: all that is asked for, in memory."""
    removal = cut.without_blocks(model, args.shortcuts, args.seed)
    decision = decide(args, model, removal.model if removal else model, data)
    print(texts.gammas(importance.sparsity(decision.gammas), decision))
    for warning in advice.warnings_for(decision, measured=args.max_map_drop is not None):
        warnings.warn(warning, stacklevel=2)
    made = cut.make(model, decision, removal, args.fold, args.seed)
    if data.recalibrates:
        folded = data.score(made.compact)
        made = replace(made, folded_map50=folded, pictures=data.recalibrate(made.compact))
    return cut.fused(made, args.seed) if args.fuse_bn else made


def request(args, data: Data) -> dict:
    """What `plan` takes beside the amount."""
    return {"strategy": args.strategy, "score": args.score, "layer_keep": args.layer_keep, "round_to": args.round_to, "fold": args.fold,
            "context": importance.Context(args.seed, data.batches)}


def decide(args, whole: Darknet, model: Darknet, data: Data) -> PrunePlan:
    """The plan that the request asks for.

    Args:
        whole: the network as it was given: shares and losses are of it. model: the one without the removed blocks.
    """
    for kind in ("params", "macs"):
        wanted = getattr(args, f"target_{kind}")
        if wanted is not None:
            value, absolute = wanted
            target = Target(kind, value if absolute else value * sizes(whole)[kind], True)
            return plan(model, target=target, **request(args, data))
    if args.target_latency is not None:
        return quick_enough(args, whole, model, data)
    if args.max_map_drop is None:
        return plan(model, PERCENT if args.percent is None else args.percent, **request(args, data))
    return good_enough(args, whole, model, data)


def good_enough(args, whole: Darknet, model: Darknet, data: Data) -> PrunePlan:
    """The plan for --max-map-drop: the deepest cut whose measured mAP is near enough to that of the network as it was given.

    Raises:
        RequestError: blocks that were removed, or the recalibration, cost more than that without any cut.
    """
    least = data.score(whole) - args.max_map_drop
    known: dict[int, float] = {}  # channels cut -> mAP: where the floors hold, a higher ratio is the same cut

    def good(percent: float) -> bool:
        decision = plan(model, percent, **request(args, data))
        if decision.cut not in known:
            compact = surgery.apply(model, decision, args.fold)
            data.recalibrate(compact)
            known[decision.cut] = data.score(compact)
        found = known[decision.cut]
        print(f"percent {percent:.2f}: mAP50 {found:.4f}, at least {least:.4f} wanted", flush=True)
        return found >= least

    percent = deepest(good)
    if not percent and (model is not whole or data.recalibrates) and not good(0.0):
        raise RequestError("--max-map-drop", f"mAP50 is below {least:.4f} before any channel is cut", "blocks removed and batch norms "
                           "recalibrated at no more than that loss", "allow more, remove fewer blocks, or change --recalibrate")
    return plan(model, percent, **request(args, data))


def quick_enough(args, whole: Darknet, model: Darknet, data: Data) -> PrunePlan:
    """The plan for --target-latency: by a table of layer times, put right by timing the network that it leads to."""
    size, device = input_size(model.graph, args.img_size), command.device(args.device)
    plan(model, 0.0, args.strategy)  # a network that cannot be pruned is refused now rather than after measuring
    table, now = measured_table(args, model, size, device)
    value, absolute = args.target_latency
    if not absolute:
        given, start = (1.0, 1.0) if model is whole else timed([whole, model], size, device)
        value *= now * given / start
    target = Target("latency", value, True, lambda graph: table.seconds(Graph(graph.cfg, *size)))
    for attempt in range(TIMINGS + 1):
        decision = plan(model, target=target, **request(args, data))
        if attempt < TIMINGS:
            compact = surgery.apply(model, decision, args.fold)
            dense, small = timed([model, compact], size, device)
            seconds = now * small / dense  # a ratio: the machine may have changed its pace
            said = zip(("estimated", "timed", "wanted"), (decision.reached, seconds, decision.wanted), strict=True)
            print(", ".join(f"{what} {texts.amount('latency', value)}" for what, value in said), flush=True)
            if abs(seconds / decision.wanted - 1) <= CLOSE:
                break
            table.calibrate(seconds, Graph(compact.cfg, *size))
    return decision


def measured_table(args, model: Darknet, size: tuple[int, int], device) -> tuple[latency.LatencyTable, float]:
    """Times of layers here, measured unless they lie in the cache; and the seconds that the network takes, to which they are scaled."""
    graph = Graph(model.cfg, *size)
    table = latency.LatencyTable(Path(args.latency_table) if args.latency_table else None, device=device, progress=command.progress)
    for again in (False, True):
        table.measure(graph, again=again)
        (whole,), layers = timed([model], size, device), table.seconds(graph)
        if 1 / FAR < layers / whole < FAR:
            break
    else:
        warnings.warn(f"the layers add up to {layers * 1e3:.1f} ms, and the network takes {whole * 1e3:.1f} ms: is the machine busy with "
                      "something else? What is reached will be a rough guess", stacklevel=2)
    table.save()
    table.calibrate(whole, graph)
    return table, whole


# -------------------------------------------------------------------------------------------------------------- many ratios

def try_ratios(args, model: Darknet, data: Data, out: Path) -> dict:
    """mAP and sizes over the ratio, as a table, a CSV file and a picture. No network is written."""
    size, rows = input_size(model.graph, args.img_size), []
    removal = cut.without_blocks(model, args.shortcuts, args.seed)
    start = removal.model if removal else model
    base = sizes(model) | {"map50": data.score(model), "latency": timed([model], size, data.device)[0]}
    safe, ratios = 0.0, args.sweep or RATIOS
    for decision, compact in command.progress(sweep(start, ratios, **request(args, data)), total=len(ratios), desc="sweeping"):
        safe = importance.sparsity(decision.gammas).near_zero
        folded = data.score(compact) if data.recalibrates else None
        data.recalibrate(compact)
        dense, small = timed([model, compact], size, data.device)
        rows.append({"percent": decision.percent, "map50": data.score(compact), "map50_folded": folded, **sizes(compact),
                     "latency": base["latency"] * small / dense, "cut": decision.cut})  # a ratio: the machine may have changed its pace
    chosen = sweeping.recommend(rows, base["map50"], SAFE_DROP, safe)
    print(sweeping.sweep_table(rows, chosen))
    csv, png = (out.with_name(out.name + end) for end in (".csv", ".png"))
    title = f"{Path(args.model_def).name}, strategy {args.strategy}, score {args.score}"
    files.save_all([files.Save(csv, sweeping.sweep_csv(rows, chosen)),
                    files.Save(png, sweeping.sweep_figure(rows, chosen, base, title, allowed=SAFE_DROP))])
    also = f" --recalibrate {data.recalibrates}" if data.recalibrates else ""
    said = "none of these ratios" if chosen is None else f"--percent {rows[chosen]['percent']:g}{also}"
    print(f"recommended: {said} (at most {SAFE_DROP:g} of mAP50 lost)" if base["map50"] is not None else
          f"recommended: {said} ({100 * safe:.0f}% of the gammas are near zero; no mAP was measured)")
    if len(rows) < len(set(ratios)):
        print(f"left out:   what is above {rows[-1]['percent']:g}: --layer_keep and --round_to allow no deeper cut")
    print(f"table:      {csv}\npicture:    {png}")
    data.remember()
    return {"rows": rows, "before": base, "recommended": None if chosen is None else rows[chosen]["percent"], "near_zero": safe,
            "allowed_drop": SAFE_DROP, "csv": csv, "picture": png, "strategy": args.strategy, "score": args.score, "fold": args.fold}


# ----------------------------------------------------------------------------------------------------------- after the cut

def sizes(model: Darknet) -> dict:
    """Parameters, MACs and bytes of the .weights file."""
    counted = profile.count(model.graph)
    return {"params": counted.params, "macs": counted.macs, "bytes": weights.model_bytes(model)}


def measure(args, models: list[Darknet], data: Data) -> list[dict]:
    """Sizes, latency and mAP of each network."""
    sides = [sizes(model) | {"map50": data.score(model)} for model in models]
    for side, seconds in zip(sides, timed(models, input_size(models[0].graph, args.img_size), data.device), strict=True):
        side["latency"] = seconds
    return sides


def timed(models: list[Darknet], size: tuple[int, int], device) -> list[float]:
    """Seconds of each network on a device, measured in turn; all of them end on the CPU."""
    for model in models:
        model.to(device)
    seconds = profile.paired_latency(models, size)
    for model in models:
        model.cpu()
    return seconds


def report(made: cut.Cut, before: dict, after: dict) -> dict:
    """What `--json` writes of a cut."""
    d, carriers = made.decision, made.carriers()
    return {
        **{f"{key}_{when}": side[key] for key in ("params", "macs", "map50", "latency", "bytes")
           for when, side in (("before", before), ("after", after))},
        "map50_folded": made.folded_map50, "recalibrated": made.pictures, "fused": made.fused,
        "max_abs_diff": made.proof.max_abs_diff, "max_rel_diff": made.proof.relative, "proof_error": made.proof.error,
        "fold": made.fold, "fold_differences": made.differences,
        "protected": [{"layer": layer, "reason": reason} for layer, reason in made.protected()],
        "layers": [{"layer": layer, "before": a, "after": b, "carriers": carriers.get(layer, 0)} for layer, a, b in made.rows()],
        "blocks": [{"shortcut": b.shortcut, "layers": [*b.body, b.shortcut], "score": b.score} for b in made.blocks],
        "strategy": d.strategy, "score": d.score, "percent": d.percent, "prunable": d.prunable, "requested": d.requested,
        "cut": d.cut, "threshold": d.threshold, "near_zero": importance.sparsity(d.gammas).near_zero,
        "target": d.target and {"kind": d.target.kind, "wanted": d.wanted, "reached": d.reached},
    }


def show(args, made: cut.Cut, before: dict, after: dict, out: Outputs) -> None:
    """Prints what was done, for a person."""
    print(texts.cut(made))
    print("written, reloaded from the disk, and equal bit by bit" + (" (batch norms folded in)" if made.fused else ""))
    print(tables.comparison(before, after))
    for name, path in (("cfg", out.cfg), ("checkpoint", out.checkpoint), ("weights", out.weights), ("picture", out.picture)):
        print(f"{name + ':':12}{path}")
    if not made.fused:
        data = "" if args.data_config == "config/oxfordhand.data" else f" --data_config {args.data_config}"
        print(f"finetune:   python train.py --model_def {out.cfg} -pre {out.checkpoint}{data}")


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
