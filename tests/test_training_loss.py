"""The vectorised loss against a slow loop over boxes, and its gradient against Darknet's deltas."""

from __future__ import annotations

import math

import pytest
import torch

from darkslim.network.cfg import parse_cfg
from darkslim.network.darknet import Darknet
from darkslim.training.assignment import best_overlap, pad_truths
from darkslim.training.loss import DetectionLoss

ANCHORS = [(10.0, 14.0), (23.0, 27.0), (37.0, 58.0), (60.0, 40.0)]


def two_heads(extra: str = "", activation: str = "linear") -> Darknet:
    """A 64x96 detector with a stride-16 head (anchors 2, 3) and a stride-8 head (anchors 0, 1) of 3
    classes.
    """
    anchors = ", ".join(f"{w:g},{h:g}" for w, h in ANCHORS)
    head = f"anchors={anchors}\nnum=4\nclasses=3\n{extra}\n"
    last = f"[convolutional]\nfilters=16\nsize=1\nstride=1\npad=1\nactivation={activation}\n"
    down = "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\nstride=2\npad=1\nactivation=leaky\n"
    text = (
        "[net]\nwidth=96\nheight=64\nchannels=3\n"
        + down * 4
        + last
        + "[yolo]\nmask=2,3\n"
        + head
        + "[route]\nlayers=2\n"
        + last
        + "[yolo]\nmask=0,1\n"
        + head
    )
    return Darknet(parse_cfg(text))


def truths(count: int = 9, images: int = 3, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    rows = torch.rand(count, 6, generator=g)
    rows[:, 0] = torch.randint(0, images, (count,), generator=g)
    rows[:, 1] = torch.randint(0, 3, (count,), generator=g)
    rows[:, 4:] = rows[:, 4:] * 0.6 + 0.05
    return rows


def raw_maps(seed: int = 1) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [(0.7 * torch.randn(3, 2, h, w, 8, generator=g)).requires_grad_() for h, w in ((4, 6), (8, 12))]


def corners(x, y, w, h):
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def iou_of(a, b) -> float:
    a, b = corners(*a), corners(*b)
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0.0, w) * max(0.0, h)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def bce(logit: float, target: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -target * math.log(p) - (1 - target) * math.log(1 - p)


def slow_loss(
    raws,
    rows,
    masks,
    width,
    height,
    *,
    ignore=0.5,
    truth_thresh=1.0,
    iou_thresh=1.0,
    scale=1.0,
    box_weight=0.75,
    obj_weight=1.0,
    cls_weight=1.0,
):
    """Darknet's loss (mse boxes), one box at a time, with plain floats."""
    rows = rows.tolist()
    box = obj = cls = 0.0
    for raw, mask in zip(raws, masks, strict=True):
        images, count, gh, gw, _ = raw.shape
        v = raw.tolist()
        claims: dict[tuple, list] = {}
        for b, a, j, i in (
            (b, a, j, i) for b in range(images) for a in range(count) for j in range(gh) for i in range(gw)
        ):
            px, py, pw, ph, po = v[b][a][j][i][:5]
            x = scale / (1 + math.exp(-px)) - (scale - 1) / 2
            y = scale / (1 + math.exp(-py)) - (scale - 1) / 2
            aw, ah = ANCHORS[mask[a]]
            predicted = ((x + i) / gw, (y + j) / gh, math.exp(pw) * aw / width, math.exp(ph) * ah / height)
            overlaps = [iou_of(predicted, t[2:]) if t[0] == b else 0.0 for t in rows]
            best = max(overlaps, default=0.0)
            if best > truth_thresh:
                claims.setdefault((b, a, j, i), []).append(rows[overlaps.index(best)])
            sure = any(1 / (1 + math.exp(-logit)) > 0.25 for logit in v[b][a][j][i][5:])
            ignored = best > ignore and sure
            if not ignored:
                obj += obj_weight * bce(po, 0)
            v[b][a][j][i].append(ignored)
        for t in rows:
            sizes = [iou_of((0, 0, t[4] * width, t[5] * height), (0, 0, *anchor)) for anchor in ANCHORS]
            for k, s in enumerate(sizes):
                if k in mask and (s == max(sizes) or s > iou_thresh):
                    place = (int(t[0]), mask.index(k), int(t[3] * gh), int(t[2] * gw))
                    claims.setdefault(place, []).append(t)
        for (b, a, j, i), claiming in claims.items():
            p = v[b][a][j][i]
            if not p[8]:
                obj -= obj_weight * bce(p[4], 0)
            obj += obj_weight * bce(p[4], 1)
            for c in range(3):
                cls += cls_weight * bce(p[5 + c], float(c in [int(t[1]) for t in claiming]))
            for t in claiming:
                aw, ah = ANCHORS[mask[a]]
                weight = box_weight * (2 - t[4] * t[5]) / len({u[1] for u in claiming})
                for value, target in ((p[0], t[2] * gw - i), (p[1], t[3] * gh - j)):
                    box += weight * scale * bce(value, (target + (scale - 1) / 2) / scale)
                wide, high = math.log(t[4] * width / aw), math.log(t[5] * height / ah)
                box += weight * 0.5 * ((p[2] - wide) ** 2 + (p[3] - high) ** 2)
    return box, obj, cls


@pytest.mark.parametrize(
    "extra, options",
    [
        ("ignore_thresh=.5", {}),
        ("ignore_thresh=.2\niou_thresh=.3", {"ignore": 0.2, "iou_thresh": 0.3}),
        ("ignore_thresh=.4\ntruth_thresh=.45", {"ignore": 0.4, "truth_thresh": 0.45}),
        (
            "scale_x_y=1.2\niou_normalizer=.3\nobj_normalizer=2\ncls_normalizer=.5",
            {"scale": 1.2, "box_weight": 0.3, "obj_weight": 2.0, "cls_weight": 0.5},
        ),
    ],
)
def test_equals_a_loop_over_boxes(extra, options):
    model = two_heads(extra)
    raws, rows = raw_maps(), truths(14)
    total, parts = DetectionLoss(model.heads)(raws, rows, (64, 96))
    expected = slow_loss(raws, rows, [[2, 3], [0, 1]], 96, 64, **options)
    for name, value in zip(("box", "obj", "cls"), expected, strict=True):
        assert float(parts[name]) == pytest.approx(value / 3, rel=1e-4)
    assert float(total.detach()) == pytest.approx(sum(expected) / 3, rel=1e-4)


def test_gradient_is_darknets_delta():
    """One truth in one cell: d loss / d raw = (output - target), times the weights, divided by the batch."""
    model = two_heads("ignore_thresh=1")
    raws = raw_maps()
    row = torch.tensor(
        [[1, 2, 0.30, 0.55, 37 / 96, 58 / 64]]
    )  # exactly anchor 2: head 0, anchor 0; cell row 2, column 1
    total, _ = DetectionLoss(model.heads)(raws, row, (64, 96))
    total.backward()
    cell, grad = raws[0].detach()[1, 0, 2, 1], raws[0].grad[1, 0, 2, 1] * 3
    weight = 0.75 * (2 - 37 / 96 * 58 / 64)
    expected = [
        weight * (cell[0].sigmoid() - (0.30 * 6 - 1)),
        weight * (cell[1].sigmoid() - (0.55 * 4 - 2)),
        weight * cell[2],
        weight * cell[3],
        cell[4].sigmoid() - 1,
        cell[5].sigmoid(),
        cell[6].sigmoid(),
        cell[7].sigmoid() - 1,
    ]
    assert torch.allclose(grad, torch.stack([torch.as_tensor(e) for e in expected]), atol=1e-5)
    other = raws[1].grad * 3
    assert torch.allclose(other[..., 4], raws[1].detach()[..., 4].sigmoid(), atol=1e-6)
    assert not other[..., :4].any() and not other[..., 5:].any()


@pytest.mark.parametrize("classes, share", [((0, 2), 0.5), ((1, 1), 1.0)])
def test_truths_of_one_cell_share_its_box_by_their_classes(classes, share):
    """Darknet adds up the deltas of the box and divides them by the number of classes that were set."""
    model = two_heads("ignore_thresh=1")
    first = [1, classes[0], 0.30, 0.55, 37 / 96, 58 / 64]
    second = [1, classes[1], 0.31, 0.56, 36 / 96, 58 / 64]
    raws = raw_maps()
    both, parts = DetectionLoss(model.heads)(raws, torch.tensor([first, second]), (64, 96))
    alone = [DetectionLoss(model.heads)(raws, torch.tensor([t]), (64, 96))[1]["box"] for t in (first, second)]
    assert float(parts["box"]) == pytest.approx(share * float(sum(alone)), rel=1e-6)
    both.backward()
    logits, target = raws[0].detach()[1, 0, 2, 1, 5:], torch.zeros(3)
    target[list(classes)] = 1
    assert torch.allclose(raws[0].grad[1, 0, 2, 1, 5:] * 3, logits.sigmoid() - target, atol=1e-6)


def test_a_box_that_overlaps_is_background_until_a_class_is_likely():
    """`compare_yolo_class` asks for a probability above .25, of any class."""
    model, truth = two_heads("ignore_thresh=.1"), torch.tensor([[0, 1, 0.30, 0.55, 37 / 96, 58 / 64]])
    for logit, counted in ((-1.2, True), (-1.0, False)):  # probabilities .23 and .27
        raws = [torch.zeros_like(r) for r in raw_maps()]
        for r in raws:
            r[..., 5:] = -6
            r[..., 6] = logit
            r.requires_grad_()
        DetectionLoss(model.heads)(raws, truth, (64, 96))[0].backward()
        beside = raws[0].grad[
            0, 1, 2, 1, 4
        ]  # the other anchor of the truth's cell: overlaps, claimed by none
        assert bool(beside > 0) is counted


def test_no_truths_and_edges():
    model = two_heads()
    loss = DetectionLoss(model.heads)
    total, parts = loss(raw_maps(), torch.zeros(0, 6), (64, 96))
    assert parts["box"] == 0 and parts["cls"] == 0 and total > 0
    total.backward()
    edge = torch.tensor([[2, 0, 1.0, 1.0, 0.3, 0.3], [0, 0, 0.0, 0.0, 1e-6, 1e-6]])
    assert math.isfinite(float(loss(raw_maps(), edge, (64, 96))[0].detach()))


def test_micro_batches_add_up_and_low_precision_is_widened():
    model = two_heads("ignore_thresh=.3")
    loss, raws, rows = DetectionLoss(model.heads), raw_maps(), truths(14)
    whole, _ = loss(raws, rows, (64, 96))
    pieces = 0.0
    for image in range(3):
        some = rows[rows[:, 0] == image].clone()
        some[:, 0] = 0
        pieces += loss([r[image : image + 1] for r in raws], some, (64, 96), images=3)[0].item()
    assert pieces == pytest.approx(whole.item(), rel=1e-5)
    assert loss([r.bfloat16() for r in raws], rows, (64, 96))[0].dtype == torch.float32


def test_overlap_in_pieces_is_the_same(monkeypatch):
    rows = truths(40)
    padded, index = pad_truths(rows, 3, (64, 96))
    assert all(int(rows[index[b, t], 0]) == b for b in range(3) for t in range(int((rows[:, 0] == b).sum())))
    pred = torch.rand(3, 2, 4, 6, 4) * 50 + 5
    whole = best_overlap(pred, padded)
    monkeypatch.setattr("darkslim.training.assignment.PAIRS", 1)
    pieces = best_overlap(pred, padded)
    assert torch.equal(whole[0], pieces[0])
    assert torch.equal(whole[1][whole[0] > 0], pieces[1][whole[0] > 0])


def test_keys_that_are_not_used_are_said():
    with pytest.warns(UserWarning, match="focal_loss"):
        DetectionLoss(two_heads("focal_loss=1").heads)
