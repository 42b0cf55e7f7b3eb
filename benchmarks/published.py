"""A published detector on the whole road: loaded, tested, cut, finetuned, and read by OpenCV.

    python benchmarks/published.py --folder DIR --pictures DIR --json docs/results/published.json

`--folder` holds NAME.cfg and NAME.weights (yolo-fastest-1.1-xl unless told otherwise), `--pictures` a sample
of COCO with train.txt, val.txt and coco.names. It was never trained for sparsity, so that it is cut in two
ways: by its gammas, as after sparsity training, which is the worst case, and by what the rest can make up
for. Finetuning has the network before the cut as its teacher. The ratios were set beforehand; val.txt only
measures.
"""

from __future__ import annotations

from pathlib import Path

from families import compare_opencv
from stages import ROOT, Stages

import prune_utils
from darkslim import commands
from darkslim.report.tables import right
from models import load_model

RATIOS = (0.2, 0.4)
WAYS = {"gamma": ("--recalibrate", 8), "repair": ("--reconstruct", 8)}
EPOCHS = 3


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--folder", required=True, help="folder of the published cfg and weights")
    p.add_argument("--name", default="yolo-fastest-1.1-xl", help="their name, without suffix")
    p.add_argument("--pictures", required=True, help="folder with train.txt, val.txt, coco.names")
    p.add_argument("--work", default="runs/published", help="where everything goes")
    return p


def main(args) -> dict:
    road = Road(args)
    rows = [row("published", "", road.test("published", road.cfg, road.weights))]
    for ratio in RATIOS:
        for score in WAYS:
            rows += road.cut_and_tuned(ratio, score)
    print(right([list(rows[0]), *[[str(v) for v in r.values()] for r in rows]]))
    stages = road.stages
    return {"rows": rows, "epochs": EPOCHS, "commands": stages.commands, "sources": stages.sources}


class Road:
    """The commands that a user would type, on one published detector."""

    def __init__(self, args):
        self.work = Path(args.work)
        self.stages = Stages(ROOT / self.work, args.seed)
        data = data_file(Path(args.pictures).resolve(), ROOT / self.work).relative_to(ROOT)
        self.cfg, self.weights = (Path(args.folder) / f"{args.name}{end}" for end in (".cfg", ".weights"))
        self.common = ["--data_config", data, "--device", args.device, "--n_cpu", 2]
        self.counted = [*self.common, "--conf_thres", 0.005]

    def test(self, stage: str, cfg: Path, weights: Path) -> dict:
        words = ("--model_def", cfg, "--weights_path", weights)
        return self.stages.run(stage, "test.py", *words, *self.counted)

    def cut_and_tuned(self, ratio: float, score: str) -> list[dict]:
        """Cut at one ratio, measured before and after finetuning; OpenCV reads both."""
        name = f"{score}-{ratio:g}"
        small, cut_at, tuned_at = (
            self.work / part for part in (f"cut-{name}.cfg", f"cut-{name}.pth", f"tuned-{name}.pth")
        )
        cut = self.stages.run(
            f"cut-{name}",
            "test_prune.py",
            *("--model_def", self.cfg, "--model", self.weights, "--cfg_out", small, "--model_out", cut_at),
            *("--strategy", "slim", "--score", score, "--percent", ratio, *WAYS[score]),
            *self.counted,
        )
        self.stages.run(
            f"tune-{name}",
            "train.py",
            *("--model_def", small, "-pre", cut_at, "--checkpoint", tuned_at, "--epochs", EPOCHS),
            *("--t_cfg", self.cfg, "--t_weights", self.weights),
            *("--keep", "last", "--evaluation_interval", 0, "--logdir", self.work / "logs"),
            *self.common,
        )
        sizes = {"params": cut["params_after"], "macs": cut["macs_after"]}
        before = row(f"cut {ratio:.0%}", score, {"map50": cut["map50_after"]}) | sizes
        after = row(f"finetuned {ratio:.0%}", score, self.test(f"test-{name}", small, tuned_at)) | sizes
        return [
            before | {"exact": cut["max_abs_diff"], "opencv": opencv(ROOT / small, ROOT / cut_at)},
            after | {"opencv": opencv(ROOT / small, ROOT / tuned_at)},
        ]


def row(stage: str, score: str, result: dict) -> dict:
    """A row of which more is known later."""
    names = ("exact", "params", "macs", "opencv")
    return {"stage": stage, "score": score, "map50": result["map50"], **dict.fromkeys(names)}


def data_file(pictures: Path, work: Path) -> Path:
    """A .data file with lists that hold from any folder."""
    for name in ("train", "val"):
        lines = (pictures / f"{name}.txt").read_text().split()
        (work / f"{name}.txt").write_text("".join(f"{pictures / line}\n" for line in lines))
    path = work / "coco.data"
    path.write_text(
        f"classes=80\ntrain={work}/train.txt\nvalid={work}/val.txt\nnames={pictures}/coco.names\n"
    )
    return path


def opencv(cfg: Path, checkpoint: Path) -> float:
    """How far OpenCV is from our network, of the largest value, batch norms folded in for both."""
    model = load_model(cfg, checkpoint)
    return compare_opencv(model, prune_utils.fuse(model))


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
