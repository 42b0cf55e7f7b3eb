"""The network: modes, other sizes, memory, names."""

import pytest
import torch

from darkslim.network.cfg import parse_cfg
from darkslim.network.darknet import Darknet
from darkslim.network.heads import decode_boxes, flat_map, raw_map

CFG = """[net]
width=64
height=32
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky
[convolutional]
filters=14
size=1
stride=1
activation=linear
[yolo]
mask=1,2
num=3
classes=2
anchors=4,8, 16,8, 12,20
scale_x_y=1.2
[route]
layers=0
[convolutional]
filters=7
size=1
stride=1
activation=linear
[yolo]
mask=0
num=3
classes=2
anchors=4,8, 16,8, 12,20
"""


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Darknet(parse_cfg(CFG)).eval()


def test_eval_gives_boxes_and_train_gives_maps(model):
    x = torch.rand(2, 3, 32, 64)
    assert model(x).shape == (2, 3 * 16 * 32, 7)
    raws = model.train()(x)
    assert [tuple(r.shape) for r in raws] == [(2, 2, 16, 32, 7), (2, 1, 16, 32, 7)]


def test_one_box_by_hand(model):
    x = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        raw, out = model.raw_heads(x)[0][0], model(x)[0]
    a, row, column = 1, 3, 5
    t = raw[a, row, column]
    box = out[a * 16 * 32 + row * 32 + column]
    expect = torch.stack(
        (
            (t[0].sigmoid() * 1.2 - 0.1 + column) * 2,
            (t[1].sigmoid() * 1.2 - 0.1 + row) * 2,
            t[2].exp() * 12,
            t[3].exp() * 20,
            *t[4:].sigmoid(),
        )
    )
    assert torch.allclose(box, expect, atol=1e-5)


def test_new_coords_by_hand():
    text = CFG.replace("scale_x_y=1.2", "scale_x_y=2.0\nnew_coords=1")
    m = Darknet(parse_cfg(text)).eval()
    raw = torch.rand(1, 2, 16, 32, 7)
    box = decode_boxes(raw, m.heads[0], (32, 64))[0, 0, 2, 7]
    t = raw[0, 0, 2, 7]
    assert torch.allclose(
        box,
        torch.stack(
            ((t[0] * 2 - 0.5 + 7) * 2, (t[1] * 2 - 0.5 + 2) * 2, 4 * t[2] ** 2 * 16, 4 * t[3] ** 2 * 8)
        ),
    )


def test_other_and_odd_sizes(model):
    for h, w in ((64, 64), (96, 32), (48, 80)):
        out = model(torch.rand(1, 3, h, w))
        assert out.shape[1] == 3 * (h // 2) * (w // 2)
        assert 0 <= out[..., 0].min() + 2 and out[..., 0].max() <= w + 2


def test_raw_map_and_its_inverse(model):
    x = torch.rand(2, 14, 4, 5)
    assert torch.equal(flat_map(raw_map(x, model.heads[0])), x)
    assert raw_map(x, model.heads[0])[1, 1, 2, 3, 4] == x[1, 7 + 4, 2, 3]


def test_state_dict_keys_are_those_of_the_reference(model):
    assert {
        "module_list.0.conv_0.weight",
        "module_list.0.batch_norm_0.running_var",
        "module_list.1.conv_1.bias",
    } <= set(model.state_dict())


def test_layer_outputs_agree_with_forward(model):
    x = torch.rand(1, 3, 32, 64)
    outs = model.layer_outputs(x)
    assert len(outs) == 6 and torch.equal(outs[3], outs[0])
    assert torch.allclose(raw_map(outs[1], model.heads[0]), model.raw_heads(x)[0])


def test_a_grey_network():
    m = Darknet(parse_cfg(CFG.replace("channels=3", "channels=1"))).eval()
    assert m(torch.rand(1, 1, 32, 64)).shape[0] == 1
