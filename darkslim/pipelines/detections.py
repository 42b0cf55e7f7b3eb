"""Detections as pictures and videos share them: boxes in pixels of the picture, and their rows in files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .. import evaluation
from ..base import files
from ..data.images import unplace_boxes
from ..report.boxes_drawn import encoded


def found_on(
    boxes: torch.Tensor, places: Sequence[tuple], size: tuple[int, int], settings, names: Sequence[str]
) -> list[list[dict]]:
    """The detections of each picture: class, name, score, x1, y1, x2, y2 in its pixels.

    Args:
        boxes: what a network gives, (B, boxes, 5 + classes).
        places: rectangle and (width, height) of each picture. size: (height, width) of the input.
        settings: with the thresholds.
    """
    found = []
    detections = evaluation.detections(boxes, settings.conf_thres, settings.nms_thres)
    for (rect, stored), rows in zip(places, detections, strict=True):
        rows = rows.numpy()
        corners = unplace_boxes(rows[:, :4], rect, size).clip(0, [stored[0], stored[1]] * 2)
        found.append(
            [
                {
                    "class": int(row[5]),
                    "name": names[int(row[5])],
                    "score": float(row[4]),
                    **dict(zip(("x1", "y1", "x2", "y2"), map(float, box), strict=True)),
                }
                for row, box in zip(rows, corners, strict=True)
                if box[2] > box[0] and box[3] > box[1] and row[4] >= settings.conf_thres
            ]
        )
    return found


def write_beside(
    settings,
    folder: Path,
    name: str,
    picture: Image.Image,
    stored: tuple[int, int],
    found: list[dict],
    end: str,
) -> None:
    """The label file and the crops of a picture, where they are asked for.

    Args:
        name: of the picture, without its end. stored: its (width, height). end: of the crops.
    """
    if settings.save_labels == "darknet":
        lines = "".join(darknet_line(one, stored) + "\n" for one in found)
        files.save(folder / "labels" / f"{name}.txt", lines)
    for number, one in enumerate(found if settings.crops else ()):
        box = [int(one["x1"]), int(one["y1"]), int(np.ceil(one["x2"])), int(np.ceil(one["y2"]))]
        target = folder / "crops" / folder_name(one) / f"{name}_{number}{end}"
        files.save(target, encoded(picture.crop(box), end))


def folder_name(one: dict) -> str:
    """A folder for the class of a detection, whatever stands in the file of names."""
    name = re.sub(r"[^\w .-]", "_", one["name"]).strip(" .")[:60]
    return name or f"class {one['class']}"


def darknet_line(one: dict, stored: tuple[int, int]) -> str:
    """class, centre x, centre y, width, height in shares of the picture, score."""
    w, h = stored
    x, y = (one["x1"] + one["x2"]) / 2 / w, (one["y1"] + one["y2"]) / 2 / h
    wide, high = (one["x2"] - one["x1"]) / w, (one["y2"] - one["y1"]) / h
    return f"{one['class']} {x:.6f} {y:.6f} {wide:.6f} {high:.6f} {one['score']:.4f}"


def coco_rows(pictures: Sequence[dict]) -> list[dict]:
    """The rows that COCO's evaluation reads, with the file beside the number.

    Args:
        pictures: index, file, found.
    """
    return [
        {
            "image_id": row["index"] + 1,
            "file_name": row["file"],
            "category_id": one["class"] + 1,
            "bbox": [one["x1"], one["y1"], one["x2"] - one["x1"], one["y2"] - one["y1"]],
            "score": one["score"],
        }
        for row in pictures
        for one in row["found"]
    ]
