"""Coverage-guided fuzzing of everything that reads a file: cfg, weights, checkpoints, packed networks,
`.data`, lists, labels, MATLAB, VOC, COCO, data.yaml, recipes.

    make fuzz                                               # ten minutes each
    python benchmarks/fuzz.py --seconds 60 --targets cfg mat --json docs/results/fuzz.json

It needs atheris (requirements-fuzz.txt). An escape is any exception but our own, more than 2 seconds,
or more than 1 GB beyond what the libraries take. Inputs that were found lie in runs/fuzz/TARGET, those that
escaped in its folder `escapes`.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [
    str(Path(__file__).resolve().parent.parent),
    str(Path(__file__).resolve().parent.parent / "tests"),
]
ROOT = Path(__file__).resolve().parent.parent
CFG = """[net]
width=32
height=32
channels=3

[convolutional]
batch_normalize=1
filters=6
size=3
stride=4
pad=1
activation=leaky

[shortcut]
from=-1
activation=linear

[route]
layers=-1,-2

[convolutional]
filters=7
size=1
stride=1
activation=linear

[yolo]
mask=0
anchors=9,9
num=1
classes=2
"""
VOC = """<annotation><size><width>40</width><height>30</height></size>
<object><name>a</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>20</xmax><ymax>15</ymax></bndbox></object></annotation>"""
MOST_ESCAPES = 20


def targets() -> dict[str, tuple[Callable[[Path], object], list[bytes]]]:
    """Name -> (what reads a file, files to start from)."""
    import torch
    from scipy.io import savemat

    from darkslim.compression.sharing import share
    from darkslim.data import coco_json, datafile, labels, listing, oxford, voc, yolo_folder
    from darkslim.network import packed
    from darkslim.network.cfg import parse_cfg
    from darkslim.network.checkpoints import load_checkpoint
    from darkslim.network.darknet import Darknet
    from darkslim.network.graph import Graph
    from darkslim.network.weights import load_weights, weights_bytes
    from darkslim.pipelines.recipes import read_recipe
    from darkslim.pipelines.slim_settings import SlimSettings

    torch.set_num_threads(1)
    model = Darknet(parse_cfg(CFG, "net.cfg"))
    archive, mat = io.BytesIO(), io.BytesIO()
    torch.save({"model": model.state_dict(), "cfg": CFG, "extra": {"epoch": 1}}, archive)
    savemat(mat, {"boxes": [[{n: [[1.0, 2.0]] for n in "abcd"}]]})
    coco = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}],
        "categories": [{"id": 1, "name": "a"}],
    }
    kernels = {layer: share(conv.weight.detach().numpy(), 3) for layer, conv in model.convolutions().items()}
    with torch.no_grad():
        for layer, conv in model.convolutions().items():
            conv.weight.copy_(torch.from_numpy(kernels[layer].weights()))
    packs = [packed.packed_bytes(model, kernels, coder)[0] for coder in ("ans", "huffman")]

    def read_packed(path: Path) -> None:
        path.write_bytes(with_checksums(path.read_bytes(), packed))
        load_weights(model, path)

    return {
        "packed": (read_packed, packs),
        "cfg": (lambda path: Graph(parse_cfg(path.read_bytes(), "net.cfg")), [CFG.encode()]),
        "weights": (lambda path: load_weights(model, path), [weights_bytes(model)]),
        "pth": (lambda path: load_checkpoint(path, model), [archive.getvalue()]),
        "data": (datafile.read_data, [b"classes=2\ntrain=a.txt\nvalid=b.txt\nbackup=c\n"]),
        "list": (listing.read_list, [b"images/a.jpg\nimages\\b.png\n"]),
        "labels": (lambda path: labels.read_labels(path, 3), [b"0 0.5 0.5 0.25 0.25\n2 .1 .1 .2 .2\n"]),
        "mat": (oxford.read_mat, [mat.getvalue()]),
        "voc": (voc.read_objects, [VOC.encode()]),
        "coco": (coco_json.read_json, [json.dumps(coco).encode()]),
        "yaml": (yolo_folder.read_yaml, [b"train: a/images\nval: b/images\nnc: 2\nnames: [a, b]\n"]),
        "recipe": (
            lambda path: read_recipe(str(path), SlimSettings),
            [b"[slim]\nscore = taylor\niterative_steps = 8\n"],
        ),
    }


def with_checksums(data: bytes, packed) -> bytes:
    """A packed file with lengths and checksums put right, so that fuzzing gets behind them."""
    head, row, at = packed.HEAD, packed.TENSOR, packed.HEAD.size
    if len(data) < at + packed.CFG.size:
        return data
    length = min(head.unpack_from(data)[3], len(data) - at)
    if length < packed.CFG.size:
        return data
    header = bytearray(data[at : at + length])
    _, _, pressed, tensors = packed.CFG.unpack_from(header)
    place = at + length
    for i in range(min(tensors, 100)):
        first = packed.CFG.size + pressed + i * row.size
        if first + row.size > length:
            break
        fields = row.unpack_from(header, first)
        part = data[place : place + fields[7]]
        row.pack_into(header, first, *fields[:7], len(part), zlib.crc32(part))
        place += len(part)
    start = head.pack(packed.MAGIC, packed.VERSION, 0, length, len(data), zlib.crc32(bytes(header)))
    return start + bytes(header) + data[at + length :]


def fuzz(name: str, folder: Path, seconds: int) -> None:
    """Fuzzes one target in this process; ends it."""
    import atheris

    with atheris.instrument_imports(include=["darkslim"]):
        from darkslim.base.errors import DarkslimError
    with atheris.instrument_imports(include=["darkslim"]):
        read, seeds = targets()[name]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "escapes").mkdir(exist_ok=True)
    for number, seed in enumerate(seeds):
        (folder / f"seed{number}").write_bytes(seed)
    ends = {"yaml": ".yaml", "recipe": ".ini"}
    path = Path(tempfile.mkdtemp()) / f"input{ends.get(name, '')}"
    warnings.simplefilter("ignore")

    def one(data: bytes) -> None:
        path.write_bytes(data)
        try:
            read(path)
        except DarkslimError:
            pass

    limits = ["-timeout=2", "-rss_limit_mb=1536", f"-max_total_time={seconds}", "-print_final_stats=1"]
    more = [f"-artifact_prefix={folder}/escapes/", "-max_len=8192", str(folder)]
    atheris.Setup(["fuzz", *limits, *more], one)
    atheris.Fuzz()


def parser():
    from darkslim import commands

    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--seconds", type=commands.count(1), default=600, help="for each target")
    p.add_argument("--targets", nargs="+", default=None, help="some of them; none: all")
    p.add_argument("--work", default="runs/fuzz", help="folder of the inputs that were found")
    p.add_argument("--one", default=None, help="fuzz this target in this process")
    return p


def main(args) -> dict:
    if args.one:
        fuzz(args.one, ROOT / args.work / args.one, args.seconds)
    names = args.targets or list(targets())
    rows = [target(args, name) for name in names]
    return {"rows": rows, "escapes": sum(len(row["escapes"]) for row in rows)}


def target(args, name: str) -> dict:
    """Fuzzes one target in processes of its own, until its time is over."""
    began, executions, escapes = time.time(), 0, []
    while (left := args.seconds - (time.time() - began)) > 1 and len(escapes) < MOST_ESCAPES:
        words = [__file__, "--one", name, "--seconds", str(int(left)), "--work", args.work]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, errors="replace", env=env
        )
        found = re.search(r"stat::number_of_executed_units:\s+(\d+)", done.stderr)
        executions += int(found[1]) if found else 0
        if done.returncode:
            lines = [
                x.strip()
                for x in done.stderr.splitlines()
                if re.match(r"\s*(\w+\.)*\w*(Error|Exception)\b", x)
            ]
            kind = re.search(r"ERROR: libFuzzer: (.*)", done.stderr)
            where = re.search(r"Test unit written to (\S+)", done.stderr)
            escapes.append(
                {
                    "what": (lines or [kind[1] if kind else f"exit {done.returncode} without a word"])[-1][
                        :200
                    ],
                    "input": Path(where[1]).name if where else None,
                }
            )
            print(f"{name}: ESCAPE {escapes[-1]}", flush=True)
    print(
        f"{name}: {executions:,} executions, {time.time() - began:.0f} s, {len(escapes)} escapes", flush=True
    )
    return {
        "target": name,
        "seconds": round(time.time() - began),
        "executions": executions,
        "escapes": escapes,
    }


if __name__ == "__main__":
    from darkslim import commands

    raise SystemExit(commands.run(main, parser()))
