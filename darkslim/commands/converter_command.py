"""Turns an annotated data set into Darknet's: images, labels, lists, names and a `.data` file.

python converter.py                          data/hand_dataset (the Oxford hand data set) -> data/
python converter.py --download               fetches the official archive first
python converter.py --generate 1000          draws that many pictures of hands first, in the same layout
python converter.py --format yolo --input my_export --output data/mine
python converter.py --format voc --input VOC2007 --output data/voc
python converter.py --anchors 6 --model_def config/yolov3-tiny-hand.cfg
python converter.py --format darknet --input data/mine/mine.data --anchors 6
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path

from ..base import files
from ..base.errors import RequestError
from ..data import anchors, coco_json, convert, darknet_folder, download, oxford, split, voc, yolo_folder
from ..data.datafile import read_data, read_names
from ..data.limits import MAX_PIXELS
from ..network import cfg_classes, schema
from ..network.cfg import read_cfg, write_cfg
from ..network.cfg_plain import plain
from ..network.graph import Graph
from ..report import conversion
from . import console, flags

FORMATS = {
    "oxford": oxford.read_oxford,
    "voc": voc.read_voc,
    "coco": coco_json.read_coco,
    "yolo": yolo_folder.read_yolo,
    "darknet": darknet_folder.read_darknet,
}


def parser() -> argparse.ArgumentParser:
    p = flags.parser(__doc__.split("\n")[0])
    p.add_argument(
        "--format",
        choices=tuple(FORMATS),
        default="oxford",
        help="layout of the input; darknet: what is in Darknet's form already, for --anchors and --cfg_out",
    )
    p.add_argument(
        "--input",
        metavar="DIR",
        help="folder of the data set; also one .json file (coco), .yaml (yolo) or .data (darknet); "
        "oxford: data/hand_dataset",
    )
    p.add_argument(
        "--output",
        metavar="DIR",
        help="where images, labels and lists go (oxford: data; others: data/NAME of the input)",
    )
    p.add_argument(
        "--names",
        metavar="FILE",
        help="a .names or .data file with the classes to keep; without it all that occur",
    )
    p.add_argument(
        "--download", action="store_true", help="fetch the official Oxford archive to the input folder first"
    )
    p.add_argument("--url", default=download.OXFORD, help="where --download fetches from")
    p.add_argument(
        "--sha256",
        metavar="HEX",
        help="checksum that the archive must have; without it, that of the first download",
    )
    p.add_argument(
        "--generate",
        metavar="N",
        type=flags.count(3, 1_000_000),
        help="draw N pictures of hands to the input folder first",
    )
    p.add_argument(
        "--anchors", metavar="K", type=flags.count(1, 1000), help="find K anchors for the training boxes"
    )
    p.add_argument(
        "--model_def",
        metavar="CFG",
        help="the cfg whose input size --anchors is for, and of which --cfg_out is made",
    )
    p.add_argument(
        "--cfg_out",
        metavar="CFG",
        help="write --model_def with the classes of these data, and the anchors of --anchors, to this file",
    )
    p.add_argument(
        "--width", type=flags.count(1, 65536), help="input width for --anchors, instead of the cfg's (416)"
    )
    p.add_argument(
        "--height", type=flags.count(1, 65536), help="input height for --anchors, instead of the cfg's (416)"
    )
    p.add_argument(
        "--skip_broken", action="store_true", help="leave out files that cannot be read, instead of stopping"
    )
    p.add_argument(
        "--max_pixels",
        type=flags.count(1, 1 << 34),
        default=MAX_PIXELS,
        help="pixels from which on a picture is refused as a trap for memory",
    )
    p.add_argument(
        "--split",
        metavar="SHARE",
        type=flags.fraction(0.001, 0.999),
        help="share of the pictures to validate on, drawn by --seed, where the data set has no lists (0.2)",
    )
    p.add_argument(
        "--keep_difficult", action="store_true", help="voc: keep objects that are marked difficult"
    )
    p.add_argument(
        "--link", action="store_true", help="hard-link images to the input instead of copying them"
    )
    return p


def main(args: argparse.Namespace) -> dict:
    source, output, name = _paths(args)
    base = _base_cfg(args)
    names, names_path = _names(args.names)
    size = _network_size(args, base)
    if args.generate:
        generate(source, args.generate, args.seed)
    elif args.download:
        fetch(source, args.url, args.sha256)
    plan = _read(args, source, names)
    letterbox = base is not None and bool(schema.values(base.net)["letter_box"])
    found = (
        anchors.find_anchors(plan.sizes(plan.train, size, letterbox), args.anchors, args.seed)
        if args.anchors
        else None
    )
    cfg = _for_data(base, args, len(plan.names), found)
    if args.format == "darknet":
        written = {"data": str(source)}
    else:
        written = convert.write(plan, output, name, names_path, args.link, console.progress)
    result = conversion.summary(plan, written)
    print(conversion.text(plan, result))
    if found:
        result["anchors"] = {
            "sizes": found.sizes,
            "mean_iou": found.mean_iou,
            "width": size[1],
            "height": size[0],
            "line": found.line,
        }
        print(
            f"{args.anchors} anchors for {size[1]} x {size[0]}, mean IoU {found.mean_iou:.4f}:\n{found.line}"
        )
    if cfg is not None:
        write_cfg(cfg, args.cfg_out)
        result["cfg"] = args.cfg_out
        data = result["written"]["data"]
        print(f"train: python train.py --model_def {args.cfg_out} --data_config {data}")
    return result


def _base_cfg(args):
    """The Cfg of --model_def, and whether --cfg_out can be written, before any work."""
    if args.cfg_out is not None and args.model_def is None:
        raise RequestError("--cfg_out", "has no cfg to start from", remedy="give --model_def too")
    files.check_outputs(
        {"--cfg_out": args.cfg_out, "--json": args.json},
        {"--model_def": args.model_def, "--names": args.names},
    )
    flags.check_json(args.json)
    return None if args.model_def is None else read_cfg(args.model_def)


def _for_data(base, args, classes: int, found):
    """What --cfg_out will hold; built as a graph, so that what is written works."""
    if args.cfg_out is None:
        return None
    cfg = cfg_classes.for_data(base, classes, None if found is None else found.sizes)
    cfg.path = args.cfg_out
    Graph(cfg)
    return plain(cfg)


def _paths(args) -> tuple[Path, Path, str]:
    """The input, the output, and the name of the `.data` file."""
    if args.format != "oxford":
        for flag in ("download", "generate"):
            if getattr(args, flag):
                raise RequestError(
                    f"--{flag}", f"makes the Oxford layout, not {args.format}", "--format oxford"
                )
        if args.input is None:
            raise RequestError("--input", "is missing", f"the folder of the {args.format} data set")
    if args.download and args.generate:
        raise RequestError("--download", "and --generate were both asked for", "one of them")
    source = Path(args.input or "data/hand_dataset")
    default = (
        "data"
        if args.format == "oxford"
        else f"data/{source.stem if source.suffix == '.json' else source.resolve().name}"
    )
    output = Path(args.output or default)
    if output.exists() and not output.is_dir():
        raise RequestError("--output", f"{output} is a file", "a folder")
    name = "oxfordhand" if args.format == "oxford" else output.resolve().name
    return source, output, name


def _names(path: str | None) -> tuple[list[str] | None, Path | None]:
    if path is None:
        return None, None
    if path.endswith(".data"):
        config = read_data(path)
        return config.names, config.names_path
    return read_names(path), Path(path)


def _network_size(args, base) -> tuple[int, int]:
    """(height, width) that the anchors are for."""
    for flag in ("model_def", "width", "height"):
        if getattr(args, flag) and not args.anchors and not (flag == "model_def" and args.cfg_out):
            raise RequestError(f"--{flag}", "only matters for --anchors K")
    height, width = (416, 416) if base is None else (base.height, base.width)
    return args.height or height, args.width or width


def _read(args, source: Path, names: list[str] | None) -> convert.Plan:
    """The plan, with lists to train and to validate on, and warnings about what looks wrong in it."""
    common = {"names": names, "skip_broken": args.skip_broken, "max_pixels": args.max_pixels}
    if args.format == "voc":
        common["keep_difficult"] = args.keep_difficult
    plan = FORMATS[args.format](source, progress=console.progress, **common)
    said = split.hold_out(plan, args.split, args.seed)
    if said is None and args.split is not None:
        raise RequestError(
            "--split", f"{source} has lists of its own: {', '.join(plan.lists)}", remedy="leave it out"
        )
    if said is not None:
        print(said)
    split.warn_case(plan.names)
    split.warn_shared(plan)
    return plan


def fetch(folder: Path, url: str, sha256: str | None) -> None:
    """The official archive, fetched beside `folder` and unpacked to it; nothing where `folder` is there
    already.
    """
    if folder.exists():
        print(f"{folder} is there already; nothing was fetched")
        return
    archive = folder.with_name("hand_dataset.tar.gz")
    digest = download.download(url, archive, sha256, lambda **kwargs: console.progress(**kwargs))
    _, left_out = download.unpack(archive, folder, progress=console.progress)
    print(
        f"{archive}: SHA-256 {digest}, unpacked to {folder}"
        + (f" without {left_out} links or devices" if left_out else "")
    )


def generate(folder: Path, count: int, seed: int) -> None:
    """Draws a data set of hands, 70% for training, 10% for validation, 20% for testing.

    Raises:
        RequestError: `folder` holds something else.
    """
    validation, test = max(1, count // 10), max(1, count // 5)
    counts = {"training": count - validation - test, "validation": validation, "test": test}
    note = folder / "generated.json"
    text = json.dumps({"counts": counts, "seed": seed}) + "\n"
    if folder.exists():
        if note.is_file() and files.read_bytes(note, "note", files.MIB) == text.encode():
            print(f"{folder} holds just these pictures already")
            return
        what = "other generated pictures" if note.is_file() else "something else"
        raise RequestError(
            folder, f"holds {what}", "no such folder", "remove it, or name another with --input"
        )
    from ..data.hands import generator as hands

    temp = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        hands.generate(temp, counts, seed, progress=console.progress)
        files.save(temp / note.name, text)
        os.replace(temp, folder)
    except OSError as e:
        raise files.FileError(
            folder, f"cannot be written ({e.strerror or e})", remedy="choose another --input, or make space"
        ) from e
    finally:
        shutil.rmtree(temp, ignore_errors=True)
    print(f"{count} pictures drawn to {folder}")
