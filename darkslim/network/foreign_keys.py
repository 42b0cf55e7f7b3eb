"""State dicts of other programs, under our names.

- `module_list.N.Conv2d.weight`, `module_list.N.BatchNorm2d.bias` (Ultralytics' yolov3, PyTorch_YOLOv4);
- `models.N.convK.weight`, `models.N.bnK.bias` (pytorch-yolo2, pytorch-YOLOv4).

What they keep beside weights is left out: anchors and grids of heads, and the counters that thop adds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

NAMES = (
    (re.compile(r"module_list\.(\d+)\.Conv2d\.(\w+)"), r"module_list.\1.conv_\1.\2"),
    (re.compile(r"module_list\.(\d+)\.BatchNorm2d\.(\w+)"), r"module_list.\1.batch_norm_\1.\2"),
    (re.compile(r"models\.(\d+)\.conv\d+\.(\w+)"), r"module_list.\1.conv_\1.\2"),
    (re.compile(r"models\.(\d+)\.bn\d+\.(\w+)"), r"module_list.\1.batch_norm_\1.\2"),
)
BESIDE = ("total_ops", "total_params", "anchor_vec", "anchor_wh", "anchor_grid", "anchors", "grid", "grid_xy")
BESIDE += ("mask_anchors", "scaled_anchors", "ng", "nx", "ny", "stride", "weight_mask")


def ours(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """A state dict by our names.

    Args:
        own: that of the network, whose names are never taken for others.

    Returns:
        The state dict, and what was changed, in words ("" for nothing).
    """
    result: dict[str, Tensor] = {}
    renamed, left_out = 0, []
    for key, value in state.items():
        if key not in own and key.rpartition(".")[2] in BESIDE:
            left_out.append(key)
            continue
        name = key
        for pattern, form in NAMES if key not in own else ():
            if pattern.fullmatch(key):
                name = pattern.sub(form, key)
                break
        renamed += name != key
        result[name] = value
    said = []
    if renamed:
        said.append(f"{renamed} keys are named as in another program")
    if left_out:
        said.append(f"{len(left_out)} that are no weights were left out ({left_out[0][:60]})")
    return result, " and ".join(said)
