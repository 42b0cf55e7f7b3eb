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
        found.append(Network(args, part, seed, cfg, weights, data))
    every = [network.rows() for network in found]
    names = [row["name"] for row in every[0]]
    rows = [mean([row for rows in every for row in rows if row["name"] == name]) for name in names]
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
        "all": every,
        "commands": found[0].stages.commands,
        "sources": [network.stages.sources for network in found],
    }


def mean(rows: list[dict]) -> dict:
    """One row of those of all seeds: means, and half of the range of mAP50 after it."""
    scores = [row["map50_after"] for row in rows]
    keys = ("zeros", "bytes_before", "bytes_after", "entropy", "map50_before", "map50_after", "seconds")
    means = {key: statistics.mean(row[key] for row in rows) for key in keys if key in rows[0]}
    return {"name": rows[0]["name"], **means, "map50_spread": (max(scores) - min(scores)) / 2}


class Network:
    """All stages of one network, in the order in which they need each other.

    Args:
        work: folder of its stages. cut: its slim form (cfg, weights), to be packed as well; None: none.
    """

    def __init__(self, args, work: Path, seed: int, cfg: Path, weights: Path, data: Path):
        self.args, self.work, self.whole = args, work, (cfg, weights)
        self.stages = Stages(ROOT / work, seed)
        self.cut = tuple(Path(name.format(seed=seed)) for name in args.slim) if args.slim else None
        self.deepest = max(args.ratios)
        self.lasts = dict.fromkeys(args.ratios, args.epochs)
        self.lasts[self.deepest] = args.deep_epochs or args.epochs
        self.common = ["--data_config", data, "--device", args.device, "--conf_thres", args.conf_thres]
        self.repair = ["--reconstruct", args.batches]
        self.rates = ["-lr", args.rate, "--batch_size", args.batch_size, "--logdir", work / "logs"]
        self.found: list[dict] = []

    def rows(self) -> list[dict]:
        a, cfg = self.args, self.whole[0]
        sparse = {ratio: self._sparsified(f"zeros {ratio:.0%}", ratio, self.whole) for ratio in a.ratios}
        self._thin("2 of 4", "sparsify", self.whole, "--pattern", "2:4")
        if a.batches:
            self._thin("2 of 4, solved", "sparsify", self.whole, "--pattern", "2:4", *self.repair)
        if a.epochs:
            self._surgery()
        for bits in a.bits:
            self._pack(f"{bits} bits", self.whole, "--bits", bits)
            if a.share_epochs:
                words = ("--bits", bits, "--epochs", a.share_epochs, *self.rates)
                self._pack(f"{bits} bits, trained", self.whole, *words, again=False)
        self._pack("5 bits, Huffman", self.whole, "--bits", 5, "--coder", "huffman", again=False)
        for ratio, source in sparse.items():
            self._pack(f"zeros {ratio:.0%}, 5 bits", (cfg, source), "--bits", 5)
        self._pack_solved("", cfg)
        if self.cut:
            self._pack_cut()
        return self.found

    def _surgery(self) -> None:
        cuts, last = ("--ratio", self.deepest), self.lasts[self.deepest]
        self._thin("surgery", "surgery", self.whole, *cuts, "--epochs", last, *self.rates)
        if self.found[-1]["name"] == "surgery":
            same = ("--ratio", f"{self.found[-1]['zeros']:.4f}", "--epochs", last, *self.rates)
            self._thin("as many zeros as surgery, trained", "sparsify", self.whole, *same)
        if self.args.batches:
            half = ("--epochs", -(-last // 2), *self.rates)
            self._thin(
                "surgery, solved before, half as long", "surgery", self.whole, *cuts, *self.repair, *half
            )

    def _pack_cut(self) -> None:
        """The slim network, packed as it is and behind zeros."""
        a, cfg = self.args, self.cut[0]
        for bits in a.bits:
            self._pack(f"slim, {bits} bits", self.cut, "--bits", bits)
        for ratio in a.ratios:
            name = f"slim, zeros {ratio:.0%}"
            source = self._sparsified(name, ratio, self.cut)
            for bits in (5, 4):
                self._pack(f"{name}, {bits} bits", (cfg, source), "--bits", bits)
        self._pack_solved("slim, ", cfg)

    def _pack_solved(self, of: str, cfg: Path) -> None:
        """The most zeros, solved and not trained."""
        if self.args.epochs and self.args.batches:
            solved = f"{of}zeros {self.deepest:.0%}, solved"
            self._pack(f"{solved}, 5 bits", (cfg, self.work / f"{solved}.pth"), "--bits", 5)

    def _sparsified(self, name: str, ratio: float, of: tuple[Path, Path]) -> Path:
        """Zeros as they are, trained, and with the rest solved again; the weights of the last of these."""
        a, words, last = self.args, ("--ratio", ratio), self.lasts[ratio]
        out = self._thin(name, "sparsify", of, *words)
        if a.epochs:
            out = self._thin(f"{name}, trained", "sparsify", of, *words, "--epochs", last, *self.rates)
        if a.batches:
            out = self._thin(f"{name}, solved", "sparsify", of, *words, *self.repair)
        if a.epochs and a.batches and ratio == self.deepest:
            half = ("--epochs", -(-last // 2), *self.rates)
            name = f"{name}, solved, half as long trained"
            out = self._thin(name, "sparsify", of, *words, *self.repair, *half)
        return out

    def _thin(self, name: str, job: str, of: tuple[Path, Path], *words) -> Path:
        """Runs sparsify or surgery; the weights that it writes."""
        out = self.work / f"{name}.pth"
        self._run(name, job, of, out, *words)
        return out

    def _pack(self, name: str, of: tuple[Path, Path], *words, again: bool = True) -> None:
        """As it is, and with values chosen again where `again`."""
        if self._run(name, "pack", of, self.work / f"{name}.packed", *words) and again and self.args.batches:
            self._pack(f"{name}, solved", of, *words, *self.repair, again=False)

    def _run(self, name: str, job: str, of: tuple[Path, Path], out: Path, *words) -> bool:
        """Runs a stage and adds its row; not with --collect, where it was not run before."""
        if self.args.collect and not (ROOT / self.work / f"{name}.json").exists():
            return False
        net = ["--model_def", of[0], "--weights", of[1]]
        found = self.stages.run(name, "compress.py", job, *net, *self.common, "--out", out, *words)
        keys = ("zeros", "bytes_before", "bytes_after", "entropy", "stages", "map50_before", "map50_after")
        self.found.append({"name": name, **{k: found[k] for k in (*keys, "seconds") if k in found}})
        print(*cells(self.found[-1], self.found[0]["bytes_before"]), flush=True)
        return True


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
