"""Engines give the boxes that PyTorch gives, on the golden networks and on random ones; what they cannot
run or read is said in a line.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import TINY, tiny_model, write
from random_cfgs import random_network

from darkslim.base.errors import FileError, RequestError
from darkslim.base.libraries import library
from darkslim.deploy import engines, formats
from darkslim.deploy.carried import Carried
from darkslim.deploy.onnx_file import metadata, onnx_model
from darkslim.network.cfg import parse_cfg
from darkslim.network.darknet import Darknet
from darkslim.network.weights import load_model
from darkslim.pipelines.running import running
from darkslim.pruning.fuse import fuse

GOLDEN = sorted(path.parent for path in (Path(__file__).parent / "golden").glob("*/*.cfg"))
EXACT = ("torch-folded", "onnxruntime", "openvino", "opencv", "ncnn")
LIBRARIES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "opencv": "cv2", "ncnn": "pnnx"}


def need(engine: str) -> None:
    if engine in LIBRARIES:
        pytest.importorskip(LIBRARIES[engine], reason=f"the engine {engine} is not installed")


def golden(folder: Path) -> Darknet:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_model(str(next(folder.glob("*.cfg"))), str(next(folder.glob("*.weights")))).eval()


def apart(model, network, x: torch.Tensor) -> float:
    """The largest difference, as a share of what is above 1."""
    with torch.inference_mode():
        mine, its = model(x), network(x)
    assert mine.shape == its.shape and its.dtype == torch.float32
    return float(torch.where(mine == its, 0, (mine - its).abs() / mine.abs().clamp(min=1)).max())


def test_where_no_engine_is_asked_for_norms_are_folded_if_they_can_be():
    model, device = random_network(1).eval(), torch.device("cpu")
    assert model.batch_norms()
    network = running(model, None, (64, 64), device)
    assert network.name == "torch-folded" and not network.network.batch_norms()
    assert apart(model, network, torch.rand(2, model.cfg.channels, 64, 64)) < 1e-4
    with torch.no_grad():
        next(iter(model.batch_norms().values())).weight.fill_(3e38)
        next(iter(model.convolutions().values())).weight.fill_(10.0)
    assert running(model, None, (64, 64), device) is model


@pytest.mark.parametrize("engine", EXACT)
@pytest.mark.parametrize("folder", GOLDEN, ids=lambda folder: folder.name)
def test_golden_networks(folder, engine):
    need(engine)
    model = golden(folder)
    channels, *size = model.graph.input_shape
    network = engines.build(engine, fuse(model), tuple(size))
    x = torch.rand(3, channels, *size, generator=torch.Generator().manual_seed(1))
    assert apart(model, network, x) < (2e-3 if folder.name == "tiny-variance" else 1e-4)


@pytest.mark.parametrize("seed", range(40))
def test_random_networks_at_every_size_and_batch(seed):
    need("onnxruntime")
    model = random_network(seed, rare=True)
    size = model.graph.input_shape[1:]
    network = engines.build("onnxruntime", model, size)  # norms and all: they are folded by the program
    for batch, more in ((1, (0, 0)), (3, (model.graph.stride, 2 * model.graph.stride))):
        x = torch.rand(batch, 3, *(a + b for a, b in zip(size, more, strict=True)))
        assert apart(model, network, x) < 1e-3


# all that there are
ACTIVATIONS = "linear leaky relu relu6 logistic loggy tanh hardtan elu selu gelu swish mish".split()


@pytest.mark.parametrize("engine", EXACT[1:])
def test_every_activation(engine):
    need(engine)
    layers = "".join(
        f"[convolutional]\nbatch_normalize=1\nfilters=6\nsize=3\nstride=1\npad=1\nactivation={name}\n\n"
        for name in ACTIVATIONS
    )
    head, rest = TINY.split("[convolutional]", 1)
    model = Darknet(parse_cfg(head + layers + "[convolutional]" + rest)).eval()
    for bn in model.batch_norms().values():
        torch.nn.init.uniform_(bn.running_mean, -0.5, 0.5)
    network = engines.build(engine, fuse(model), (32, 32))
    assert apart(model, network, torch.rand(2, 3, 32, 32)) < 1e-4


@pytest.mark.parametrize("name", list(formats.FORMATS))
@pytest.mark.parametrize("half", [False, True])
def test_files_of_every_format_are_read_back(name, half, tmp_path):
    if half and not formats.FORMATS[name].half:
        pytest.skip("this format has no float16")
    need({"onnx": "onnxruntime", "openvino": "openvino", "ncnn": "ncnn"}.get(name, ""))
    model = fuse(tiny_model(TINY.replace("filters=6", "filters=256")))
    made = onnx_model(model, (32, 32), ["red", "green"], half=half and name == "onnx")
    found = formats.contents(name, model, made, (32, 32), ["red", "green"], half)
    assert tuple(found) == formats.FORMATS[name].ends
    network = formats.reopened(name, found)
    stored = formats.halved(name, model) if half else model
    assert apart(stored, network, torch.rand(3, 3, 32, 32)) < 1e-4
    if half:
        whole = formats.contents(name, model, onnx_model(model, (32, 32)), (32, 32), [], False)
        assert sum(map(len, found.values())) < sum(map(len, whole.values()))
    if name != "darknet":
        assert network.carried.names == ("red", "green") and network.carried.size == (32, 32)
        assert network.cfg.text == metadata(model, (32, 32), [])["cfg"]


def test_a_file_for_another_size_says_so_in_its_cfg():
    told = metadata(tiny_model(), (64, 96), [])
    carried = Carried.of(told, "x")
    assert carried.size == (64, 96) and carried.cfg.net.get("width") == "96"


def test_reduced_precision_is_near():
    model = golden(next(f for f in GOLDEN if f.name == "yolov3-tiny"))
    channels, *size = model.graph.input_shape
    network = engines.build("torch-bf16", fuse(model), tuple(size))
    assert 0 < apart(model, network, torch.rand(1, channels, *size)) < 0.1


def test_sizes_and_processors_that_do_not_fit():
    need("opencv")
    network = engines.build("opencv", fuse(tiny_model()), (32, 32))
    with pytest.raises(RequestError, match="made for 32x32, and is given 64x64"):
        network(torch.zeros(1, 3, 64, 64))
    need("openvino")
    import openvino

    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(RequestError, match="bfloat16"):
            engines.build("openvino-bf16", fuse(tiny_model()), (32, 32))


def test_what_cannot_be_opened(tmp_path):
    for end, engine in ((".onnx", "onnxruntime"), (".xml", "openvino"), (".pt", "torch")):
        need(engine)
        write(tmp_path / f"bad{end}", b"no such thing")
        with pytest.raises(FileError, match="cannot read it"):
            engines.open_file(str(tmp_path / f"bad{end}"))
    with pytest.raises(FileError, match="no such file"):
        engines.open_file(str(tmp_path / "none.onnx"))
    with pytest.raises(RequestError, match=r"ends in \.onnx"):
        write(tmp_path / "a.zip", b"")
        engines.open_file(str(tmp_path / "a.zip"))
    with pytest.raises(RequestError, match=r"does not read \.onnx"):
        engines.open_file(str(tmp_path / "bad.onnx"), "ncnn")
    write(tmp_path / "net.param", b"7767517\n0 0\n")
    with pytest.raises(FileError, match="no such file"):
        engines.open_file(str(tmp_path / "net.param"))
    write(tmp_path / "net.bin", b"")
    write(tmp_path / "net.json", b"[1]")
    with pytest.raises(FileError, match="what network it is"):
        engines.open_file(str(tmp_path / "net.param"))
    with pytest.raises(RequestError, match="pip install nothing_of_that_name"):
        library("nothing_of_that_name")


@pytest.mark.parametrize(
    "key, text", [("cfg", "[net]\n"), ("names", "{}"), ("names", "[1]"), ("input_size", "7")]
)
def test_files_that_say_what_makes_no_sense(key, text):
    told = metadata(tiny_model(), (32, 32), ["a", "b"])
    with pytest.raises(FileError, match="what network it is"):
        Carried.of({**told, key: text}, "x.onnx")


def test_a_foreign_onnx_file(tmp_path):
    need("onnxruntime")
    made = onnx_model(tiny_model(), (32, 32))
    del made.metadata_props[:]
    write(tmp_path / "a.onnx", made.SerializeToString())
    with pytest.raises(FileError, match="what network it is"):
        engines.open_file(str(tmp_path / "a.onnx"))


def test_constants_are_shared_and_layers_named():
    need("onnxruntime")
    made = onnx_model(tiny_model(), (32, 32))
    names = [node.name for node in made.graph.node]
    assert len(set(names)) == len(names) and "layer_0/conv" in names and "layer_1/conv" in names
    sizes = [int(np.prod(one.dims)) for one in made.graph.initializer]
    assert sum(sizes) < 7 * 6 + 7 + 6 * 27 + 5 * 6 + 100
