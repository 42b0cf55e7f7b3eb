"""Networks of 8 bits as OpenVINO runs them: what the file rounds for another program's sake is left out."""

from __future__ import annotations

import pytest
import torch
from commands import TINY
from test_deploy_engines import GOLDEN, golden

from darkslim.base.errors import RequestError
from darkslim.deploy import engines, int8
from darkslim.deploy.engine_openvino import OpenVino
from darkslim.deploy.openvino_steps import spare
from darkslim.network.cfg import parse_cfg
from darkslim.network.darknet import Darknet
from darkslim.pruning.fuse import fuse

openvino = pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")
CONV = "[convolutional]\nfilters={}\nsize=3\nstride=1\npad=1\nactivation={}\n\n"
POOL = "[maxpool]\nsize={}\nstride={}\n\n"


def network(*layers: str) -> Darknet:
    head, rest = TINY.split("[convolutional]", 1)
    torch.manual_seed(0)
    return fuse(Darknet(parse_cfg(head + "".join(layers) + "[convolutional]" + rest)).eval())


def roundings(model) -> int:
    return sum(node.get_type_name() == "FakeQuantize" for node in model.get_ops())


def result(model, x: torch.Tensor) -> torch.Tensor:
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return torch.from_numpy(compiled(x.numpy())[0].copy())


@pytest.mark.parametrize(
    "layers, gone",
    [
        ((CONV.format(8, "leaky"),), 2),  # its own activation, and that of the layer after it
        ((CONV.format(8, "linear"), CONV.format(8, "relu")), 1),  # ONNX Runtime joins relu itself
        ((CONV.format(8, "mish"),), 1),  # stays in floats
        ((CONV.format(8, "leaky"), POOL.format(2, 2), CONV.format(8, "leaky")), 4),
        ((CONV.format(8, "leaky"), POOL.format(3, 1), POOL.format(5, 1)), 4),  # as in SPP
        ((CONV.format(8, "leaky"), POOL.format(2, 2), "[upsample]\nstride=2\n\n"), 4),
    ],
)
def test_roundings_that_openvino_does_not_need(layers, gone):
    model = network(*layers)
    made = openvino.Core().read_model(int8.of_noise(model, (32, 32)))
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    before, whole = result(made, x), roundings(made)
    assert spare(made) == gone and roundings(made) == whole - gone
    assert spare(made) == 0
    with torch.no_grad():
        wanted = model(x)
    assert 0 < float((result(made, x) - wanted).abs().mean()) <= float((before - wanted).abs().mean())


def test_choosing_from_rounded_values_changes_nothing():
    model = network(CONV.format(8, "linear"), POOL.format(2, 2), CONV.format(8, "linear"))
    made = openvino.Core().read_model(int8.of_noise(model, (32, 32)))
    x = torch.rand(2, 3, 32, 32)
    before = result(made, x)
    assert spare(made) == 2  # behind the pooling, and before the activation of the layer after these
    assert torch.allclose(result(made, x)[..., 4:], before[..., 4:], atol=5e-3)


@pytest.mark.parametrize("folder", GOLDEN[1::3], ids=lambda folder: folder.name)
def test_golden_networks_are_nearer_to_float_than_before(folder):
    model = fuse(golden(folder))
    channels, *size = model.graph.input_shape
    data = int8.of_noise(model, tuple(size))
    x = torch.rand(2, channels, *size, generator=torch.Generator().manual_seed(1))
    made = openvino.Core().read_model(data)
    with torch.no_grad():
        wanted = model(x)
    (plain, spared) = (
        float((y - wanted)[..., 4:].abs().mean()) for y in (result(made, x), OpenVino(data)(x))
    )
    assert spared <= 1.1 * plain + 1e-4


def test_boxes_beyond_float32_have_no_ranges():
    model = fuse(golden(next(folder for folder in GOLDEN if folder.name == "tiny-variance")))
    with pytest.raises(RequestError, match="not finite"):
        int8.of_noise(model, model.graph.input_shape[1:])


def test_a_written_file_is_spared_as_well(tmp_path):
    from darkslim.base.libraries import library
    from darkslim.deploy.openvino_file import openvino_files

    model = network(CONV.format(8, "leaky"), POOL.format(2, 2))
    made = library("onnx").load_from_string(int8.of_noise(model, (32, 32)))
    xml, numbers = openvino_files(made)
    (tmp_path / "net.xml").write_bytes(xml)
    (tmp_path / "net.bin").write_bytes(numbers)
    found = openvino.Core().read_model(str(tmp_path / "net.xml"))
    assert roundings(found) and spare(found) == 0
    assert engines.open_file(str(tmp_path / "net.xml"))(torch.rand(1, 3, 32, 32)).shape[2] == 7


@pytest.mark.parametrize("engine", ["onnxruntime-int8", "openvino-int8"])
def test_engines_of_eight_bits_are_for_timing(engine, tmp_path):
    model = network(CONV.format(8, "leaky"))
    boxes = engines.build(engine, model, (32, 32))(torch.rand(2, 3, 32, 32))
    assert boxes.shape == model(torch.rand(2, 3, 32, 32)).shape
    assert engine in engines.TIMED and engine not in engines.ENGINES
