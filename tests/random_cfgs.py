"""Random valid cfgs and random parameters, for tests that must hold for any network."""

from __future__ import annotations

import random
import warnings

import torch

from darkslim.network.cfg import parse_cfg
from darkslim.network.darknet import Darknet

ACTIVATIONS = ("leaky", "leaky", "linear", "mish", "swish", "relu", "logistic", "tanh", "elu", "hardtan")
COMMON = (
    "conv",
    "conv",
    "conv",
    "residual",
    "residual",
    "shortcut",
    "route",
    "route",
    "slice",
    "up",
    "pool",
    "spp",
    "head",
)
RARE = (
    "grouped",
    "depthwise",
    "squeeze",
    "sam",
    "reorg3d",
    "reorg",
    "dropout",
    "weighted",
    "several",
    "repeat",
)


class _Writer:
    """Writes sections and keeps the (channels, size) of every layer."""

    def __init__(self, seed: int, rare: bool):
        self.rng = random.Random(seed)
        self.size = self.rng.choice((32, 48))
        self.text = [f"[net]\nwidth={self.size}\nheight={self.size}\nchannels=3"]
        self.shapes: list[tuple[int, int]] = []
        self.heads = 0
        self.kinds = COMMON + (RARE if rare else ())

    @property
    def now(self) -> tuple[int, int]:
        return self.shapes[-1] if self.shapes else (3, self.size)

    def add(self, kind: str, channels: int, hw: int, /, **keys) -> None:
        self.text.append(f"[{kind}]\n" + "\n".join(f"{k}={v}" for k, v in keys.items()))
        self.shapes.append((channels, hw))

    def reference(self, layer: int) -> int:
        """Absolute or relative, as it comes."""
        return layer if self.rng.random() < 0.3 else layer - len(self.shapes)

    def conv(self, filters=None, size=None, stride=1, activation=None, bn=None, groups=1) -> None:
        rng, (_, hw) = self.rng, self.now
        size = size or rng.choice((1, 3, 3, 5))
        keys = {"filters": filters or rng.choice((3, 4, 6, 8, 12)), "size": size, "stride": stride}
        if rng.random() < 0.95 if bn is None else bn:
            keys["batch_normalize"] = 1
        padded = rng.random() < 0.9 or hw <= 6 or stride > 1 or groups > 1
        pads = size // 2 if padded else 0
        if padded:
            keys["pad"] = 1
            if size == 3 and rng.random() < 0.1:
                keys["dilation"] = 2
        if groups > 1:
            keys["groups"] = groups
        keys["activation"] = activation or rng.choice(ACTIVATIONS)
        self.add("convolutional", keys["filters"], (hw + 2 * pads - size) // stride + 1, **keys)

    def alike(self) -> list[int]:
        """Earlier layers of the same map size, the last one left out."""
        return [i for i, (_, hw) in enumerate(self.shapes[:-1]) if hw == self.now[1]]


def _residual(w: _Writer) -> None:
    c = w.now[0]
    before = len(w.shapes) - 1
    w.conv(size=1)
    if w.rng.random() < 0.3:
        _residual(w)
    w.conv(filters=c, size=3)
    if w.shapes[-1][1] == w.shapes[before][1]:
        w.add(
            "shortcut",
            *w.now,
            **{"from": w.reference(before), "activation": w.rng.choice(("linear", "leaky"))},
        )


def _shortcut(w: _Writer) -> None:
    if w.alike():
        w.add(
            "shortcut",
            *w.now,
            **{"from": w.reference(w.rng.choice(w.alike())), "activation": w.rng.choice(("linear", "leaky"))},
        )


def _several(w: _Writer) -> None:
    same = [i for i in w.alike() if w.shapes[i][0] == w.now[0]]
    if len(same) > 1:
        pair = w.rng.sample(same, 2)
        w.add(
            "shortcut",
            *w.now,
            **{"from": ",".join(str(w.reference(i)) for i in pair), "activation": "linear"},
        )


def _weighted(w: _Writer) -> None:
    same = [i for i in w.alike() if w.shapes[i][0] == w.now[0]]
    if same:
        w.add(
            "shortcut",
            *w.now,
            **{
                "from": w.reference(w.rng.choice(same)),
                "activation": "linear",
                "weights_type": w.rng.choice(("per_feature", "per_channel")),
                "weights_normalization": w.rng.choice(("none", "relu", "softmax")),
            },
        )


def _route(w: _Writer) -> None:
    few = w.rng.sample(w.alike(), min(w.rng.choice((0, 1, 2, 3, 4, 5)), len(w.alike()))) + [len(w.shapes) - 1]
    w.rng.shuffle(few)
    if sum(w.shapes[i][0] for i in few) <= 96:
        w.add(
            "route",
            sum(w.shapes[i][0] for i in few),
            w.now[1],
            layers=",".join(str(w.reference(i)) for i in few),
        )


def _repeat(w: _Writer) -> None:
    if w.now[0] <= 24:
        w.add("route", 2 * w.now[0], w.now[1], layers="-1,-1")


def _slice(w: _Writer) -> None:
    groups = w.rng.choice((2, 2, 4))
    if w.now[0] % groups == 0:
        w.add(
            "route",
            w.now[0] // groups,
            w.now[1],
            layers="-1",
            groups=groups,
            group_id=w.rng.randrange(groups),
        )


def _up(w: _Writer) -> None:
    if w.now[1] <= 16:
        scale = {"scale": 0.5} if w.rng.random() < 0.2 else {}
        w.add("upsample", w.now[0], 2 * w.now[1], stride=2, **scale)
        _route(w)


def _pool(w: _Writer) -> None:
    c, hw = w.now
    if hw % 2 == 0 and hw > 8 and w.rng.random() < 0.6:
        w.add("maxpool", c, hw // 2, size=2, stride=2)
    else:
        w.add("maxpool", c, hw, size=w.rng.choice((2, 3)), stride=1)


def _spp(w: _Writer) -> None:
    c, hw = w.now
    if c > 16:
        return
    start = len(w.shapes) - 1
    pools = []
    for size in (3, 5):
        w.add("maxpool", c, hw, size=size, stride=1)
        pools.append(len(w.shapes) - 1)
        w.add("route", c, hw, layers=w.reference(start))
    w.add("route", 3 * c, hw, layers=",".join(str(w.reference(i)) for i in (*pools, len(w.shapes) - 1)))


def _head(w: _Writer) -> None:
    if w.heads >= 2:
        return
    back = w.reference(len(w.shapes) - 1) - 2  # past the head's own convolution and the head
    keep = len(w.shapes) - 1
    w.conv(filters=14, size=w.rng.choice((1, 1, 3)), activation="linear", bn=False)
    w.add("yolo", *w.now, mask="0,1", anchors="4,5, 10,12", classes=2, num=2)
    w.heads += 1
    w.add("route", *w.shapes[keep], layers=keep if back >= 0 else keep - len(w.shapes))


def _grouped(w: _Writer) -> None:
    if w.now[0] % 2 == 0 and w.now[0] > 2:
        w.conv(filters=8, size=3, groups=2)


def _depthwise(w: _Writer) -> None:
    if w.now[0] <= 16:
        w.conv(filters=w.now[0] * w.rng.choice((1, 1, 2)), size=3, groups=w.now[0])


def _squeeze(w: _Writer) -> None:
    c, hw = w.now
    start = len(w.shapes) - 1
    w.add("avgpool", c, 1)
    w.conv(filters=4, size=1, activation="swish", bn=w.rng.random() < 0.5)
    w.conv(filters=c, size=1, activation="logistic", bn=w.rng.random() < 0.5)
    w.add("scale_channels", c, hw, **{"from": w.reference(start)})


def _sam(w: _Writer) -> None:
    c, _ = w.now
    start = len(w.shapes) - 1
    w.conv(filters=c, size=1, activation="logistic")
    if w.now == w.shapes[start]:
        w.add("sam", *w.now, **{"from": w.reference(start)})


def _reorg3d(w: _Writer) -> None:
    if w.now[1] % 2 == 0 and w.now[1] > 8 and w.now[0] <= 12:
        w.add("reorg3d", 4 * w.now[0], w.now[1] // 2, stride=2)


def _reorg(w: _Writer) -> None:
    if w.now[1] % 2 == 0 and w.now[1] > 8 and w.now[0] <= 12 and w.now[0] % 4 == 0:
        w.add("reorg", 4 * w.now[0], w.now[1] // 2, stride=2)


def _dropout(w: _Writer) -> None:
    w.add("dropout", *w.now, probability=0.4)


def _plain(w: _Writer) -> None:
    w.conv(stride=2 if w.now[1] > 12 and w.now[1] % 2 == 0 and w.rng.random() < 0.4 else 1)


STEPS = {
    "conv": _plain,
    "residual": _residual,
    "shortcut": _shortcut,
    "route": _route,
    "slice": _slice,
    "up": _up,
    "pool": _pool,
    "spp": _spp,
    "head": _head,
    "grouped": _grouped,
    "depthwise": _depthwise,
    "squeeze": _squeeze,
    "sam": _sam,
    "reorg3d": _reorg3d,
    "reorg": _reorg,
    "dropout": _dropout,
    "weighted": _weighted,
    "several": _several,
    "repeat": _repeat,
}


def random_cfg(seed: int, rare: bool = True) -> str:
    """The text of a random detector: chains, branches, nested shortcuts, routes, slices, pools, one to three
    heads.

    Args:
        rare: also groups, depthwise, products, reorg, weighted and several-`from` shortcuts.
    """
    w = _Writer(seed, rare)
    w.conv(stride=w.rng.choice((1, 2)))
    for _ in range(w.rng.randint(3, 14)):
        STEPS[w.rng.choice(w.kinds)](w)
        if w.rng.random() < 0.5:
            w.conv()
    w.conv(filters=14, size=w.rng.choice((1, 3)), activation="linear", bn=False)
    w.add("yolo", *w.now, mask="0,1", anchors="4,5, 10,12", classes=2, num=2)
    return "\n\n".join(w.text) + "\n"


def randomise(model: Darknet, seed: int) -> Darknet:
    """Random gammas and betas of both signs, means and variances; kernels that keep the scale of what
    flows.
    """
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer, conv in model.convolutions().items():
            fan = conv.weight[0].numel()
            conv.weight.copy_(torch.randn(conv.weight.shape, generator=g) / fan**0.5)
            bn = model.batch_norms().get(layer)
            if bn is None:
                conv.bias.copy_(torch.randn(conv.bias.shape, generator=g) * 0.3)
                continue
            bn.weight.copy_(torch.randn(bn.weight.shape, generator=g))
            bn.bias.copy_(torch.randn(bn.bias.shape, generator=g) * 0.5)
            bn.running_mean.copy_(torch.randn(bn.running_mean.shape, generator=g) * 0.2)
            bn.running_var.copy_(torch.rand(bn.running_var.shape, generator=g) * 1.5 + 0.3)
        for module in model.module_list:
            if isinstance(getattr(module, "weights", None), torch.nn.Parameter):
                module.weights.copy_(torch.randn(module.weights.shape, generator=g) + 0.5)
    return model.eval()


def random_network(seed: int, rare: bool = True) -> Darknet:
    """A random detector with random parameters; the seed names it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return randomise(Darknet(parse_cfg(random_cfg(seed, rare), f"random-{seed}.cfg")), seed)
