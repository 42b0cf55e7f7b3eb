"""Turns an annotated data set into Darknet's: images, labels, lists, names and a `.data` file.

python converter.py                          data/hand_dataset (the Oxford hand data set) -> data/
python converter.py --download               fetches the official archive first
python converter.py --generate 1000          draws that many pictures of hands first, in the same layout
python converter.py --format voc --input VOC2007 --output data/voc
python converter.py --anchors 6 --model_def config/yolov3-tiny-hand.cfg
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections import Counter
from pathlib import Path

from terminaltables import AsciiTable

from ..base import files
from ..base.errors import RequestError
from ..data import anchors, convert, download
from ..data.datafile import read_data, read_names
from ..data.limits import MAX_PIXELS
from ..network import cfg_classes
from ..network.cfg import read_cfg, write_cfg
from ..network.cfg_plain import plain
from ..network.graph import Graph
from . import console, flags

ROWS = 20  # skipped boxes printed one by one; all of them are in --json


def parser() -> argparse.ArgumentParser:
    p = flags.parser(__doc__.split("\n")[0])
    p.add_argument(
        "--format", choices=("oxford", "voc", "coco"), default="oxford", help="layout of the input"
    )
    p.add_argument(
        "--input",
        metavar="DIR",
        help="folder of the data set; for coco also one .json file (oxford: data/hand_dataset)",
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
    found = (
        anchors.find_anchors(plan.sizes(plan.train, size), args.anchors, args.seed) if args.anchors else None
    )
    cfg = _for_data(base, args, len(plan.names), found)
    written = convert.write(plan, output, name, names_path, args.link, console.progress)
    result = _summary(plan, written)
    _show(plan, result)
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
    from ..data import coco_json, oxford, voc

    common = {
        "names": names,
        "skip_broken": args.skip_broken,
        "max_pixels": args.max_pixels,
        "progress": console.progress,
    }
    if args.format == "oxford":
        return oxford.read_oxford(source, **common)
    if args.format == "voc":
        return voc.read_voc(source, keep_difficult=args.keep_difficult, **common)
    return coco_json.read_coco(source, **common)


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


def _summary(plan: convert.Plan, written: dict[str, str]) -> dict:
    lists = {}
    for name, ids in plan.lists.items():
        boxes = plan.boxes(name)
        per_class = {n: int((boxes[:, 0] == i).sum()) for i, n in enumerate(plan.names)}
        lists[name] = {
            "images": len(ids),
            "boxes": len(boxes),
            "background": sum(not len(plan.pictures[i].boxes) for i in ids),
            "per_class": per_class,
        }
    return {
        "images": len(plan.pictures),
        "boxes": sum(len(p.boxes) for p in plan.pictures.values()),
        "names": plan.names,
        "lists": lists,
        "skipped": [{"file": f, "what": what, "why": why} for f, what, why in plan.skipped],
        "broken": [{"file": f, "why": why} for f, why in plan.broken],
        "notes": {k: v for k, v in plan.notes.items() if v},
        "written": written,
    }


def _show(plan: convert.Plan, result: dict) -> None:
    rows = [["list", "images", "without boxes", "boxes", *plan.names[:12]]]
    for name, counts in result["lists"].items():
        rows.append(
            [
                name,
                counts["images"],
                counts["background"],
                counts["boxes"],
                *list(counts["per_class"].values())[:12],
            ]
        )
    rows.append(["all images", result["images"], "", result["boxes"], *[""] * len(plan.names[:12])])
    print(AsciiTable(rows).table)
    for note, number in result["notes"].items():
        print(f"{note}: {number}")
    for title, entries in (
        ("boxes skipped", plan.skipped),
        ("files left out", [(f, "", why) for f, why in plan.broken]),
    ):
        if not entries:
            continue
        whys = Counter(why for *_, why in entries)
        print(f"{title}: {len(entries)} ({', '.join(f'{n} {why}' for why, n in whys.most_common(5))})")
        print(AsciiTable([["file", "what", "why"], *entries[:ROWS]]).table)
        if len(entries) > ROWS:
            print(f"... and {len(entries) - ROWS} more; --json FILE has them all")
    print("written: " + ", ".join(f"{path}" for path in result["written"].values()))
