"""The pictures of a .data file as a network sees them: size, classes, letterbox, and what is refused."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest
import torch
from commands import TINY, tiny_model, write
from PIL import Image

from darkslim.base.errors import CfgError, DataFileError, DatasetError, RequestError
from darkslim.data import check_cache as cache
from darkslim.data.datafile import read_data
from darkslim.data.plain import check_classes, plain_dataset


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Two pictures in `train`, one in `valid`: 64 x 32 pixels, red, with a box in the middle."""
    monkeypatch.chdir(tmp_path)
    os.mkdir("images")
    for i in range(3):
        Image.fromarray(np.full((32, 64, 3), (200, 10, 10), np.uint8)).save(f"images/{i}.png")
        write(tmp_path / "labels" / f"{i}.txt", f"{i % 2} 0.5 0.5 0.5 0.5\n")
    write(tmp_path / "train.txt", "images/0.png\nimages/1.png\n")
    write(tmp_path / "valid.txt", "images/2.png\n")
    write(tmp_path / "two.data", "classes=2\ntrain=train.txt\nvalid=valid.txt\n")
    return tmp_path


def config(**changes):
    lines = {"classes": "2", "train": "train.txt", "valid": "valid.txt", **changes}
    with open("two.data", "w") as f:
        f.write("".join(f"{key}={value}\n" for key, value in lines.items() if value is not None))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_data("two.data")


def model_of(**net):
    return tiny_model(
        TINY.replace(
            "channels=3", "\n".join(f"{key}={value}" for key, value in {"channels": 3, **net}.items()), 1
        )
    )


def test_the_lists_at_the_size_of_the_cfg():
    train, valid = (plain_dataset(model_of(), config(), key) for key in ("train", "valid"))
    assert (len(train), len(valid)) == (2, 1)
    picture, boxes = valid[0]
    assert picture.shape == (3, 32, 32) and picture.dtype == torch.uint8
    assert picture[0].unique().tolist() == [200] and picture[1].unique().tolist() == [
        10
    ]  # stretched: red all over
    assert boxes.tolist() == [[0, 0, 0.5, 0.5, 0.5, 0.5]]
    assert train.augment is None and train[1][1][0, 1] == 1


def test_the_height_and_the_width_of_the_cfg_or_a_side():
    model = tiny_model(TINY.replace("width=32", "width=48"))
    assert plain_dataset(model, config(), "valid")[0][0].shape == (3, 32, 48)
    assert plain_dataset(model, config(), "valid", 64)[0][0].shape == (3, 64, 64)


def test_letterbox_as_the_cfg_says():
    """64 x 32 into 32 x 32: half the height, grey above and below, and the box with it."""
    picture, boxes = plain_dataset(model_of(letter_box=1), config(), "valid")[0]
    assert picture[0, 8:24].unique().tolist() == [200]
    assert (
        picture[:, :8].unique().numel() == 1
        and torch.equal(picture[:, :8], picture[:, 24:])
        and picture[0, 0, 0] != 200
    )
    assert boxes[0, 2:].tolist() == [0.5, 0.5, 0.5, 0.25]


def test_grey_pictures_for_a_network_of_one_channel():
    assert plain_dataset(model_of(channels=1), config(), "valid")[0][0].shape == (1, 32, 32)


def test_a_size_that_is_no_multiple_of_the_stride():
    with pytest.raises(
        RequestError, match="^--img_size: 30 is no multiple of the network's stride 4; use 28 or 32"
    ):
        plain_dataset(model_of(), config(), "valid", 30)
    model = tiny_model(TINY.replace("height=32", "height=34"))
    with pytest.raises(CfgError, match=r"net.cfg:3 \[net\]: height=34 is no multiple"):
        plain_dataset(model, config(), "valid")


def test_classes_that_differ():
    check_classes(model_of(), config())
    for call in (lambda c: check_classes(model_of(), c), lambda c: plain_dataset(model_of(), c, "valid")):
        with pytest.raises(
            CfgError,
            match=r"^net.cfg:\d+ \[yolo\] layer 2: classes=2; classes=3 as in two.data; use the cfg and the "
            r"data",
        ):
            call(config(classes="3"))


def test_a_second_head_of_other_classes_never_becomes_a_network():
    second = "[route]\nlayers=0\n" + TINY[TINY.rindex("[convolutional]") :]
    second = second.replace("filters=7", "filters=6").replace("classes=2", "classes=1")
    with pytest.raises(CfgError, match=r"\[yolo\] layer 5: 1 classes, and the \[yolo\] at line \d+ has 2"):
        tiny_model(TINY + second)


def test_what_the_data_lack():
    with pytest.raises(DataFileError, match="two.data: has no valid="):
        plain_dataset(model_of(), config(valid=None), "valid")
    with pytest.raises(DatasetError, match="none.txt"):
        plain_dataset(model_of(), config(valid="none.txt"), "valid")


def test_pictures_and_labels_that_cannot_be_used(folder):
    write(folder / "labels" / "2.txt", "5 0.5 0.5 0.5 0.5\n")
    with pytest.raises(DatasetError, match="labels/2.txt:1"):
        plain_dataset(model_of(), config(), "valid")
    write(folder / "labels" / "2.txt", "")
    with pytest.raises(DatasetError, match="no box in 1 images"):
        plain_dataset(model_of(), config(), "valid")
    write(folder / "images" / "0.png", b"no picture")
    with pytest.raises(DatasetError, match="images/0.png"):
        plain_dataset(model_of(), config(), "train")


def test_nothing_is_written_until_it_is_asked_for(folder, monkeypatch):
    monkeypatch.setattr(cache, "SETTLED", -(10**12))  # files of this very second are trusted

    def names() -> set[str]:
        return {str(path.relative_to(folder)) for path in folder.rglob("*")}

    config()
    before, seen = names(), []
    dataset = plain_dataset(
        model_of(), config(), "train", progress=lambda items, total, desc: seen.append((total, desc)) or items
    )
    assert names() == before and seen == [(2, "checking")]
    dataset.report.remember()
    assert len(names() - before) == 1
    assert plain_dataset(model_of(), config(), "train").report.counts["cached"] == 2
