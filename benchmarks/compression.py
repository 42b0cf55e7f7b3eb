"""What unstructured sparsity, surgery and deep compression do to a trained network: bytes and mAP.

    python benchmarks/compression.py --published ../shared/data --conf_thres 0.005 \
        --work runs/compression_pub --json docs/results/compression_published.json
    python benchmarks/compression.py --epochs 4 --deep_epochs 16 --bits 8 6 5 4 3 \
        --work runs/compression_bccd --json docs/results/compression_bccd.json \
        --slim runs/deployed/slim_0.15.cfg runs/deployed/slim_0.15.pth

Each row is a run of compress.py as a user would type it, measured on `valid`, which chooses nothing. With
--epochs the sparse networks are also trained, gradually and by surgery. --published takes
yolo-fastest-1.1-xl, trained by others, and the 256 pictures of COCO beside it. A stage that was run is not
run again.
"""

from __future__ import annotations

import statistics
from pathlib import Path

from published import data_file
from stages import ROOT, Stages

from darkslim import commands
from darkslim.report.tables import right


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--model_def", default="config/yolov3-tiny-bccd.cfg", help="the network")
    p.add_argument(
        "--weights", nargs="+", default=["runs/bccd/dense.pth"], help="its weights; several: seeds 0, 1, ..."
    )
    p.add_argument("--data_config", default="config/bccd.data", help="its data set")
    p.add_argument("--published", help="folder of published/ and coco256/, in place of these three")
    p.add_argument("--name", default="yolo-fastest-1.1-xl", help="of the published detector")
    p.add_argument("--conf_thres", type=float, default=0.01, help="least objectness of a detection")
    p.add_argument("--work", default="runs/compression", help="folder of the stages")
    p.add_argument("--ratios", type=float, nargs="+", default=[0.3, 0.6, 0.9], help="shares of zeros")
    p.add_argument("--bits", type=int, nargs="+", default=[8, 6, 5, 4], help="of a code")
    p.add_argument("--batches", type=commands.count(0), default=8, help="of training pictures to solve on")
    p.add_argument("--epochs", type=commands.count(0), default=0, help="of each training; 0: none")
    p.add_argument(
        "--deep_epochs", type=commands.count(1), help="of surgery and of the largest share; none: as --epochs"
    )
    p.add_argument("--share_epochs", type=commands.count(0), default=0, help="that train shared values")
    p.add_argument("--rate", type=float, default=0.002, help="learning rate of every training")
    p.add_argument(
        "--slim",
        nargs=2,
        metavar=("CFG", "WEIGHTS"),
        help="a cut of it, to be packed as well; {seed} stands for the seed",
    )
    p.add_argument("--collect", action="store_true", help="only tell what was run; run nothing")
    p.add_argument("--batch_size", type=commands.count(1), default=8, help="images a step of training")
    return p


def main(args) -> dict:
    work = Path(args.work)
    cfg, data, networks = Path(args.model_def), Path(args.data_config), list(map(Path, args.weights))
    if args.published:
        folder = Path(args.published)
        cfg, weights = (folder / "published" / f"{args.name}{end}" for end in (".cfg", ".weights"))
        data, networks = data_file((folder / "coco256").resolve(), ROOT / work).relative_to(ROOT), [weights]
    found = []
    for seed, weights in enumerate(networks, args.seed):
        part = work if len(networks) == 1 else work / f"seed{seed}"
        found.append(one(args, part, seed, cfg, weights, data))
    names = [row["name"] for row in found[0][0]]
    rows = [mean([row for rows, _ in found for row in rows if row["name"] == name]) for name in names]
    head = ["", "zeros", "bytes", "smaller", "mAP50 before", "after", "+-"]
    print(right([head, *(cells(row, rows[0]["bytes_before"]) for row in rows)]))
    return {
        "network": cfg.name,
        "dense": rows[0]["map50_before"],
        "bytes": rows[0]["bytes_before"],
        "epochs": args.epochs,
        "deep_epochs": args.deep_epochs or args.epochs,
        "pictures": args.batches * 16,
        "seeds": len(found),
        "rows": rows,
        "all": [rows for rows, _ in found],
        "commands": found[0][1].commands,
        "sources": [stages.sources for _, stages in found],
    }


def mean(rows: list[dict]) -> dict:
    """One row of those of all seeds: means, and half of the range of mAP50 after it."""
    scores = [row["map50_after"] for row in rows]
    keys = ("zeros", "bytes_before", "bytes_after", "entropy", "map50_before", "map50_after", "seconds")
    means = {key: statistics.mean(row[key] for row in rows) for key in keys if key in rows[0]}
    return {"name": rows[0]["name"], **means, "map50_spread": (max(scores) - min(scores)) / 2}


def one(args, work: Path, seed: int, cfg: Path, weights: Path, data: Path) -> tuple[list[dict], Stages]:
    """All stages of one network; (a row each, what was run)."""
    stages = Stages(ROOT / work, seed)
    repair = ["--reconstruct", args.batches]
    common = ["--data_config", data, "--device", args.device, "--conf_thres", args.conf_thres]
    rows = []

    def thin(name: str, job: str, *words, cfg=cfg, weights=weights) -> Path:
        out, net = work / f"{name}.pth", ["--model_def", cfg, "--weights", weights]
        if args.collect and not (ROOT / work / f"{name}.json").exists():
            return out
        found = stages.run(name, "compress.py", job, *net, *common, "--out", out, *words)
        keys = ("zeros", "bytes_before", "bytes_after", "map50_before", "map50_after", "seconds")
        rows.append({"name": name, **{key: found[key] for key in keys}})
        print(*cells(rows[-1], rows[0]["bytes_before"]), flush=True)
        return out

    def pack(name: str, source: Path, *words, cfg=cfg, again=True) -> None:
        """As it is, and with values chosen again where `again`."""
        out, net = work / f"{name}.packed", ["--model_def", cfg, "--weights", source]
        if args.collect and not (ROOT / work / f"{name}.json").exists():
            return
        found = stages.run(name, "compress.py", "pack", *net, *common, "--out", out, *words)
        keys = ("zeros", "bytes_before", "bytes_after", "entropy", "stages", "map50_before", "map50_after")
        rows.append({"name": name, **{key: found[key] for key in (*keys, "seconds")}})
        print(*cells(rows[-1], rows[0]["bytes_before"]), flush=True)
        if again and args.batches:
            pack(f"{name}, solved", source, *words, *repair, cfg=cfg, again=False)

    rates = ["-lr", args.rate, "--batch_size", args.batch_size, "--logdir", work / "logs"]
    deepest = max(args.ratios)
    lasts = dict.fromkeys(args.ratios, args.epochs) | {deepest: args.deep_epochs or args.epochs}

    def sparsified(name: str, ratio: float, **of) -> Path:
        """Zeros as they are, trained, and with the rest solved again; the weights of the last of these."""
        words, training = ("--ratio", ratio), ("--epochs", lasts[ratio], *rates)
        out = thin(name, "sparsify", *words, **of)
        if args.epochs:
            out = thin(f"{name}, trained", "sparsify", *words, *training, **of)
        if args.batches:
            out = thin(f"{name}, solved", "sparsify", *words, *repair, **of)
        if args.epochs and args.batches and ratio == deepest:
            half = ("--epochs", -(-lasts[ratio] // 2), *rates)
            out = thin(f"{name}, solved, half as long trained", "sparsify", *words, *repair, *half, **of)
        return out

    sparse = {ratio: sparsified(f"zeros {ratio:.0%}", ratio) for ratio in args.ratios}
    thin("2 of 4", "sparsify", "--pattern", "2:4")
    if args.batches:
        thin("2 of 4, solved", "sparsify", "--pattern", "2:4", *repair)
    if args.epochs:
        cuts, last = ("--ratio", deepest), lasts[deepest]
        thin("surgery", "surgery", *cuts, "--epochs", last, *rates)
        if args.batches:
            half = ("--epochs", -(-last // 2), *rates)
            thin("surgery, solved before, half as long", "surgery", *cuts, *repair, *half)
    for bits in args.bits:
        pack(f"{bits} bits", weights, "--bits", bits)
        if args.share_epochs:
            words = ("--bits", bits, "--epochs", args.share_epochs, *rates)
            pack(f"{bits} bits, trained", weights, *words, again=False)
    pack("5 bits, Huffman", weights, "--bits", 5, "--coder", "huffman", again=False)
    for ratio, source in sparse.items():
        pack(f"zeros {ratio:.0%}, 5 bits", source, "--bits", 5)
    solved = f"zeros {deepest:.0%}, solved"  # and not trained
    if args.epochs and args.batches:
        pack(f"{solved}, 5 bits", work / f"{solved}.pth", "--bits", 5)
    if args.slim:
        cut = {key: Path(v.format(seed=seed)) for key, v in zip(("cfg", "weights"), args.slim, strict=True)}
        for bits in args.bits:
            pack(f"slim, {bits} bits", cut["weights"], "--bits", bits, cfg=cut["cfg"])
        for ratio in args.ratios:
            name = f"slim, zeros {ratio:.0%}"
            source = sparsified(name, ratio, **cut)
            for bits in (5, 4):
                pack(f"{name}, {bits} bits", source, "--bits", bits, cfg=cut["cfg"])
        if args.epochs and args.batches:
            pack(f"slim, {solved}, 5 bits", work / f"slim, {solved}.pth", "--bits", 5, cfg=cut["cfg"])
    return rows, stages


def cells(row: dict, bytes_of_dense: int) -> list[str]:
    return [
        row["name"],
        f"{row['zeros']:.1%}",
        f"{row['bytes_after']:,.0f}",
        f"{bytes_of_dense / row['bytes_after']:.1f}x",
        f"{row['map50_before']:.4f}",
        f"{row['map50_after']:.4f}",
        f"{row.get('map50_spread', 0):.4f}",
    ]


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
