"""Every family that ends in [yolo] learns: each golden cfg trained on two pictures with the parts of the real
loop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from darkslim.base.boxes import iou_matrix, wh_iou, xywh_to_xyxy
from darkslim.evaluation.postprocess import detections
from darkslim.network.cfg import Cfg, parse_cfg, read_cfg
from darkslim.network.darknet import Darknet
from darkslim.network.graph import Graph
from darkslim.network.heads import decode
from darkslim.network.layers import Shortcut
from darkslim.training import penalties, prunable
from darkslim.training.ema import EMA
from darkslim.training.loop import Run, train_step
from darkslim.training.loss import DetectionLoss
from darkslim.training.objective import Detection, Objective
from darkslim.training.optim import Schedule, make_optimizer
from darkslim.training.precision import Precision

STEPS, SPARSE_STEPS, LR, MOMENTUM, S = 140, 20, 0.01, 0.9, 0.6

# what published cfgs have and no golden one: logistic heads with ciou, strides that differ
CONV = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize=3\npad=1\nactivation={}\n{}\n"
YOLO_KEYS = (
    "[convolutional]\nfilters=24\nsize=1\nstride=1\npad=1\nactivation=logistic\n\n[yolo]\nmask={}\nclasses=3\nnum=6\n"
    "anchors=10,13, 16,30, 33,23, 30,61, 20,45, "
    "59,50\nignore_thresh=.7\ntruth_thresh=1\nscale_x_y=2.0\nnew_coords=1\n"
    "iou_loss=ciou\niou_normalizer=1\nobj_normalizer=4\n\n"
)
LOGISTIC_CIOU = (
    "[net]\nwidth=96\nheight=64\nchannels=3\n\n"
    + CONV.format(8, "mish", "stride_x=2\nstride_y=1\n")
    + CONV.format(12, "swish", "stride_x=1\nstride_y=2\n")
    + CONV.format(12, "leaky", "stride=1\ndilation=2\n")
    + "[shortcut]\nfrom=-2\nactivation=linear\n\n"
    + CONV.format(16, "leaky", "stride=2\n")
    + YOLO_KEYS.format("0,1,2")
    + "[route]\nlayers=-3\n\n"
    + CONV.format(16, "leaky", "stride=2\n")
    + YOLO_KEYS.format("3,4,5")
)


def networks(head: str) -> dict[str, Cfg]:
    """The golden cfgs whose heads are of a kind, by name."""
    folder = Path(__file__).resolve().parent / "golden"
    cfgs = {path.parent.name: read_cfg(str(path)) for path in sorted(folder.glob("*/net.cfg"))}
    return {name: cfg for name, cfg in cfgs.items() if any(section.type == head for section in cfg.layers)}


GOLDEN = networks("yolo")
YOLO = {**GOLDEN, "logistic-ciou": parse_cfg(LOGISTIC_CIOU, "logistic-ciou.cfg")}


def wanted_sizes(model: Darknet) -> list[tuple[float, float]]:
    """A box near the narrowest anchor of every head, near the two narrowest of a single head; pixels."""
    each = 2 if len(model.heads) == 1 else 1
    sizes = [size for head in model.heads for size in sorted(head.anchors)[:each]]
    return [(0.9 * min(w, model.cfg.width), 0.9 * min(h, model.cfg.height)) for w, h in sizes]


def picture(model: Darknet, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rectangles in the color of their class on noise, side by side, (C, H, W) in 0..1, and their rows
    (class, centre, size).

    A mark stands in the middle of each: several of these networks see less than a whole rectangle, and from
    inside it one place would look like the next.
    """
    g = torch.Generator().manual_seed(seed)
    height, width, channels, classes = (
        model.cfg.height,
        model.cfg.width,
        model.cfg.channels,
        model.heads[0].classes,
    )
    pixels, rows, left = 0.3 * torch.rand(channels, height, width, generator=g), [], 0.0
    sizes = wanted_sizes(model)[:: -1 if seed % 2 else 1]
    gap = (width - sum(w for w, _ in sizes)) / len(sizes)
    for i, (w, h) in enumerate(sizes):
        x, y = (torch.rand(2, generator=g) * torch.tensor([gap, height - h])).tolist()
        x1, y1, x2, y2 = round(left + x), round(y), round(left + x + w), round(y + h)
        left += x + w
        label = (i + seed) % classes
        color = (
            torch.eye(classes)[label, :3] if channels == 3 else torch.tensor([0.4 + 0.6 * label / classes])
        )
        pixels[:, y1:y2, x1:x2] = color.view(-1, 1, 1)
        row, column = (y1 + y2) // 2, (x1 + x2) // 2
        pixels[:, row - 3 : row + 3, column - 3 : column + 3] = (
            1 - pixels[:, row - 3 : row + 3, column - 3 : column + 3]
        )
        rows.append(
            [label, (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
        )
    return pixels, torch.tensor(rows)


@dataclass
class Bench:
    """A network, two pictures and a run on them.

    Attributes:
        images: (2, C, H, W). targets: (N, 6). losses: the sum of each step. early: the gammas after
            SPARSE_STEPS steps.
        steepest: the largest slope that each value of each parameter ever had.
    """

    run: Run
    images: torch.Tensor
    targets: torch.Tensor
    losses: list[float]
    steepest: dict[str, torch.Tensor]
    early: list[torch.Tensor]


def bench(cfg: Cfg, s: float | None = None) -> Bench:
    """The network with random weights, the pictures, and the parts of the real loop; with `s` it is sparsity
    training.
    """
    torch.manual_seed(0)
    model = Darknet(cfg).to(memory_format=torch.channels_last)
    pairs = [picture(model, seed) for seed in (0, 1)]
    targets = torch.cat(
        [torch.cat([torch.full((len(rows), 1), float(i)), rows], 1) for i, (_, rows) in enumerate(pairs)]
    )
    run = Run(
        model=model.train(),
        objective=Objective(Detection(model.heads)),
        optimizer=make_optimizer(model, LR, MOMENTUM, 0.0005),
        schedule=Schedule(LR, STEPS, burn_in=STEPS // 10),
        precision=Precision("off", torch.device("cpu")),
        clip=5.0,
        constraints=[penalties.L1(prunable.prunable_gammas(model), s)] if s else [],
        ema=None if s else EMA(model, 0.9),
    )
    return Bench(run, torch.stack([pixels for pixels, _ in pairs]), targets, [], {}, [])


def advance(b: Bench, steps: int) -> None:
    for _ in range(steps):
        parts, _ = train_step(b.run, b.images, b.targets)
        b.losses.append(sum(parts.values()))
        for name, p in b.run.model.named_parameters():
            if p.grad is not None:
                b.steepest[name] = torch.maximum(b.steepest.get(name, torch.zeros(())), p.grad.abs())


@pytest.fixture(scope="module", params=YOLO)
def trained(request) -> Bench:
    """A golden network after STEPS steps."""
    b = bench(YOLO[request.param])
    advance(b, SPARSE_STEPS)
    b.early = [bn.weight.detach().clone() for bn in b.run.model.batch_norms().values()]
    advance(b, STEPS - SPARSE_STEPS)
    return b


def test_the_fixtures_hold_every_family(golden):
    """What is special about each family stands in some cfg that is trained here."""
    graphs = [Graph(cfg) for cfg in YOLO.values()]
    opts = [(node.type, node.opts) for graph in graphs for node in graph.nodes]
    assert {kind for kind, _ in opts} >= {
        "sam",
        "scale_channels",
        "avgpool",
        "dropout",
        "reorg3d",
        "upsample",
        "maxpool",
        "route",
    }
    convolutions = [o for kind, o in opts if kind == "convolutional"]
    assert {o["activation"] for o in convolutions} >= {"leaky", "mish", "swish", "logistic", "linear"}
    assert any(o["groups"] == o["filters"] > 1 for o in convolutions) and any(
        1 < o["groups"] < o["filters"] for o in convolutions
    )
    assert any(o["dilation"] > 1 for o in convolutions) and any(
        o["stride_x"] != o["stride_y"] for o in convolutions
    )
    shortcuts = [o for kind, o in opts if kind == "shortcut"]
    assert {o["weights_type"] for o in shortcuts} == {"none", "per_feature", "per_channel"}
    assert any(len(node.inputs) > 2 for graph in graphs for node in graph.nodes if node.type == "shortcut")
    heads = [o for kind, o in opts if kind == "yolo"]
    assert (
        any(o["new_coords"] for o in heads)
        and any(o["iou_loss"] == "ciou" for o in heads)
        and any(o["scale_x_y"] > 1 for o in heads)
    )


def test_each_truth_belongs_to_the_head_that_it_was_drawn_for(trained):
    model, rows = trained.run.model, trained.targets[trained.targets[:, 0] == 0]
    sizes = rows[:, 4:] * torch.tensor([model.cfg.width, model.cfg.height])
    best = wh_iou(sizes, torch.tensor(model.heads[0].all_anchors)).argmax(1).tolist()
    each = 2 if len(model.heads) == 1 else 1
    assert [
        anchor in head.mask
        for anchor, head in zip(best, [h for h in model.heads for _ in range(each)], strict=True)
    ] == [True, True]


@pytest.mark.parametrize("name", YOLO)
def test_targets_invert_the_decode(name):
    """A map that says each truth exactly, worked out by hand, decodes to the truth, and the loss has nothing
    to say about its boxes.
    """
    model = Darknet(YOLO[name])
    (height, width), rows = (model.cfg.height, model.cfg.width), picture(model, 0)[1].double()
    best = (
        wh_iou(rows[:, 3:] * torch.tensor([width, height]), torch.tensor(model.heads[0].all_anchors))
        .argmax(1)
        .tolist()
    )
    for head in model.heads:
        grid_h, grid_w = model.graph.nodes[head.index].shape[1:]
        raw = torch.full((1, len(head.mask), grid_h, grid_w, 5 + head.classes), 0.2, dtype=torch.float64)
        for row, anchor in zip(rows, best, strict=True):
            if anchor not in head.mask:
                continue
            x, y, w, h = row[1] * grid_w, row[2] * grid_h, row[3] * width, row[4] * height
            where = (0, head.mask.index(anchor), int(y), int(x))
            xy = (torch.stack([x - int(x), y - int(y)]) + (head.scale_x_y - 1) / 2) / head.scale_x_y
            wh = torch.stack([w, h]) / torch.tensor(head.all_anchors[anchor])
            raw[where][:4] = torch.cat([xy, (wh / 4).sqrt()] if head.new_coords else [xy.logit(), wh.log()])
            decoded = decode(raw, head, (height, width)).view(raw.shape)[where][:4]
            assert torch.allclose(decoded, row[1:] * torch.tensor([width, height] * 2), rtol=1e-6)
            raw.requires_grad_()
            truth = torch.cat([torch.zeros(1), row])[None]
            total, parts = DetectionLoss([head])([raw], truth, (height, width))
            slope = torch.autograd.grad(total, raw)[0]
            raw = raw.detach()
            assert (
                slope[where][4] < 0 and int((slope[..., 4] < 0).sum()) == 1
            )  # an object here, and nowhere else
            if head.opts["iou_loss"] == "mse":
                assert float(slope[..., :4].abs().max()) < 1e-6
            else:
                assert (
                    float(parts["box"]) < 2e-5
                )  # 1e-7 in the denominators, over areas of a hundredth and more


def test_the_loss_is_finite_and_falls(trained):
    assert len(trained.losses) == STEPS and all(math.isfinite(v) for v in trained.losses)
    assert trained.losses[-1] < trained.losses[0] / 20
    middle, end = trained.losses[STEPS // 2 - 10 : STEPS // 2], trained.losses[-10:]
    assert sum(end) < sum(middle)


def test_every_parameter_gets_a_gradient(trained):
    """Each filter, gamma, beta and bias, and each weight of a shortcut, but those that no head can see."""
    model, heads = (
        trained.run.model,
        {model_input(trained.run.model, head): head for head in trained.run.model.heads},
    )
    names = dict(model.named_parameters())
    assert set(trained.steepest) == set(names)
    for name, steepest in trained.steepest.items():
        reached = (
            steepest.gt(0)
            if name.endswith(".weights") or steepest.ndim == 1
            else steepest.flatten(1).gt(0).any(1)
        )
        head = heads.get(int(name.split(".")[1]))
        if head is not None:
            assert bool(reached[asked_of(trained, head)].all()), name
        elif not bool(reached.all()):
            assert not changes_the_maps(trained, names[name], ~reached), name
    weighted = [i for i, m in enumerate(model.module_list) if isinstance(m, Shortcut) and m.kind != "none"]
    fresh = bench(model.cfg).run.model.module_list if weighted else []
    for i in weighted:
        assert float((fresh[i].factors() - model.module_list[i].factors()).detach().abs().amax()) > 1e-3


def model_input(model: Darknet, head) -> int:
    """The layer that a head reads."""
    return model.graph.nodes[head.index].inputs[0]


def asked_of(b: Bench, head) -> torch.Tensor:
    """Which outputs of a head's convolution the loss looks at: every objectness, and all of each anchor that
    has a truth.
    """
    rows = torch.zeros(len(head.mask), 5 + head.classes, dtype=torch.bool)
    rows[:, 4] = True
    sizes = b.targets[:, 4:] * torch.tensor([b.run.model.cfg.width, b.run.model.cfg.height])
    for anchor in wh_iou(sizes, torch.tensor(head.all_anchors)).argmax(1).tolist():
        if anchor in head.mask:
            rows[head.mask.index(anchor)] = True
    return rows.flatten()


def changes_the_maps(b: Bench, parameter: torch.nn.Parameter, where: torch.Tensor) -> bool:
    """Whether the heads see another value of a parameter, at all."""
    b.run.model.eval()
    with torch.no_grad():
        before, was = b.run.model.raw_heads(b.images), parameter.clone()
        parameter[where] += 0.5
        after = b.run.model.raw_heads(b.images)
        parameter.copy_(was)
    b.run.model.train()
    return not all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


def test_boxes_are_found(trained):
    """By the head that each truth belongs to, in the right class, and nothing else; by the weights and by
    their average.
    """
    model, size = trained.run.model, (trained.run.model.cfg.height, trained.run.model.cfg.width)
    for network in (model, trained.run.judged):
        was = network.training
        network.eval()
        with torch.no_grad():
            raws, whole = network.raw_heads(trained.images), network(trained.images)
        network.train(was)
        pieces = [decode(raw, head, size) for raw, head in zip(raws, network.heads, strict=True)]
        assert torch.equal(torch.cat(pieces, 1), whole)
        for image in range(2):
            for head, piece in zip(network.heads, pieces, strict=True):
                found = detections(piece[image : image + 1], 0.3, 0.5)[0]
                truths = of_head(trained, image, head)
                assert len(found) == len(truths)
                for label, box in truths:
                    mine = found[found[:, 5] == label]
                    assert len(mine) == 1 and float(iou_matrix(box[None], mine[:, :4])) > 0.5


def of_head(b: Bench, image: int, head) -> list[tuple[int, torch.Tensor]]:
    """Class and corners in pixels of the truths of an image whose best anchor is one of the head's."""
    scale = torch.tensor([b.run.model.cfg.width, b.run.model.cfg.height] * 2)
    rows = b.targets[b.targets[:, 0] == image]
    best = wh_iou(rows[:, 4:] * scale[2:], torch.tensor(head.all_anchors)).argmax(1)
    return [
        (int(row[1]), xywh_to_xyxy(row[2:] * scale))
        for row, anchor in zip(rows, best, strict=True)
        if int(anchor) in head.mask
    ]


def test_gammas_shrink_under_l1(trained):
    """Against the same run without the penalty: those that may be cut shrink by about the dose, the others do
    not.
    """
    sparse = bench(trained.run.model.cfg, S)
    advance(sparse, SPARSE_STEPS)
    assert all(math.isfinite(v) for v in sparse.losses) and sparse.losses[-1] < sparse.losses[0] / 2
    # step i moves by lr times s (1 + m + ... + m^i)
    dose = sum(
        S * sparse.run.schedule(i) * (1 - MOMENTUM ** (i + 1)) / (1 - MOMENTUM) for i in range(SPARSE_STEPS)
    )
    layers = list(sparse.run.model.batch_norms())
    pressed = {g.layer: g.mask > 0 for g in sparse.run.constraints[0].gammas}
    shrunk, other = [], []
    for layer, bn, dense in zip(layers, sparse.run.model.batch_norms().values(), trained.early, strict=True):
        mask = pressed.get(layer, torch.zeros_like(dense, dtype=torch.bool))
        change = dense.abs() - bn.weight.detach().abs()
        shrunk, other = [*shrunk, change[mask]], [*other, change[~mask]]
    shrunk, other = torch.cat(shrunk), torch.cat(other)
    assert len(shrunk) and 0.2 < dose < 0.7
    assert float(shrunk.mean()) == pytest.approx(dose, rel=0.25) and float((shrunk > 0).float().mean()) > 0.95
    assert not len(other) or abs(float(other.mean())) < 0.2 * dose


def test_one_image_a_step_trains_what_has_one_value_a_channel():
    """Squeeze and excite behind [avgpool]: the running statistics stand in, the rest of the network trains as
    ever.
    """
    cfg = next(c for c in GOLDEN.values() if any(node.type == "avgpool" for node in Graph(c).nodes))
    b = bench(cfg)
    b.images, b.targets = b.images[:1], b.targets[b.targets[:, 0] == 0]
    small = [
        bn for i, bn in b.run.model.batch_norms().items() if b.run.model.graph.nodes[i].shape[1:] == (1, 1)
    ]
    before = [bn.running_var.clone() for bn in small]
    advance(b, 20)
    assert small and all(torch.equal(bn.running_var, was) for bn, was in zip(small, before, strict=True))
    assert all(math.isfinite(v) for v in b.losses) and b.losses[-1] < b.losses[0]
    assert all(bool(b.steepest[name].gt(0).any()) for name, _ in b.run.model.named_parameters())
