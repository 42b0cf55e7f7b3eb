"""How far a trained network can be cut without any training: scores and repairs at equal MACs.

    python benchmarks/repairs.py --model_def config/yolov3-tiny-bccd.cfg --model runs/bccd/dense.pth \
        --data_config config/bccd.data --json docs/results/repairs_bccd.json
    python benchmarks/repairs.py --published ../shared/data --json docs/results/repairs_published.json

Each cell is a run of test_prune.py as a user would type it: the cut is measured before its repair and after
it, on `valid`, which chooses nothing. --published cuts yolo-fastest-1.1-xl, trained by others and never for
sparsity, on the 256 pictures of COCO beside it; with --finetune what the first score left is trained there
with the network itself as its teacher. A stage that was run is not run again.
runs/bccd/dense.pth is the network of the stage `dense` of benchmarks/accuracy.py.
"""

from __future__ import annotations

from pathlib import Path

from published import data_file
from stages import ROOT, Stages

from darkslim import commands
from darkslim.report.tables import right

REPAIRS = ("recalibrate", "reconstruct")


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--model_def", default="config/yolov3-tiny-bccd.cfg", help="the network")
    p.add_argument("--model", default="runs/bccd/dense.pth", help="its weights")
    p.add_argument("--data_config", default="config/bccd.data", help="its data set")
    p.add_argument("--published", help="folder of published/ and coco256/, in place of these three")
    p.add_argument("--name", default="yolo-fastest-1.1-xl", help="of the published detector")
    p.add_argument("--conf_thres", type=float, default=0.01, help="least objectness of a detection")
    p.add_argument("--work", default="runs/repairs", help="folder of the stages")
    p.add_argument("--shares", type=float, nargs="+", default=[0.4, 0.25, 0.15], help="of the MACs, left")
    p.add_argument("--scores", nargs="+", default=["repair", "l1", "gamma", "taylor"], help="to compare")
    p.add_argument("--strategy", default="slim", help="what may be cut")
    p.add_argument("--finetune", type=commands.count(0), default=0, help="epochs, of the first score")
    p.add_argument("--batches", type=commands.count(1), default=8, help="of training pictures, 16 each")
    return p


def main(args) -> dict:
    work = Path(args.work)
    stages = Stages(ROOT / work, args.seed)
    cfg, weights, data = Path(args.model_def), Path(args.model), Path(args.data_config)
    if args.published:
        folder = Path(args.published)
        cfg, weights = (folder / "published" / f"{args.name}{end}" for end in (".cfg", ".weights"))
        data = data_file((folder / "coco256").resolve(), ROOT / work).relative_to(ROOT)
    common = ["--model_def", cfg, "--model", weights, "--data_config", data, "--device", args.device]
    common += ["--conf_thres", args.conf_thres, "--strategy", args.strategy]
    rows = []
    for share in args.shares:
        for score in args.scores:
            rows.append(one(stages, work, [*common, "--target-macs", share], share, score, args.batches))
            if args.finetune and score == args.scores[0]:
                cut = f"{score}-{share:g}-{REPAIRS[-1]}"
                rows[-1]["finetuned"] = finetuned(stages, work, args, cut, (cfg, weights, data))
            print(*row(rows[-1]))
        plain = stages.run(
            f"interior-{share:g}",
            "test_prune.py",
            *common,
            *("--target-macs", share, "--score", "gamma", "--fold", "interior"),
            *outputs(work, f"interior-{share:g}"),
        )
        rows.append(sizes(plain) | {"share": share, "score": "gamma", "fold": "interior"})
        rows[-1] |= {"cut": plain["map50_after"]}
    print(right([["MACs", "score", "cut", *REPAIRS, "finetuned"], *(row(r) for r in rows)]))
    return {
        "network": cfg.name,
        "dense": plain["map50_before"],
        "macs": plain["macs_before"],
        "params": plain["params_before"],
        "strategy": args.strategy,
        "pictures": 16 * args.batches,
        "finetune_epochs": args.finetune,
        "rows": rows,
        "seconds": {name: stages.seconds[name] for name in stages.seconds},
        "commands": stages.commands,
        "sources": stages.sources,
    }


def one(stages: Stages, work: Path, words: list, share: float, score: str, batches: int) -> dict:
    """One score at one share: as cut, and after each repair."""
    found = {"share": share, "score": score, "fold": "exact"}
    for repair in REPAIRS:
        name = f"{score}-{share:g}-{repair}"
        words_now = [*words, "--score", score, f"--{repair}", batches, *outputs(work, name)]
        result = stages.run(name, "test_prune.py", *words_now)
        found |= {"cut": result["map50_folded"], repair: result["map50_after"]} | sizes(result)
    return found | {"seconds": stages.seconds[name]}


def finetuned(stages: Stages, work: Path, args, cut: str, given: tuple[Path, Path, Path]) -> float:
    """mAP50 of a cut network that was trained with the one before the cut as its teacher; its last weights.

    Args:
        cut: the stage that made it. given: cfg, weights and data of the one before.
    """
    (cfg, weights, data), out = given, work / f"{cut}-tuned.pth"
    words = ["--model_def", work / f"{cut}.cfg", "-pre", work / f"{cut}.pth", "--checkpoint", out]
    words += ["--t_cfg", cfg, "--t_weights", weights, "--epochs", args.finetune]
    words += ["--keep", "last", "--evaluation_interval", 0, "--logdir", work / "logs"]
    common = ["--data_config", data, "--device", args.device]
    stages.run(f"{cut}-tuned", "train.py", *words, *common)
    judged = ["--model_def", work / f"{cut}.cfg", "--weights_path", out, "--conf_thres", args.conf_thres]
    return stages.run(f"{cut}-tested", "test.py", *judged, *common)["map50"]


def outputs(work: Path, name: str) -> list:
    """Where a stage writes its network."""
    return ["--cfg_out", work / f"{name}.cfg", "--model_out", work / f"{name}.pth"]


def sizes(result: dict) -> dict:
    return {"params": result["params_after"], "macs": result["macs_after"]}


def row(r: dict) -> list[str]:
    cells = [f"{r[key]:.4f}" if key in r else "" for key in ("cut", *REPAIRS, "finetuned")]
    name = r["score"] if r["fold"] == "exact" else f"{r['score']}, {r['fold']}"
    return [f"{r['share']:.0%}", name, *cells]


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
