"""From a network's output to detections, and the evaluation of a network that is a stub with known
answers.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from darkslim.evaluation import darknet_boxes, detections, evaluate


def row(cx, cy, w, h, obj, *classes):
    return [float(v) for v in (cx, cy, w, h, obj, *classes)]


PRED = torch.tensor(
    [
        [
            row(10, 10, 10, 10, 0.9, 0.5, 0.2),  # score .45, class 0
            row(10, 10, 10, 9, 0.8, 0.1, 1.0),  # score .8, class 1: same place, other class
            row(11, 10, 10, 10, 0.5, 0.4, 0.1),  # score .2, class 0: suppressed by the first
            row(40, 40, 10, 10, 0.01, 1.0, 0.0),  # objectness just enough
            row(60, 60, 10, 10, 0.009, 1.0, 0.0),  # not enough
        ],
        [row(0, 0, 1, 1, 0.0, 0, 0)] * 5,
    ]
)


def test_detections_by_hand():
    first, second = detections(PRED)
    assert second.shape == (0, 6)
    assert first[:, 5].tolist() == [1, 0, 0]
    assert first[:, 4].tolist() == pytest.approx([0.8, 0.45, 0.01])
    assert first[1, :4].tolist() == [5, 5, 15, 15]
    assert len(detections(PRED, conf_thres=0.02)[0]) == 2
    assert len(detections(PRED, nms_thres=0.9)[0]) == 4
    assert len(detections(PRED, max_det=1)[0]) == 1
    assert detections(PRED, max_nms=1)[0][:, 4].tolist() == pytest.approx([0.8])
    assert detections(PRED[:0]) == []


def test_every_class_when_multi_label():
    first = detections(PRED, 0.1, multi_label=True)[0]
    # .9 x .5 and .9 x .2; .8 x 1 (its .08 is too low) suppresses .18; .5 x .4 is suppressed by .45
    assert [(round(s, 2), c) for s, c in first[:, 4:].tolist()] == [(0.8, 1), (0.45, 0)]
    apart = detections(PRED, 0.1, nms_thres=0.99, multi_label=True)[0]
    assert [(round(s, 2), c) for s, c in apart[:, 4:].tolist()] == [(0.8, 1), (0.45, 0), (0.2, 0), (0.18, 1)]


def test_boxes_that_are_not_finite_are_dropped():
    wild = PRED.clone()
    wild[0, 0, 2], wild[0, 1, 0], wild[0, 2, 4] = float("inf"), float("nan"), float("nan")
    assert detections(wild)[0][:, :4].tolist() == [[35, 35, 45, 45]]


def test_darknet_boxes_by_hand():
    before = darknet_boxes(PRED, (100, 200), nms_thres=None)[0]
    assert before[0].tolist() == pytest.approx([0.05, 0.1, 0.05, 0.1, 0.9, 0.45, 0.18])
    assert before[1].tolist() == pytest.approx([0.05, 0.1, 0.05, 0.09, 0.8, 0, 0.8])  # .08 is not above .1
    assert len(before) == 3
    after = darknet_boxes(PRED, (100, 200))[0]
    assert after[:, 5:].tolist() == [
        pytest.approx([0.45, 0]),
        pytest.approx([0, 0.8]),
    ]  # class by class; row 2 is gone


class Stub(nn.Module):
    """Finds a white square in a black picture, whatever its weights; knows in which mode and layout it was
    called.
    """

    def __init__(self, classes=2):
        super().__init__()
        self.conv, self.frozen, self.classes, self.seen = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), classes, []

    def forward(self, x):
        self.seen.append((self.training, x.is_contiguous(memory_format=torch.channels_last), float(x.max())))
        out = torch.zeros(len(x), 2, 5 + self.classes)
        for i, image in enumerate(x):
            y, c = torch.nonzero(image[0] > 0.5, as_tuple=True)
            if len(y):
                w, h = c.max() - c.min() + 1, y.max() - y.min() + 1
                out[i, 0] = torch.tensor(row(c.min() + w / 2, y.min() + h / 2, w, h, 0.9, 1, 0))
        return out


def picture(box=None, dtype=torch.uint8):
    image = torch.zeros(3, 32, 64, dtype=torch.uint8)
    if box:
        image[:, box[1] : box[3], box[0] : box[2]] = 255
    return image if dtype == torch.uint8 else image.float() / 255


def loader(dtype=torch.uint8):
    """Two batches: a square of class 0, one of class 1 (found as class 0), a square without a truth, nothing
    at all.
    """
    truth = [8 / 64 + 8 / 64, 16 / 32, 16 / 64, 16 / 32]  # 8..24 across, 8..24 down
    box = (8, 8, 24, 24)
    yield torch.stack([picture(box, dtype)] * 2), torch.tensor([[0, 0, *truth], [1, 1, *truth]])
    yield torch.stack([picture(box, dtype), picture(None, dtype)]), torch.zeros(0, 6)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_evaluate_by_hand(dtype):
    result = evaluate(Stub(), loader(dtype), names=["dot", "dash"])
    dot, dash = result.per_class
    assert (dot["name"], dot["truths"], dot["detections"]) == ("dot", 1, 3)
    assert (dot["ap50"], dot["recall"], dot["precision"]) == pytest.approx(
        (1, 1, 1 / 3)
    )  # one of three is right
    assert (dash["ap50"], dash["truths"], dash["detections"]) == (0, 1, 0)
    assert result.map50 == pytest.approx(0.5) and result.map == pytest.approx(0.5)
    assert (result.images, result.boxes, result.detections) == (4, 2, 3)
    assert (result.precision, result.recall, result.f1) == pytest.approx((1 / 6, 1 / 2, 1 / 4))


def test_evaluate_of_no_images():
    result = evaluate(Stub(), [])
    assert (result.map50, result.map, result.images, result.per_class) == (0, 0, 0, [])


def test_modes_and_layout():
    model = Stub().train()
    model.frozen.eval()
    evaluate(model, loader())
    assert model.seen[0] == (False, False, 1.0)
    assert model.training and model.conv.training and not model.frozen.training
    model = Stub().to(memory_format=torch.channels_last)
    evaluate(model, loader(), progress=lambda items, desc: items, amp=True)
    assert model.seen[0][1]


def test_mode_is_restored_after_an_error():
    model = Stub().train()

    def broken():
        yield from loader()
        raise OSError("the disk is gone")

    with pytest.raises(OSError):
        evaluate(model, broken())
    assert model.training
