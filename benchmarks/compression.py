"""What unstructured sparsity, surgery and deep compression do to a trained network: bytes and mAP.

    python benchmarks/compression.py --published ../shared/data --conf_thres 0.005 \
        --work runs/compression_pub --json docs/results/compression_published.json
    python benchmarks/compression.py --weights runs/bccd/dense.pth --epochs 30 \
        --json docs/results/compression_bccd.json

Each row is a run of compress.py as a user would type it, measured on `valid`, which chooses nothing. With
--epochs the sparse networks are also trained, gradually and by surgery. --published takes
yolo-fastest-1.1-xl, trained by others, and the 256 pictures of COCO beside it. A stage that was run is not
run again.
"""

from __future__ import annotations

from pathlib import Path

from published import data_file
from stages import ROOT, Stages

from darkslim import commands
from darkslim.report.tables import right


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--model_def", default="config/yolov3-tiny-bccd.cfg", help="the network")
    p.add_argument("--weights", default="runs/bccd/dense.pth", help="its weights")
    p.add_argument("--data_config", default="config/bccd.data", help="its data set")
    p.add_argument("--published", help="folder of published/ and coco256/, in place of these three")
    p.add_argument("--name", default="yolo-fastest-1.1-xl", help="of the published detector")
    p.add_argument("--conf_thres", type=float, default=0.01, help="least objectness of a detection")
    p.add_argument("--work", default="runs/compression", help="folder of the stages")
    p.add_argument("--ratios", type=float, nargs="+", default=[0.3, 0.6, 0.9], help="shares of zeros")
    p.add_argument("--bits", type=int, nargs="+", default=[8, 6, 5, 4], help="of a code")
    p.add_argument("--batches", type=commands.count(0), default=8, help="of training pictures to solve on")
    p.add_argument("--epochs", type=commands.count(0), default=0, help="of each training; 0: none")
    p.add_argument("--rate", type=float, default=0.002, help="learning rate of every training")
    p.add_argument("--batch_size", type=commands.count(1), default=8, help="images a step of training")
    return p


def main(args) -> dict:
    work = Path(args.work)
    stages = Stages(ROOT / work, args.seed)
    cfg, weights, data = Path(args.model_def), Path(args.weights), Path(args.data_config)
    if args.published:
        folder = Path(args.published)
        cfg, weights = (folder / "published" / f"{args.name}{end}" for end in (".cfg", ".weights"))
        data = data_file((folder / "coco256").resolve(), ROOT / work).relative_to(ROOT)
    common = ["--model_def", cfg, "--data_config", data, "--device", args.device]
    common += ["--conf_thres", args.conf_thres]
    rows = []

    def thin(name: str, job: str, *words) -> Path:
        out = work / f"{name}.pth"
        found = stages.run(name, "compress.py", job, *common, "--weights", weights, "--out", out, *words)
        keys = ("zeros", "bytes_before", "bytes_after", "map50_before", "map50_after", "seconds")
        rows.append({"name": name, **{key: found[key] for key in keys}})
        print(*cells(rows[-1]), flush=True)
        return out

    def pack(name: str, source: Path, *words) -> None:
        out = work / f"{name}.packed"
        found = stages.run(name, "compress.py", "pack", *common, "--weights", source, "--out", out, *words)
        keys = ("zeros", "bytes_before", "bytes_after", "entropy", "stages", "map50_before", "map50_after")
        rows.append({"name": name, **{key: found[key] for key in (*keys, "seconds")}})
        print(*cells(rows[-1]), flush=True)

    training = ["--epochs", args.epochs, "-lr", args.rate, "--batch_size", args.batch_size]
    training += ["--logdir", work / "logs"]
    repair = ["--reconstruct", args.batches]
    sparse = {}
    for ratio in args.ratios:
        thin(f"zeros {ratio:.0%}", "sparsify", "--ratio", ratio)
        if args.batches:
            sparse[ratio] = thin(f"zeros {ratio:.0%}, solved", "sparsify", "--ratio", ratio, *repair)
        if args.epochs:
            sparse[ratio] = thin(f"zeros {ratio:.0%}, trained", "sparsify", "--ratio", ratio, *training)
    thin("2 of 4", "sparsify", "--pattern", "2:4")
    if args.batches:
        thin("2 of 4, solved", "sparsify", "--pattern", "2:4", *repair)
    if args.epochs:
        thin("surgery", "surgery", "--ratio", max(args.ratios), *training)
    for bits in args.bits:
        pack(f"{bits} bits", weights, "--bits", bits)
    pack("5 bits, Huffman", weights, "--bits", 5, "--coder", "huffman")
    for ratio, source in sparse.items():
        pack(f"zeros {ratio:.0%}, 5 bits", source, "--bits", 5)
    head = ["", "zeros", "bytes", "smaller", "mAP50 before", "after"]
    print(right([head, *(cells(row) for row in rows)]))
    return {
        "network": cfg.name,
        "dense": rows[0]["map50_before"],
        "bytes": rows[0]["bytes_before"],
        "epochs": args.epochs,
        "pictures": args.batches * 16,
        "rows": rows,
        "commands": stages.commands,
    }


def cells(row: dict) -> list[str]:
    return [
        row["name"],
        f"{row['zeros']:.1%}",
        f"{row['bytes_after']:,}",
        f"{row['bytes_before'] / row['bytes_after']:.1f}x",
        f"{row['map50_before']:.4f}",
        f"{row['map50_after']:.4f}",
    ]


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
