"""A teacher: a second network whose head maps pull at those of the one that is trained, on the same pictures.

- `kl`: Kullback-Leibler divergence (Hinton 2015, arXiv 1503.02531) of objectness everywhere, at temperature
  1, and of classes where there are truths, at temperature 3. (At 3 the thousands of boxes of the background,
  whose logits differ and whose probabilities hardly do, outweigh all else.) The teacher is heard only where
  it is nearer to the truth than the student, cell by cell; its boxes only where they overlap their truth more
  than the student's.
- `cwd`: channel-wise divergence (Shu 2021, arXiv 2011.13256) on the head maps: the softmax over all positions
  of a channel says where the teacher looks. Head maps have the same channels whatever the width and depth of
  the two networks, so no adapter is needed.

Both are sums over a picture, as the detection loss is, and divided by the pictures of the step.
"""

from __future__ import annotations

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import boxes
from ..base.errors import RequestError
from ..network import heads
from .assignment import assign, last_claims
from .objective import Batch

TEMPERATURE = 3.0  # of classes, and of where the teacher looks
FLOOR = 1e-4  # of probabilities that `new_coords` heads hand over, before they are logits again


class Distillation:
    """The pull of a teacher, as a term of an objective.

    Args:
        teacher: a trained network; it is put into eval mode and never changed.
        student_heads: `Darknet.heads` of the network that is trained.
        kl, cwd: what the two parts weigh.
        autocast: makes the context in which the teacher runs.

    Raises:
        RequestError: heads that do not answer each other.
    """

    names = ("kl", "cwd")

    def __init__(
        self,
        teacher: nn.Module,
        student_heads,
        kl: float = 1.0,
        cwd: float = 1.0,
        autocast=contextlib.nullcontext,
    ):
        check_heads(teacher, student_heads)
        self.teacher = teacher.eval().requires_grad_(False)
        self.heads, self.weights, self.autocast = list(student_heads), (kl, cwd), autocast

    def __call__(self, raw: list[Tensor], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad(), self.autocast():
            taught = self.teacher.raw_heads(batch.images)
        kl, cwd = raw[0].new_zeros((), dtype=torch.float32), raw[0].new_zeros((), dtype=torch.float32)
        for head, mine, its in zip(self.heads, raw, taught, strict=True):
            mine = mine.to(torch.promote_types(mine.dtype, torch.float32))
            its = its.to(mine.dtype)
            if self.weights[0]:
                kl = kl + self.weights[0] * head_kl(head, mine, its, batch.targets.to(mine.dtype), batch.size)
            if self.weights[1]:
                cwd = cwd + self.weights[1] * channel_wise(mine, its)
        kl, cwd = kl / batch.whole, cwd / batch.whole
        return kl + cwd, {"kl": kl.detach(), "cwd": cwd.detach()}


def check_heads(teacher: nn.Module, student_heads) -> None:
    """Each head of the teacher must say the same things in the same place as one of the student.

    Raises:
        RequestError: naming what differs.
    """
    mine, its = list(student_heads), list(teacher.heads)
    if len(mine) != len(its):
        raise RequestError(
            "--t_cfg",
            f"{teacher.cfg.path} has {len(its)} heads",
            f"{len(mine)}, as the network that is trained",
            "take a teacher with the same heads; width and depth may differ",
        )
    for a, b in zip(its, mine, strict=True):
        for what in ("kind", "classes", "anchors", "stride", "new_coords", "scale_x_y"):
            if getattr(a, what) != getattr(b, what):
                raise RequestError(
                    "--t_cfg",
                    f"{what} of layer {a.index} of {teacher.cfg.path} is {getattr(a, what)}",
                    f"{getattr(b, what)}, as layer {b.index} of the network that is trained",
                    "take a teacher with the same heads; width and depth may differ",
                )


def head_kl(head, mine: Tensor, its: Tensor, targets: Tensor, img_size: tuple[int, int]) -> Tensor:
    """The `kl` part of one head, summed over the pictures.

    Args:
        mine, its: (B, M, H, W, 5 + classes) raw maps, float. targets: (N, 6), see `objective.Batch`.
    """
    positives = assign(head, targets, mine.shape, img_size)
    last, group = last_claims(positives, mine.shape)
    single = positives.take(last)
    truth = torch.zeros_like(mine[..., 4])
    truth[single.where] = 1
    total = heard(mine[..., 4], its[..., 4], truth, head.new_coords, temperature=1.0)
    if not len(positives.row):
        return total
    classes = mine.new_zeros(len(last), head.classes)
    classes[group, targets[positives.row, 1].long()] = 1
    cells, taught = mine[single.where], its[single.where]
    total = total + heard(cells[:, 5:], taught[:, 5:], classes, head.new_coords)
    return total + taught_boxes(head, mine, its, positives, targets[positives.row, 2:], img_size)


def heard(
    mine: Tensor, its: Tensor, truth: Tensor, probabilities: bool, temperature: float = TEMPERATURE
) -> Tensor:
    """T^2 KL(teacher || student) of yes-or-no questions at temperature T, summed over those that the teacher
    answers better.

    Args:
        mine, its: logits, or probabilities, of any one shape. truth: 0 or 1.
    """
    if probabilities:
        mine, its = (p.clamp(FLOOR, 1 - FLOOR).logit() for p in (mine, its))
    better = (its.sigmoid() - truth).abs() < (mine.detach().sigmoid() - truth).abs()
    a, b = its / temperature, mine / temperature
    yes = a.sigmoid()
    divergence = yes * (F.logsigmoid(a) - F.logsigmoid(b)) + (1 - yes) * (F.logsigmoid(-a) - F.logsigmoid(-b))
    return temperature**2 * (divergence * better).sum()


def taught_boxes(head, mine: Tensor, its: Tensor, positives, truth: Tensor, img_size) -> Tensor:
    """Half the squared distance of x, y (as the cell sees them) and of w, h, raw, summed over the truths that
    the teacher's box overlaps more; weighted as the box loss is.

    Args:
        truth: (P, 4) centre and size, 0..1.
    """
    height, width = img_size
    size = truth.new_tensor([width, height, width, height])
    overlap = [
        boxes.pairwise_iou(heads.decode_boxes(m.detach(), head, img_size)[positives.where], truth * size)
        for m in (mine, its)
    ]
    pulled, taught = (m[positives.where][:, :4] for m in (mine, its))
    if not head.new_coords:
        pulled, taught = (torch.cat([v[:, :2].sigmoid(), v[:, 2:]], 1) for v in (pulled, taught))
    weight = (2 - truth[:, 2] * truth[:, 3]) * (overlap[1] > overlap[0])
    return head.opts.get("iou_normalizer", 0.75) * (0.5 * ((pulled - taught) ** 2).sum(1) * weight).sum()


def channel_wise(mine: Tensor, its: Tensor) -> Tensor:
    """T^2 / channels * sum over channels of KL of the softmaxes over positions (Shu 2021, equation 4), summed
    over the pictures.

    Args:
        mine, its: (B, M, H, W, 5 + classes).
    """
    a, b = (heads.flat_map(m).flatten(2) / TEMPERATURE for m in (its, mine))
    divergence = F.kl_div(b.log_softmax(-1), a.log_softmax(-1), reduction="sum", log_target=True)
    return TEMPERATURE**2 / a.shape[1] * divergence
