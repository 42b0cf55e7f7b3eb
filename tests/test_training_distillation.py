"""Teachers: each part against a loop over cells, who is heard, and who is refused."""

from __future__ import annotations

import math

import pytest
import torch
from test_training_loop import TINY

from darkslim.base import boxes
from darkslim.base.errors import RequestError
from darkslim.network import heads
from darkslim.network.cfg import parse_cfg
from darkslim.network.darknet import Darknet
from darkslim.training.distillation import Distillation, channel_wise, head_kl, heard
from darkslim.training.objective import Batch, Detection, Objective

T = 3.0
TWO = TINY.replace("classes=1", "classes=3").replace("filters=12", "filters=16")


def network(seed: int, text: str = TWO) -> Darknet:
    torch.manual_seed(seed)
    return Darknet(parse_cfg(text))


def batch(count: int = 3, whole: int | None = None) -> Batch:
    g = torch.Generator().manual_seed(4)
    targets = torch.rand(count, 6, generator=g) * 0.5 + 0.2
    targets[:, 0], targets[:, 1] = torch.arange(count), torch.arange(count) % 3
    return Batch(torch.rand(count, 3, 32, 32, generator=g), targets, whole or count)


def bernoulli(p: float, q: float) -> float:
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_a_teacher_is_heard_only_where_it_is_nearer_to_the_truth():
    mine, its = torch.tensor([0.5, -0.5, 2.0, 1.0]), torch.tensor([1.5, 0.5, -1.0, 1.0])
    truth = torch.tensor([1.0, 0.0, 0.0, 1.0])
    expected = sum(T**2 * bernoulli(sigmoid(a / T), sigmoid(b / T)) for a, b in ((1.5, 0.5), (-1.0, 2.0)))
    assert heard(mine, its, truth, False).item() == pytest.approx(expected, rel=1e-5)
    probabilities = heard(mine.sigmoid(), its.sigmoid(), truth, True)
    assert probabilities.item() == pytest.approx(expected, rel=1e-4), "heads that hand over probabilities"


@pytest.mark.parametrize("new_coords", [0, 1])
def test_the_pull_on_a_head_is_that_of_a_loop_over_its_cells(new_coords):
    text = TWO.replace("classes=3", f"classes=3\nnew_coords={new_coords}")
    student, b = network(1, text), batch()
    head, g = student.heads[0], torch.Generator().manual_seed(3)
    shape = (3, 2, 8, 8, 8)
    mine, its = (torch.randn(shape, generator=g, dtype=torch.float64) for _ in range(2))
    if new_coords:
        mine, its = mine.sigmoid(), its.sigmoid()

    def probability(v, temperature=1.0):
        return sigmoid((math.log(v / (1 - v)) if new_coords else v) / temperature)

    positive, total = {}, 0.0
    for _, cls, x, y, w, h in b.targets.tolist():
        image = len(positive)
        anchor = int(boxes.wh_iou(torch.tensor([[w * 32, h * 32]]), torch.tensor(head.all_anchors)).argmax())
        positive[image, anchor, int(y * 8), int(x * 8)] = (int(cls), (x, y, w, h))
    decoded = [heads.decode_boxes(m, head, (32, 32)) for m in (mine, its)]
    for cell in torch.cartesian_prod(*(torch.arange(n) for n in shape[:4])).tolist():
        a, t, found = mine[tuple(cell)].tolist(), its[tuple(cell)].tolist(), positive.get(tuple(cell))
        questions = [(a[4], t[4], float(found is not None), 1.0)]
        if found:
            questions += [(a[5 + c], t[5 + c], float(c == found[0]), T) for c in range(3)]
        for s, p, truth, at_t in questions:
            if abs(probability(p) - truth) < abs(probability(s) - truth):
                total += at_t**2 * bernoulli(probability(p, at_t), probability(s, at_t))
        if found:
            box = torch.tensor(found[1], dtype=torch.float64) * 32
            overlap = [boxes.pairwise_iou(d[tuple(cell)], box).item() for d in decoded]
            if overlap[1] > overlap[0]:
                at = (lambda v: v) if new_coords else sigmoid
                far = sum((at(a[i]) - at(t[i])) ** 2 for i in (0, 1))
                far += sum((a[i] - t[i]) ** 2 for i in (2, 3))
                total += 0.75 * 0.5 * far * (2 - found[1][2] * found[1][3])
    found = head_kl(head, mine, its, b.targets.double(), (32, 32))
    assert found.item() == pytest.approx(total, rel=1e-4)


def test_channel_wise_divergence_of_two_small_maps():
    mine = torch.tensor([0.0, 1.0, 2.0, 3.0]).view(1, 1, 2, 2, 1)
    its = torch.tensor([3.0, 0.0, 0.0, 0.0]).view(1, 1, 2, 2, 1)
    p, q = (torch.softmax(v.flatten() / T, 0) for v in (its, mine))
    expected = T**2 * (p * (p / q).log()).sum()
    assert channel_wise(mine, its).item() == pytest.approx(expected.item(), rel=1e-5)
    double = torch.cat([mine, mine], 4), torch.cat([its, its], 4)  # a mean over channels, a sum over pictures
    assert channel_wise(*double).item() == pytest.approx(expected.item(), rel=1e-5)
    assert channel_wise(torch.cat([mine, mine]), torch.cat([its, its])).item() == pytest.approx(
        2 * expected.item(), rel=1e-5
    )


def test_a_teacher_pulls_and_is_not_pulled():
    """A student that only has a teacher comes to say what it says, where the teacher is right."""
    student, teacher, b = network(1).train(), network(2), batch()
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    term = Distillation(teacher.train(), student.heads)
    optimizer, values = torch.optim.SGD(student.parameters(), 0.05, 0.9), []
    for _ in range(150):
        optimizer.zero_grad()
        total, parts = term(student.raw_heads(b.images), b)
        assert total.item() == pytest.approx(sum(v.item() for v in parts.values()), rel=1e-5)
        total.backward()
        optimizer.step()
        values.append(parts["cwd"].item())
    assert values[-1] < 0.3 * values[0]
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items()) and not teacher.training
    assert all(p.grad is None for p in teacher.parameters())


def test_micro_batches_add_up_and_a_twin_pulls_at_nothing():
    student, teacher, b = network(1).eval(), network(2), batch(4)
    objective = Objective(Detection(student.heads), Distillation(teacher, student.heads))
    assert objective.names == ("box", "obj", "cls", "kl", "cwd")
    whole, _ = objective(student.raw_heads(b.images), b)
    parts = 0.0
    for some in (slice(0, 2), slice(2, 4)):
        targets = b.targets[some].clone()
        targets[:, 0] -= targets[0, 0].clone()
        part = Batch(b.images[some], targets, 4)
        parts += objective(student.raw_heads(part.images), part)[0]
    assert parts.item() == pytest.approx(whole.item(), rel=1e-5)
    same = Distillation(student, student.heads)
    total, _ = same(student.raw_heads(b.images), b)
    assert total.item() == pytest.approx(0, abs=1e-5)
    none = Batch(b.images, torch.zeros(0, 6), 4)  # pictures without truths
    assert torch.isfinite(objective(student.raw_heads(b.images), none)[0])


@pytest.mark.parametrize(
    "change, words",
    [
        (("classes=3\n", "classes=1\n"), "classes of layer 3"),
        (("anchors=8,8, 16,16", "anchors=8,8, 20,16"), "anchors of layer 3"),
        (
            (
                "stride=2\npad=1\nactivation=leaky\n[convolutional]\nfilters",
                "stride=1\npad=1\nactivation=leaky\n[convolutional]\nfilters",
            ),
            "stride of layer 3",
        ),
    ],
)
def test_a_teacher_with_other_heads_is_refused(change, words):
    text = TWO.replace(*change)
    text = text.replace("filters=16", "filters=12") if "classes" in words else text
    with pytest.raises(RequestError, match=words):
        Distillation(network(0, text), network(1).heads)


def test_a_teacher_of_another_width_will_do():
    wide = TWO.replace("filters=8", "filters=20")
    b = batch()
    student = network(1)
    total, _ = Distillation(network(0, wide), student.heads)(student.raw_heads(b.images), b)
    assert total.item() > 0
