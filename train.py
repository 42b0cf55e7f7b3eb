"""Trains a Darknet detector from its cfg, dense or with sparsity on the BatchNorm gammas.

    python train.py --model_def config/yolov3-hand.cfg                       # baseline
    python train.py --model_def config/yolov3-hand.cfg -sr --s 0.01          # sparsity training
    python train.py --model_def config/prune_yolov3-hand.cfg -pre checkpoints/prune_yolov3_ckpt.pth
    torchrun --nproc_per_node 2 -- train.py ...                              # several processes
"""

from __future__ import annotations

import argparse
import hashlib
import os
import time
import warnings
from pathlib import Path

import torch

from darkslim import checkpoints, command, datafile, evaluation, files, schema
from darkslim.channels import STRATEGIES
from darkslim.darknet import Darknet
from darkslim.data.augment import Augment
from darkslim.data.check import check_dataset
from darkslim.data.dataset import ListDataset
from darkslim.data.loader import MultiScale, make_loader
from darkslim.errors import CfgError, RequestError
from darkslim.graph import input_size
from darkslim.loss import DetectionLoss
from darkslim.report.console import EpochTable, StepBar
from darkslim.report.gammas import GammaTrace
from darkslim.report.tensorboard import Board
from darkslim.training import distributed, precision, sparsity
from darkslim.training.checkpoint import Keeper
from darkslim.training.ema import Average
from darkslim.training.faults import plain_errors
from darkslim.training.loop import LOSSES, Observer, Run, train
from darkslim.training.memory import keep_freed_memory
from darkslim.training.optim import check_steps, make_optimizer, make_schedule
from darkslim.training.signals import StopFlag
from darkslim.training.start import load_start, target_path


def parser() -> argparse.ArgumentParser:
    p = command.parser("Train a Darknet detector, dense or sparse.")
    p.add_argument("--model_def", metavar="CFG", default="config/yolov3-hand.cfg", help="the network")
    p.add_argument("--data_config", metavar="FILE", default="config/oxfordhand.data", help="classes, lists and names")
    p.add_argument("--pretrained_weights", "-pre", metavar="FILE", default=None,
                   help="a .weights, .pth or backbone file; none: the file in weights/ that fits, else random")
    p.add_argument("--epochs", type=command.count(1), default=100, help="passes over the training list")
    p.add_argument("--batch_size", type=command.count(1), default=16, help="images that one optimizer step sees, over all processes")
    p.add_argument("--accumulate", type=command.count(1), default=1, help="micro-batches that each step is cut into, to save memory")
    p.add_argument("--img_size", type=command.count(32, 8192), default=None, help="side of the square input; none: the cfg's size")
    p.add_argument("--n_cpu", type=command.count(0, 256), default=min(2, os.cpu_count() or 1), help="processes that load images")
    p.add_argument("--learning_rate", "-lr", type=command.fraction(0, 100), default=None, help="none: the cfg's")
    p.add_argument("--schedule", choices=("cosine", "steps"), default="cosine",
                   help="how the learning rate falls; steps: the cfg's steps and scales, stretched over this run")
    p.add_argument("--ema", type=command.fraction(0, 0.999999), default=0.999, help="decay of the average of the weights; 0: none")
    p.add_argument("--clip", type=command.fraction(0, 1e9), default=0.0, help="largest norm of the gradient; 0: any")
    p.add_argument("--amp", choices=precision.KINDS, default="auto", help="reduced precision of the forward pass")
    p.add_argument("--sparsity-regularization", "-sr", action="store_true", dest="sr", help="press the gammas towards zero")
    p.add_argument("--s", "--strength", type=command.fraction(0, 1e6), default=0.01,
                   help="strength of -sr (torchrun takes --s for its own unless -- stands before train.py)")
    p.add_argument("--strategy", choices=STRATEGIES, default="normal",
                   help="-sr presses what this strategy of test_prune.py may cut; normal leaves out what shortcuts join")
    p.add_argument("--vflip", type=command.fraction(), default=0.0, help="chance of turning a training picture upside down")
    p.add_argument("--multiscale_training", action="store_true", help="another input size every 10 steps")
    p.add_argument("--evaluation_interval", type=command.count(0), default=1, help="epochs between evaluations; 0: only at the end")
    p.add_argument("--checkpoint_interval", type=command.count(0), default=1,
                   help="epochs between saves of the state to resume from; 0: only at the end")
    p.add_argument("--checkpoint", metavar="PATH", default=None, help="where the weights go; none: checkpoints/yolov3_ckpt.pth, or "
                   "_finetuned.pth (_sparse.pth with -sr) after the name of the network that -pre gives")
    p.add_argument("--keep", choices=("best", "last"), default=None,
                   help="keep the weights with the best mAP50 on `valid`, or the last; none: best, but last with -sr")
    p.add_argument("--resume", action="store_true", help="go on with the run that --checkpoint belongs to; give the same flags")
    p.add_argument("--logdir", metavar="DIR", default="logs", help="TensorBoard events and gammas.png, one folder a run")
    return p


def main(args: argparse.Namespace) -> dict:
    device = command.device(args.device)
    command.check_outputs({"--json": args.json}, {"--model_def": args.model_def, "--data_config": args.data_config,
                                                  "--pretrained_weights": args.pretrained_weights})
    files.check_writable(Path(args.logdir) / "run")
    command.seed_everything(args.seed)
    if device.type == "cpu":
        keep_freed_memory()
    data = datafile.read_data(args.data_config)
    model = Darknet(args.model_def)
    check_heads(model, data)
    if args.schedule == "steps":
        check_steps(model.cfg.net)
    lists = {key: data.list_path(key) for key in ("train", "valid")}
    world = distributed.join(device)
    if not world.first:
        args.json = None  # one process writes
    try:
        say = print if world.first else (lambda *_: None)
        reports = {key: check_dataset(path, data.classes, need_boxes=True, save=False, progress=command.progress)
                   for key, path in lists.items()}
        for key, report in reports.items():
            say(f"{key}: {report.counts['images']} images, {report.counts['boxes']} boxes in {report.list_path}")
        return start(args, model, data, reports, world, say)
    finally:
        world.close()


def start(args, model, data, reports, world, say) -> dict:
    """Puts the parts together and trains."""
    began = load_start(model, args.pretrained_weights)
    path = target_path(args.checkpoint, began, args.pretrained_weights is not None, args.sr,
                       [Path(p) for p in (began.path, args.model_def, args.data_config, *data.reads) if p is not None])
    say(f"start: {began}; kept: {path}")
    size = input_size(model.graph, args.img_size)
    loader, valid = make_loaders(args, model, reports, size, world)
    model = model.to(world.device, memory_format=torch.channels_last)
    run = make_run(args, model, len(loader), world)
    dose = report_dose(args, run, say)
    say(f"{len(loader)} steps of {args.batch_size} images an epoch, {args.epochs} epochs at {size[1]}x{size[0]}, learning rate "
        f"{run.schedule.lr:g} ({args.schedule}), {world.device.type}, {world.size} process(es), precision {run.precision.kind}")
    keep = args.keep or ("last" if args.sr else "best")
    seconds = time.perf_counter()
    keeper = Keeper(path, identity(args, model, reports, size), say)
    with StopFlag() as stop, keeper if world.first else Follower(keeper) as keeper:
        watcher = Watcher(args, run, keeper, say)
        if args.resume:
            watcher.load(keeper.load_state(model))
            say(f"resumed after epoch {run.epoch}, batch {run.batch}")
        if world.first:
            for report in reports.values():
                report.remember()  # all that could be wrong has been looked at
        with watcher, plain_errors():
            train(run, loader, args.epochs, keeper=keeper, stop=stop, evaluate=lambda m: score(m, valid, data, amp=args.amp != "off"),
                  evaluation_interval=args.evaluation_interval, checkpoint_interval=args.checkpoint_interval, keep=keep,
                  observer=watcher)
    return finish(args, run, keeper, keep, valid, data, say, {
        "dose": dose, "seconds": time.perf_counter() - seconds, "seed": args.seed, "checkpoint": path, "logdir": watcher.folder,
        "start": str(began), "img_size": size, "history": run.history, "gammas": watcher.trace.to_dict(), "steps": run.step})


def finish(args, run, keeper, keep, valid, data, say, report: dict) -> dict:
    """Reads the kept weights back and scores them in full precision."""
    if not run.world.first:
        return {}
    checkpoints.load_checkpoint(keeper.path, run.model)
    result = score(run.model, valid, data, amp=False, coco=True)
    say(f"{keeper.path} ({keep}): mAP50 {result.map50:.4f}, mAP {result.map:.4f}, {report['seconds']:.0f} s; logs in {report['logdir']}")
    return {"map50": result.map50, "map": result.map, "precision": result.precision, "recall": result.recall, "f1": result.f1,
            "per_class": result.per_class, "kept": keep, **report}


# ------------------------------------------------------------------------------------------------------------- the parts

def check_heads(model: Darknet, data: datafile.DataConfig) -> None:
    """The cfg must detect as many classes as the data have, and its heads must be trainable."""
    for head in model.heads:
        section = model.cfg.layers[head.index]
        if section.type != "yolo":
            raise CfgError(section.place, "this kind of head cannot be trained here", "[yolo] heads")
        if head.classes != data.classes:
            raise CfgError(section.place, f"classes={head.classes}", f"classes={data.classes} as in {data.path}",
                           "change the cfg (and filters before each [yolo]) or the data")
    if not model.heads:
        raise CfgError(model.cfg.path, "has no [yolo] layer", "a detector")


def make_loaders(args, model: Darknet, reports: dict, size, world):
    """Shuffled batches of the training list (this process's share), and the validation list in order."""
    net, head = schema.values(model.cfg.net), model.heads[0].opts
    common = {"letterbox": bool(net["letter_box"]), "channels": model.cfg.channels, "seed": args.seed}
    changes = {"train": Augment.from_options(net, head, vflip=args.vflip), "valid": None}
    sets = {key: ListDataset(report.list_path, report.classes, size, augment=changes[key], report=report, **common)
            for key, report in reports.items()}
    share = world.share(args.batch_size, args.accumulate)
    whole = len(sets["train"]) >= args.batch_size  # then batches cut short are left out: other images each epoch
    if not whole and world.size > 1:
        raise RequestError("--batch_size", f"{args.batch_size} images, and the list has {len(sets['train'])}", remedy="use a smaller one")
    scales = MultiScale(size, step=model.graph.stride) if args.multiscale_training else None
    loader = make_loader(sets["train"], share, shuffle=True, workers=args.n_cpu, seed=args.seed, drop_last=whole, rank=world.rank,
                         world=world.size, multiscale=scales)
    return loader, make_loader(sets["valid"], share, workers=args.n_cpu, seed=args.seed)


def make_run(args, model: Darknet, batches: int, world) -> Run:
    """The parts that the flags and the cfg ask for."""
    net = schema.values(model.cfg.net)
    schedule, said = make_schedule(net, batches * args.epochs, args.learning_rate, args.schedule)
    if args.sr and args.ema:
        said.append("no average of the weights: it would lag behind the gammas that -sr moves")
    if world.first:
        print(*said, sep="\n", end="\n" if said else "")
    return Run(model=model, loss=DetectionLoss(model.heads), schedule=schedule, world=world, accumulate=args.accumulate, clip=args.clip,
               optimizer=make_optimizer(model, schedule.lr, net["momentum"], net["decay"]),
               precision=precision.Precision(args.amp, world.device),
               penalty=sparsity.L1(sparsity.prunable_gammas(model, args.strategy), args.s) if args.sr else sparsity.NoPenalty(),
               average=Average(model, args.ema) if args.ema and not args.sr else None)


def report_dose(args, run: Run, say) -> float | None:
    """Says how far -sr can move a gamma in this run; warns when that cannot prune."""
    if not args.sr:
        return None
    momentum = run.optimizer.param_groups[0]["momentum"]
    rates = run.schedule.all()
    dose = sparsity.dose(args.s, rates, momentum)
    channels = sum(int(g.mask.sum()) for g in run.penalty.gammas)
    say(f"dose: {dose:.3g} = s {args.s:g} x sum of learning rates {sum(rates):.4g} / (1 - momentum {momentum:g}), on {channels} prunable "
        "channels; gammas start near 1")
    if not channels:
        warnings.warn("no channel of this network can be pruned, so -sr does nothing", stacklevel=2)
    elif dose < 1 and run.world.first:
        warnings.warn(f"dose {dose:.2g} cannot press gammas to zero; use --s {sparsity.suggested_s(rates, momentum):g} (dose "
                      f"{sparsity.ENOUGH:g}), or train longer", stacklevel=2)
    return dose


def score(model, valid, data, amp: bool, coco: bool = False):
    return evaluation.evaluate(model, valid, amp=amp, progress=command.progress, names=data.names, coco=coco)


def identity(args, model: Darknet, reports: dict, size) -> dict:
    """What a resumed run must share with the one that it goes on with."""
    flags = ("epochs", "batch_size", "accumulate", "learning_rate", "schedule", "ema", "clip", "sr", "s", "strategy", "multiscale_training",
             "vflip", "seed")
    content = {f"the data of {key}": fingerprint(report) for key, report in reports.items()}
    return {"cfg hash": model.cfg.hash[:16], **content, "classes": model.heads[0].classes, "img_size": list(size),
            **{f"--{name}": getattr(args, name) for name in flags}}


def fingerprint(report) -> str:
    """A hash of the paths, sizes and boxes of a data set."""
    parts = ("\n".join(report.images).encode(), report.sizes.tobytes(), report.rows.tobytes(), report.offsets.tobytes())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


class Follower:
    """Stands for the Keeper in processes that do not write."""

    def __init__(self, keeper: Keeper):
        self.keeper, self.path, self.last = keeper, keeper.path, keeper.last

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def load_state(self, model):
        return self.keeper.load_state(model)


class Watcher(Observer):
    """Bars, table, TensorBoard and the pictures of the gammas; silent in processes other than the first."""

    def __init__(self, args, run: Run, keeper, say):
        self.args, self.run, self.say = args, run, say
        name = f"{Path(args.model_def).stem}{'-sr' if args.sr else ''}-{time.strftime('%Y%m%d-%H%M%S')}"
        self.folder = free_folder(Path(args.logdir), name)
        self.table, self.trace = EpochTable(args.epochs), GammaTrace()
        self.gammas = sparsity.prunable_gammas(run.model, args.strategy)
        self.first = first_batch_norm(run.model)
        self.board = self.bar = None

    def __enter__(self):
        if self.run.world.first:
            self.board = Board(self.folder)
        return self

    def __exit__(self, *_):
        if self.bar:
            self.bar.close()
        if self.board:
            self.trace.draw(self.folder / "gammas.png")
            self.board.close()

    def load(self, state: dict) -> None:
        self.run.load(state)
        if "trace" in self.run.notes:
            self.trace = GammaTrace.from_dict(self.run.notes["trace"])

    def epoch_starts(self, run, epoch, batches):
        if run.world.first:
            self.bar = StepBar(epoch + 1, self.args.epochs, batches, run.batch)

    def step_done(self, run, parts, lr, images):
        if self.bar:
            self.bar.step(parts, lr, images)
            self.board.scalars(run.step, {"train/lr": lr, **{f"train/{name}": value for name, value in parts.items()}})

    def epoch_done(self, run, row):
        if not run.world.first:
            return
        self.bar.close()
        for line in self.table.lines(row):
            self.say(line)
        self.board.scalars(row["epoch"], {**{f"loss/{name}": row[name] for name in (*LOSSES, "loss")},
                                          **{f"metric/{name}": row.get(name) for name in ("map50", "precision", "recall")}})
        row["gamma_quintiles"] = sparsity.quintiles(self.gammas)
        if self.gammas and self.first is not None:
            values, first = sparsity.values(self.gammas).numpy(), self.first.detach().float().cpu().numpy()
            self.trace.add(row["epoch"], row["gamma_quintiles"], first, values)
            run.notes["trace"] = self.trace.to_dict()
            self.board.gammas(row["epoch"], row["gamma_quintiles"], first, values)
            if "map50" in row:
                self.trace.draw(self.folder / "gammas.png")


def first_batch_norm(model: Darknet):
    """The gammas of the first BatchNorm layer, None without one."""
    return next((m.weight for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)), None)


def free_folder(parent: Path, name: str) -> Path:
    number, folder = 1, parent / name
    while folder.exists():
        number, folder = number + 1, parent / f"{name}.{number}"
    return folder


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
