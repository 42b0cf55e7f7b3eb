"""A published detector on the whole road: loaded, tested, cut, finetuned, and read by OpenCV.

    python benchmarks/published.py --folder DIR --pictures DIR --json docs/results/published.json

`--folder` holds NAME.cfg and NAME.weights (yolo-fastest-1.1-xl unless told otherwise), `--pictures` a sample
of COCO with train.txt, val.txt and coco.names. It was never trained for sparsity: a cut of its gammas is the
worst case. The ratios were set beforehand; val.txt only measures.
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
EPOCHS = 3


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--folder", required=True, help="folder of the published cfg and weights")
    p.add_argument("--name", default="yolo-fastest-1.1-xl", help="their name, without suffix")
    p.add_argument("--pictures", required=True, help="folder with train.txt, val.txt, coco.names")
    p.add_argument("--work", default="runs/published", help="where everything goes")
    p.add_argument("--rate", type=float, default=0.001, help="learning rate of the finetuning")
    return p


def main(args) -> dict:
    work = Path(args.work)
    stages = Stages(ROOT / work, args.seed)
    data = data_file(Path(args.pictures).resolve(), ROOT / work).relative_to(ROOT)
    cfg, weights = (Path(args.folder) / f"{args.name}{suffix}" for suffix in (".cfg", ".weights"))
    common = ["--data_config", data, "--device", args.device, "--n_cpu", 2]
    score = ["--conf_thres", 0.005]
    rows = [
        row(
            "published",
            stages.run(
                "published", "test.py", "--model_def", cfg, "--weights_path", weights, *common, *score
            ),
        )
    ]
    for ratio in RATIOS:
        rows += one(stages, work, ratio, cfg, weights, common, score, args.rate)
    print(right([list(rows[0]), *[[str(v) for v in r.values()] for r in rows]]))
    return {"rows": rows, "epochs": EPOCHS, "commands": stages.commands, "sources": stages.sources}


def one(stages, work: Path, ratio: float, cfg, weights, common, score, rate) -> list[dict]:
    """Cut at one ratio, measured before and after finetuning; OpenCV reads the result."""
    name = f"{ratio:g}"
    small, cut_at = work / f"cut-{name}.cfg", work / f"cut-{name}.pth"
    words = [
        "--model_def",
        cfg,
        "--model",
        weights,
        "--strategy",
        "slim",
        "--percent",
        ratio,
        "--recalibrate",
        8,
    ]
    files = ["--cfg_out", small, "--model_out", cut_at]
    cut = stages.run(f"cut-{name}", "test_prune.py", *words, *files, *common, *score)
    tuned_at = work / f"tuned-{name}.pth"
    train = ["--model_def", small, "-pre", cut_at, "--checkpoint", tuned_at, "--epochs", EPOCHS]
    how = ["--keep", "last", "--evaluation_interval", 0, "--logdir", work / "logs", "-lr", rate]
    stages.run(f"tune-{name}", "train.py", *train, *how, *common)
    test = ["--model_def", small, "--weights_path", tuned_at]
    tuned = stages.run(f"test-{name}", "test.py", *test, *common, *score)
    sizes = {"params": cut["params_after"], "macs": cut["macs_after"]}
    before = {"stage": f"cut {ratio:.0%}", "map50": cut["map50_after"], "exact": cut["max_abs_diff"]}
    return [
        before | sizes | {"opencv": opencv(ROOT / small, ROOT / cut_at)},
        row(f"finetuned {ratio:.0%}", tuned) | sizes | {"opencv": opencv(ROOT / small, ROOT / tuned_at)},
    ]


def row(stage: str, r: dict) -> dict:
    return {"stage": stage, "map50": r["map50"], "exact": None, "params": None, "macs": None, "opencv": None}


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
