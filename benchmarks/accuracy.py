"""What slimming keeps, over seeds: with sparsity training and without it, repaired, finetuned, taught, and
against the same network from random weights.

    python benchmarks/accuracy.py --demo --json docs/results/accuracy_demo.json
    python benchmarks/accuracy.py --seeds 0 1 2 --json docs/results/accuracy_bccd.json
    python benchmarks/accuracy.py --model_def config/yolov3-nano-bccd.cfg --work runs/accuracy_nano \
        --json docs/results/accuracy_nano.json

Every row is a command as a user would type it. Trainings keep their last weights and test_prune.py chooses on
training pictures, so that `valid`, on which everything is measured, chooses nothing; shares, epochs and rates
were set beforehand, and finetunings take train.py's own rate. The control has the epochs of all trainings
before it together. A stage that was run is not run again: stop it at any time; --collect tells what there is
by then, and the summary says of how many seeds each row is. --join takes in what another machine found of
other seeds, with the same settings. --demo draws its pictures itself.
"""

from __future__ import annotations

import json
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stages import ROOT, Stages

from darkslim import commands
from darkslim.base.errors import FileError
from darkslim.report import machine
from darkslim.report.tables import right

DEMO = {
    "model_def": "config/yolov3-tiny-demo.cfg",
    "work": "runs/accuracy_demo",
    "data_config": "runs/accuracy_demo/data/oxfordhand.data",
    "epochs": 20,
    "sparse_epochs": 8,
    "finetune_epochs": 9,
    "batch_size": 4,
    "rate": 0.003,
    "flags": [],
}
SETTINGS = ("model_def", "epochs", "sparse_epochs", "finetune_epochs", "batch_size", "rate")
BY_VALLEY = ("gates", "polarize")  # recipes that find out themselves how much to cut
SCORE_OF = {"gate": "readers"}  # closed gates are folded into the kernels that read them


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--demo", action="store_true", help="drawn hands and the demo's network, its own settings")
    p.add_argument("--images", type=commands.count(10), default=1000, help="pictures that --demo draws")
    p.add_argument("--model_def", default="config/yolov3-tiny-bccd.cfg", help="the network")
    p.add_argument("--data_config", default="config/bccd.data", help="its data set")
    p.add_argument("--work", default="runs/accuracy_bccd", help="folder of the stages, one a seed")
    p.add_argument("--seeds", type=int, nargs="+", help="of every training; none: 0, with --demo 0 1 2")
    p.add_argument("--shares", type=float, nargs="+", default=[0.35, 0.15], help="of the MACs, left")
    p.add_argument("--dense", help="trained weights in place of the dense training, {seed} in their name")
    p.add_argument("--oneshot", type=float, nargs="*", default=[0.4, 0.15], help="the same, of the dense one")
    p.add_argument("--scores", nargs="*", default=[], help="to compare on the dense network")
    p.add_argument("--penalties", nargs="*", default=[], help="to compare with the default one")
    p.add_argument("--recipes", nargs="*", default=[], help="of slim.py, from the dense network")
    p.add_argument("--without", nargs="+", default=[], help="finetunings to leave out, by how they begin")
    p.add_argument("--epochs", type=commands.count(1), default=60, help="of the dense training")
    p.add_argument("--sparse_epochs", type=commands.count(1), default=30, help="of the sparsity training")
    p.add_argument("--finetune_epochs", type=commands.count(1), default=30, help="of each finetuning")
    p.add_argument("--batch_size", type=commands.count(1), default=8, help="images a step")
    p.add_argument("--rate", type=float, default=0.002, help="learning rate, of all but finetunings")
    p.add_argument("--batches", type=commands.count(1), default=8, help="that repair, 16 pictures each")
    p.add_argument("--collect", action="store_true", help="only tell what was run; run nothing")
    p.add_argument("--join", metavar="FILE", help="JSON of this command, whose seeds are told as well")
    p.add_argument("--jobs", type=commands.count(1), default=1, help="seeds beside each other")
    return p


def main(args) -> dict:
    args.flags = ["--vflip", 0.5]
    args.seeds = args.seeds or ([0, 1, 2] if args.demo else [0])
    if args.demo:
        vars(args).update(DEMO)
        stages = Stages(ROOT / args.work, args.seed)
        made = ["--generate", args.images, "--input", Path(args.work) / "hand_dataset"]
        stages.run("generate", "converter.py", *made, "--output", Path(args.data_config).parent)
    with ThreadPoolExecutor(args.jobs) as pool:
        seeds = list(pool.map(lambda seed: Seed(args, seed).rows(), args.seeds))
    told = {
        **{key: getattr(args, key) for key in SETTINGS},
        "dense": args.dense,
        "seeds": args.seeds,
        "pictures": 16 * args.batches,
        "rows": [row for found in seeds for row in found["rows"]],
        "commands": seeds[0]["stages"].commands,
        "machines": {str(seed): machine.describe() for seed in args.seeds},
    }
    for key in ("seconds", "sources"):
        told[key] = {str(seed): getattr(s["stages"], key) for seed, s in zip(args.seeds, seeds, strict=True)}
    if args.join:
        told = joined(told, args.join)
    told["summary"] = summary(told["rows"])
    show(told["summary"])
    return told


def joined(told: dict, path: str) -> dict:
    """With the seeds of an earlier JSON that were not run here.

    Raises:
        FileError: it is none of this command, or was run with other settings.
    """
    try:
        other = json.loads(Path(path).read_text())
        differ = [key for key in SETTINGS if other[key] != told[key]]
        seeds = [seed for seed in other["seeds"] if seed not in told["seeds"]]
        machines = other.get("machines", {str(seed): other["run"]["machine"] for seed in seeds})
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise FileError(path, f"cannot be read as a JSON of this command ({e!r})") from None
    if differ:
        raise FileError(path, f"run with another {', '.join(differ)}", "the same settings for all seeds")
    new = dict(told, seeds=sorted([*told["seeds"], *seeds]))
    new["commands"] = other["commands"] | told["commands"]
    new["rows"] = sorted(
        [*told["rows"], *(row for row in other["rows"] if row["seed"] in seeds)], key=lambda row: row["seed"]
    )
    for key, found in {"machines": machines, **{key: other[key] for key in ("seconds", "sources")}}.items():
        new[key] = told[key] | {str(seed): found[str(seed)] for seed in seeds}
    return new


class Seed:
    """All stages of one seed, in the order in which they need each other."""

    def __init__(self, args, seed: int):
        self.args, self.seed = args, seed
        self.work = Path(args.work) / f"seed{seed}"
        self.stages = Stages(ROOT / self.work, seed)
        self.found: list[dict] = []

    def rows(self) -> dict:
        a, total = self.args, self.args.epochs + self.args.sparse_epochs + self.args.finetune_epochs
        dense = self._given() if a.dense else self._train("dense", a.model_def, a.epochs, rate=a.rate)
        for share in a.oneshot:
            words = ("--score", "auto", "--reconstruct", a.batches)
            cut = self._cut(f"oneshot {share:g}", dense, share, *words)
            if share == min(a.oneshot):
                self._recover("oneshot ", share, cut, dense)
        for score, share in ((score, share) for share in a.shares for score in a.scores):
            name = f"{score} {share:g}"
            self._cut(name, dense, share, "--score", score, "--reconstruct", a.batches)
        sparse = self._press("sparse", dense)
        for share in a.shares:
            self._cut(f"recalibrated {share:g}", sparse, share, "--recalibrate", a.batches)
            by_gamma = self._cut(f"reconstructed {share:g}", sparse, share, "--reconstruct", a.batches)
            words = ("--score", "auto", "--reconstruct", a.batches)
            by_repair = self._cut(f"sparse auto {share:g}", sparse, share, *words)
            self._recover("auto ", share, by_repair, dense)
            self._recover("", share, by_gamma, dense)
            if share == min(a.shares):
                self._train(f"control {share:g}", by_repair[0], total, rate=a.rate)
        share = min(a.shares)
        for penalty in a.penalties:
            pressed = self._press(f"{penalty} sparse", dense, "--sr_penalty", penalty)
            words = ("--score", SCORE_OF.get(penalty, "gamma"), "--reconstruct", a.batches)
            cfg, cut = self._cut(f"{penalty} {share:g}", pressed, share, *words)
            self._tune(f"{penalty} finetuned {share:g}", (cfg, cut))
        for recipe in a.recipes:
            self._slim(recipe, dense)
        return {"rows": self.found, "stages": self.stages}

    def _given(self) -> Path:
        """The dense network that is there already, measured."""
        weights = Path(self.args.dense.format(seed=self.seed))
        words = ("--model_def", self.args.model_def, "--weights_path", weights)
        words = ("test.py", *words, "--data_config", self.args.data_config, "--device", self.args.device)
        found = self._run("dense_test", *words)
        if found is not None:
            self._row("dense", found["map50"], found["map"])
        return weights

    def _recover(self, how: str, share: float, cut: tuple[Path, Path], dense: Path) -> None:
        """Finetunes a cut network, alone and with the dense one as its teacher."""
        self._tune(f"{how}finetuned {share:g}", cut)
        teacher = ("--t_cfg", self.args.model_def, "--t_weights", dense)
        self._tune(f"{how}taught {share:g}", cut, *teacher)

    def _tune(self, name: str, cut: tuple[Path, Path], *words) -> None:
        """Finetunes a cut network, at the rate that train.py takes, unless it is left out."""
        if name.startswith(tuple(self.args.without)):
            return
        self._train(name, cut[0], self.args.finetune_epochs, "-pre", cut[1], *words, rate=None)

    def _press(self, name: str, dense: Path, *words) -> Path:
        a = self.args
        pressed = ("-sr", "--s", "auto", "--strategy", "slim", *words)
        return self._train(name, a.model_def, a.sparse_epochs, "-pre", dense, *pressed, rate=a.rate)

    def _train(self, name: str, cfg, epochs: int, *words, rate: float | None) -> Path:
        """Trains a network and adds its row; its weights."""
        a, out = self.args, self.work / f"{name.replace(' ', '_')}.pth"
        stage = out.stem
        common = ["--data_config", a.data_config, "--batch_size", a.batch_size]
        common += [*([] if rate is None else ["-lr", rate]), *a.flags]
        common += ["--evaluation_interval", 0, "--keep", "last", "--logdir", self.work / "logs"]
        common += ["--device", a.device, "--epochs", epochs, "--checkpoint", out]
        found = self._run(stage, "train.py", "--model_def", cfg, *common, *words)
        if found is None:
            return out
        more = {key: found[key] for key in ("dose", "s") if found.get(key) is not None}
        self._row(name, found["map50"], found["map"], epochs=epochs, **more)
        return out

    def _cut(self, name: str, weights: Path, share: float, *words) -> tuple[Path, Path]:
        """Cuts a network and adds its row; the new cfg and its weights."""
        a, stem = self.args, self.work / name.replace(" ", "_")
        cfg, out = stem.with_name(f"{stem.name}.cfg"), stem.with_name(f"{stem.name}.pth")
        common = ["--model_def", a.model_def, "--model", weights, "--data_config", a.data_config]
        common += ["--device", a.device, "--strategy", "slim", "--target-macs", share]
        files = ["--cfg_out", cfg, "--model_out", out]
        found = self._run(stem.name, "test_prune.py", *common, *words, *files)
        if found is None:
            return cfg, out
        sizes = {key: found[key] for key in ("params_before", "params_after", "macs_before", "macs_after")}
        chosen = {"score": found["score"], "as_cut": found["map50_folded"]}
        self._row(name, found["map50_after"], found.get("map_after"), **sizes, **chosen)
        return cfg, out

    def _slim(self, recipe: str, dense: Path) -> None:
        """Runs a recipe, by its own ratio where it names one, else to the smallest share; its row has a line
        for each step.
        """
        a = self.args
        common = ["--model_def", a.model_def, "--data_config", a.data_config, "--batch_size", a.batch_size]
        common += ["-lr", a.rate, *a.flags, "--device", a.device, "--weights", dense, "--recipe", recipe]
        common += ["--sparse_epochs", a.sparse_epochs, "--finetune_epochs", a.finetune_epochs]
        if recipe not in BY_VALLEY:
            common += ["--target-macs", min(a.shares)]
        found = self._run(f"slim_{recipe}", "slim.py", *common, "--work", self.work / f"slim_{recipe}")
        if found is None:
            return
        sizes = {key: found[key] for key in ("params_before", "params_after", "macs_before", "macs_after")}
        keys = ("step", "macs", "params", "map50_pruned", "map50_recovered")
        steps = [{key: step[key] for key in keys} for step in found["steps"]]
        self._row(f"slim.py {recipe}", found["final_map50"], None, **sizes, steps=steps)

    def _run(self, stage: str, *words) -> dict | None:
        """What a stage came to; None where it is still to be run and only what there is is told."""
        if self.args.collect and not (ROOT / self.work / f"{stage}.json").exists():
            return None
        return self.stages.run(stage, *words)

    def _row(self, name: str, map50: float, mean: float | None, **more) -> None:
        self.found.append({"seed": self.seed, "stage": name, "map50": map50, "map": mean, **more})
        print(f"seed {self.seed}: {name}: {map50:.4f}", flush=True)


def summary(rows: list[dict]) -> list[dict]:
    """Mean and spread (half of largest minus least) over seeds, of every stage; also of what it is ahead of
    the control, seed by seed: seeds differ by more than stages of one seed do.
    """
    found, control = [], {}
    for row in rows:
        if row["stage"].startswith("control"):
            control[row["seed"]] = row["map50"]
    for stage in dict.fromkeys(row["stage"] for row in rows):
        mine = [row for row in rows if row["stage"] == stage]
        entry: dict = {"stage": stage, "seeds": len(mine)}
        for key in ("map50", "as_cut", "params_after", "macs_after"):
            entry |= spread(key, [row[key] for row in mine if key in row])
        ahead = [row["map50"] - control[row["seed"]] for row in mine if row["seed"] in control]
        if not stage.startswith("control"):
            entry |= spread("ahead", ahead)
        found.append(entry)
    return found


def spread(key: str, values: list[float]) -> dict:
    """Mean and half of the range, by name; nothing of nothing."""
    if not values:
        return {}
    return {key: statistics.mean(values), f"{key}_spread": (max(values) - min(values)) / 2}


def show(table: list[dict]) -> None:
    rows = [["stage", "seeds", "mAP50", "+-", "as cut", "parameters", "MACs", "ahead of control", "+-"]]
    for r in table:
        cells = [r["stage"], str(r["seeds"]), f"{r['map50']:.4f}", f"{r['map50_spread']:.4f}"]
        cells += [f"{r['as_cut']:.4f}" if "as_cut" in r else ""]
        cells += [f"{r[key]:,.0f}" if key in r else "" for key in ("params_after", "macs_after")]
        cells += [f"{r['ahead']:+.4f}", f"{r['ahead_spread']:.4f}"] if "ahead" in r else ["", ""]
        rows.append(cells)
    print(right(rows))


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
