"""The commands, from sparse training through pruning to finetuning, for kinds of networks that are
unusual.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import call, write
from PIL import Image
from test_training_families import GOLDEN, networks, picture

from darkslim.network.cfg import read_cfg, write_cfg
from darkslim.network.darknet import Darknet
from darkslim.network.graph import Graph
from darkslim.network.profile import count

UNUSUAL = {
    "logistic heads": lambda node: node.opts.get("new_coords"),
    "squeeze and excite": lambda node: node.type == "scale_channels",
    "weighted shortcut": lambda node: node.opts.get("weights_type", "none") != "none",
}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Six pictures of three classes, 64 x 64, as a data set in the current folder; the last two are for
    validation.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    model, names = Darknet(next(cfg for cfg in GOLDEN.values() if cfg.channels == 3)), []
    for seed in range(6):
        pixels, rows = picture(model, seed)
        Image.fromarray((pixels.permute(1, 2, 0) * 255).byte().numpy()).save(
            tmp_path / "images" / f"{seed}.png"
        )
        write(
            tmp_path / "labels" / f"{seed}.txt",
            "".join(f"{int(c)} {x} {y} {w} {h}\n" for c, x, y, w, h in rows.tolist()),
        )
        names.append(f"images/{seed}.png\n")
    write(tmp_path / "train.txt", "".join(names[:4]))
    write(tmp_path / "valid.txt", "".join(names[4:]))
    write(tmp_path / "three.names", "red\ngreen\nblue\n")
    write(tmp_path / "three.data", "classes=3\ntrain=train.txt\nvalid=valid.txt\nnames=three.names\n")
    return tmp_path


COMMON = ["--n_cpu", "0", "--device", "cpu"]
TRAIN = ["--data_config", "three.data", "--epochs", "1", "--batch_size", "2", "--amp", "off", *COMMON]


@pytest.mark.parametrize("kind", UNUSUAL)
def test_sparse_training_pruning_and_finetuning_as_commands(golden, folder, capfd, kind):
    write_cfg(
        next(cfg for cfg in GOLDEN.values() if any(UNUSUAL[kind](node) for node in Graph(cfg).nodes)),
        "net.cfg",
    )
    code, lines, _ = call(
        capfd, "train", ["--model_def", "net.cfg", "-sr", "--s", "0.5", "--checkpoint", "sparse.pth", *TRAIN]
    )
    assert code == 0, lines
    prune = [
        "--model_def",
        "net.cfg",
        "--model",
        "sparse.pth",
        "--no_eval",
        "--percent",
        "0.5",
        "--cfg_out",
        "cut.cfg",
        "--model_out",
        "cut.pth",
        *COMMON,
    ]
    code, lines, _ = call(capfd, "test_prune", prune)
    assert code == 0, lines
    before, after = (count(Graph(read_cfg(name))).params for name in ("net.cfg", "cut.cfg"))
    assert after < before
    code, lines, _ = call(
        capfd, "train", ["--model_def", "cut.cfg", "-pre", "cut.pth", "--checkpoint", "tuned.pth", *TRAIN]
    )
    assert code == 0 and (folder / "tuned.pth").exists(), lines


@pytest.mark.parametrize("name, cfg", networks("region").items())
def test_region_heads_are_refused(folder, capfd, name, cfg):
    write_cfg(cfg, "net.cfg")
    code, lines, _ = call(capfd, "train", ["--model_def", "net.cfg", "--checkpoint", "none.pth", *TRAIN])
    assert (
        code == 2
        and len(lines) == 1
        and "this kind of head cannot be trained here" in lines[0]
        and "[yolo]" in lines[0]
    )
    assert not (folder / "none.pth").exists()
