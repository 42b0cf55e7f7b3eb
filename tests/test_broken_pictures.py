"""Pictures that cannot be read: found while converting, left out where that is asked for, everywhere."""

from __future__ import annotations

import json

import pytest
from commands import call, check, make_bench, picture, write
from PIL import Image

from darkslim.base.errors import DatasetError
from darkslim.data.check import check_dataset
from darkslim.data.images import check_image


def truncate(path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


@pytest.fixture
def bench(tmp_path, monkeypatch, capfd):
    """The toy data set with six pictures, one of which is cut off and one of which is missing."""
    monkeypatch.chdir(tmp_path)
    bench = make_bench(tmp_path, capfd)
    for i in range(6):
        picture(tmp_path / f"images/{i}.jpg", (96, 64))
        write(tmp_path / f"labels/{i}.txt", f"{i % 2} 0.5 0.5 0.25 0.25\n")
    truncate(tmp_path / "images/3.jpg")
    (tmp_path / "images/4.jpg").unlink()
    for name in ("train.txt", "valid.txt"):
        write(tmp_path / name, "".join(f"images/{i}.jpg\n" for i in range(6)))
    return bench


@pytest.mark.parametrize("name", ("train", "test", "test_prune", "slim"))
def test_every_command_that_reads_lists(bench, name):
    more = {"test_prune": ["--recalibrate", "1"]}.get(name, [])
    bench.always["test_prune"] = [w for w in bench.always["test_prune"] if w != "--no_eval"]
    bench.always["test_prune"] += ["--data_config", "two.data", "--percent", "0.3"]
    epochs = ["--epochs", "1", "--sparse_epochs", "1", "--finetune_epochs", "1"]
    bench.always["slim"] = ["--model_def", "net.cfg", "--data_config", "two.data", "--work", "slim", *epochs]
    bench.always["slim"] += ["--batch_size", "2", "--rate", "0.3", "--amp", "off"]
    line = bench.refused(name, "valid.txt" if "test" in name else "train.txt", "--skip_broken", *more)
    assert "images/3.jpg" in line and "1 unusable image, 1 missing image in 2 of 6 images" in line
    code, lines = bench.run(name, "--skip_broken", *more)
    assert code == 0, lines
    said = [x for x in lines if "2 images were left out" in x]
    assert said and all("images/3.jpg" in x and "images/4.jpg does not exist" in x for x in said)


def test_nothing_left_and_rows_that_make_no_sense(bench):
    for i in range(6):
        write(bench.folder / f"images/{i}.jpg", "no picture")
    bench.refused("train", "train.txt", "nothing is left", "--skip_broken")
    picture(bench.folder / "images/0.jpg", (96, 64))
    write(bench.folder / "labels/0.txt", "7 0.5 0.5 0.1 0.1\n")
    bench.refused("train", "train.txt", "labels/0.txt:1 class 7", "--skip_broken")


def test_large_pictures_by_a_flag(bench, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)  # as if they were large
    write(bench.folder / "train.txt", "images/0.jpg\nimages/1.jpg\nimages/2.jpg\n")
    write(bench.folder / "valid.txt", "images/0.jpg\n")
    line = bench.refused("test", "valid.txt", "--max_pixels", "--max_pixels", "6000")
    assert "more than 6,000 pixels" in line
    assert bench.run("test", "--max_pixels", "6144")[0] == 0
    assert bench.run("train", "--max_pixels", "6144", "--n_cpu", "1")[0] == 0
    bench.refused(
        "train", "train.txt", "more than 6,000 pixels", "--max_pixels", "6000"
    )  # though it is known


VOC = """<annotation><object><name>cell</name>
<bndbox><xmin>5</xmin><ymin>5</ymin><xmax>40</xmax><ymax>40</ymax></bndbox></object></annotation>"""


def voc(folder) -> list[str]:
    for i in range(3):
        picture(folder / f"in/JPEGImages/{i}.jpg", (96, 64))
        write(folder / f"in/Annotations/{i}.xml", VOC)
    write(folder / "in/ImageSets/Main/train.txt", "0\n1\n2\n")
    return ["--format", "voc", "--input", "in"]


def coco(folder) -> list[str]:
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 96, "height": 64} for i in range(3)]
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [5, 5, 30, 30]} for i in range(3)]
    text = json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cell"}]})
    write(folder / "in/annotations/instances_train.json", text)
    for i in range(3):
        picture(folder / f"in/train/{i}.jpg", (96, 64))
    return ["--format", "coco", "--input", "in"]


@pytest.mark.parametrize("make", (voc, coco))
def test_converting_decodes(tmp_path, monkeypatch, capfd, make):
    monkeypatch.chdir(tmp_path)
    words = [*make(tmp_path), "--output", "out"]
    (broken,) = (tmp_path / "in").rglob("1.jpg")
    truncate(broken)
    code, lines, _ = call(capfd, "converter", words)
    check(code, lines, "in", "1.jpg")
    assert "--skip_broken" in lines[0] and not (tmp_path / "out").exists()
    assert call(capfd, "converter", [*words, "--skip_broken"])[0] == 0
    assert len(list((tmp_path / "out/images").iterdir())) == 2
    assert sum(len(check_dataset(tmp_path / f"out/{name}.txt", 1).images) for name in ("train", "val")) == 2
    code, lines, _ = call(capfd, "converter", [*words, "--skip_broken", "--max_pixels", "6000"])
    check(code, lines, "in", "no annotated image")


def test_every_amount_that_is_missing_is_found(tmp_path):
    picture(tmp_path / "whole.jpg", (320, 240))
    data = (tmp_path / "whole.jpg").read_bytes()
    for share in (0.3, 0.6, 0.9, 0.97):
        write(tmp_path / "part.jpg", data[: int(len(data) * share)])
        with pytest.raises(DatasetError, match="broken"):
            check_image(tmp_path / "part.jpg")
