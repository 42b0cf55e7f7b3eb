"""converter.py as a command: the three formats, what is left out and why, and requests that are refused."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import tarfile
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from commands import perform
from PIL import Image
from scipy.io import savemat

from darkslim.base.errors import DatasetError
from darkslim.data import coco_json as coco
from darkslim.data import oxford, voc
from darkslim.data.check import check_dataset
from darkslim.data.datafile import read_data


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def convert(folder, capfd):
    def run(*arguments, code=0):
        found, said = perform(capfd, "converter", arguments)
        assert found == code, said.out + said.err
        if code:
            assert said.err.startswith("error: ") and said.err.count("\n") == 1
        return said.err if code else said.out

    return run


def tree(folder) -> dict[str, str]:
    return {
        str(p): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(Path(folder).rglob("*"))
        if p.is_file()
    }


def picture(path, size=(40, 30)):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise(size, 50).convert("RGB").save(path)


def mat(path, *quads, **more):
    """An annotation as the archive has them: corners [y x], the centre of the first pixel being 1."""
    boxes = np.empty((1, len(quads)), object)
    for i, quad in enumerate(quads):
        boxes[0, i] = {
            name: np.array([[y + 0.5, x + 0.5]]) for name, (x, y) in zip("abcd", quad, strict=True)
        }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"boxes": boxes, **more}, do_compression=bool(len(quads) % 2))


def hands(root="data/hand_dataset"):
    """Five pictures in the Oxford layout."""
    quads = {
        "training/a": [[(10, 5), (20, 10), (15, 20), (5, 15)]],
        "training/b": [],
        "validation/c": [[(-5, 10), (8, 10), (8, 20), (-5, 20)]],
        "test/d": [[(0, 0), (20, 0), (20, 15), (0, 15)], [(50, 2), (60, 2), (60, 9), (50, 9)]],
        "test/a": [[(0, 0), (40, 0), (40, 30), (0, 30)]],
    }
    for name, boxes in quads.items():
        split, stem = name.split("/")
        base = oxford.split_folder(Path(root), split)
        picture(base / "images" / f"{stem}.jpg")
        mat(base / "annotations" / f"{stem}.mat", *boxes, extra=1)


def test_oxford_with_no_flags(folder, convert):
    hands()
    before = tree("data/hand_dataset")
    text = convert("--json", "o.json")
    assert tree("data/hand_dataset") == before
    assert Path("data/train.txt").read_text().split() == [
        "data/images/a.jpg",
        "data/images/b.jpg",
        "data/images/c.jpg",
    ]
    assert Path("data/valid.txt").read_text().split() == [
        "data/images/test_a.jpg",
        "data/images/d.jpg",
    ]  # the name a was taken
    assert (
        Path("data/labels/a.txt").read_text()
        == f"0 {12.5 / 40:.6f} {12.5 / 30:.6f} {15 / 40:.6f} {15 / 30:.6f}\n"
    )
    assert Path("data/labels/b.txt").read_text() == ""
    assert (
        Path("data/labels/c.txt").read_text() == f"0 {4 / 40:.6f} {15 / 30:.6f} {8 / 40:.6f} {10 / 30:.6f}\n"
    )  # clipped
    assert Path("data/labels/test_a.txt").read_text() == "0 0.500000 0.500000 1.000000 1.000000\n"
    result = json.loads(Path("o.json").read_text())
    assert (result["images"], result["boxes"], result["notes"]["boxes clipped to the image"]) == (5, 4, 1)
    assert result["lists"]["train"] == {"images": 3, "boxes": 2, "background": 1, "per_class": {"hand": 2}}
    assert [(s["what"], s["why"]) for s in result["skipped"]] == [("box 2", "outside of the image (40 x 30)")]
    assert (
        "boxes skipped: 1 (1 outside of the image (40 x 30))" in text
        and "test_data/annotations/d.mat" in text
    )
    config = read_data("data/oxfordhand.data")
    assert (config.names, str(config.train), str(config.valid)) == (
        ["hand"],
        "data/train.txt",
        "data/valid.txt",
    )
    assert check_dataset("data/train.txt", 1).counts["boxes"] == 2
    Path("data/.train.txt.cache").unlink(missing_ok=True)
    first = tree("data")
    Path("data/labels/a.txt").write_text("broken")
    convert()
    assert tree("data") == first


def test_linked_images_and_copies_of_them(folder, convert):
    hands()
    convert("--link")
    source, copy = (
        Path(p)
        for p in ("data/hand_dataset/training_dataset/training_data/images/a.jpg", "data/images/a.jpg")
    )
    assert os.path.samefile(source, copy)
    convert()
    assert not os.path.samefile(source, copy) and source.read_bytes() == copy.read_bytes()


def test_oxford_broken_files(folder, convert):
    assert (
        "data/hand_dataset/training_dataset/training_data: has no folders images and annotations"
        in convert(code=2)
    )
    hands()
    base = oxford.split_folder(Path("data/hand_dataset"), "training")
    (base / "annotations/b.mat").write_bytes(b"no mat file")
    (base / "images/a.jpg").write_bytes(b"")
    before = tree(".")
    text = convert(code=2)
    assert (
        "2 files cannot be used: " in text
        and "a.jpg: is an empty file" in text
        and "b.mat: this annotation cannot be read" in text
    )
    assert "--skip_broken" in text and tree(".") == before and not Path("data/images").exists()
    assert "files left out: 2" in convert("--skip_broken")
    assert Path("data/train.txt").read_text() == "data/images/c.jpg\n"


def test_annotations_that_are_no_annotations(folder):
    mat("a.mat", [(1, 2), (3, 4), (5, 6), (7, 8)])
    np.testing.assert_array_equal(oxford.read_mat("a.mat"), [[[1, 2], [3, 4], [5, 6], [7, 8]]])
    whole = Path("a.mat").read_bytes()
    rng = np.random.default_rng(0)
    for trial in range(60):
        data = np.frombuffer(whole, np.uint8)[: rng.integers(1, len(whole)) if trial % 2 else None].copy()
        data[rng.integers(0, len(data), 3)] = rng.integers(0, 256, 3)
        Path("a.mat").write_bytes(data.tobytes())
        try:
            oxford.read_mat("a.mat")
        except DatasetError:
            pass
    for content, message in (
        ({"x": 1}, "has no variable `boxes`"),
        ({"boxes": np.array([[1.0, 2.0]])}, "no corners a, b, c, d"),
        ({"boxes": np.array([[{"a": 1.0}]], object)}, "no corners"),
    ):
        savemat("a.mat", content)
        with pytest.raises(DatasetError, match=message):
            oxford.read_mat("a.mat")
    savemat("a.mat", {"boxes": np.zeros(9_000_000)}, do_compression=True)
    with pytest.raises(DatasetError, match="unpacks to more than"):
        oxford.read_mat("a.mat")


def annotation(*objects, size=(40, 30)) -> str:
    body = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax>"
        f"<ymax>{d}</ymax></bndbox></object>"
        for name, difficult, a, b, c, d in objects
    )
    return f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{body}</annotation>"


def vocs(root="voc"):
    root = Path(root)
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for i in range(4):
        picture(root / f"JPEGImages/{i}.jpg")
    (root / "Annotations/0.xml").write_text(annotation(("dog", 0, 1, 1, 20, 15), ("cat", 0, 11, 11, 40, 30)))
    (root / "Annotations/1.xml").write_text(
        annotation(
            ("cat", 1, 1, 1, 9, 9),
            ("dog", 0, 5, 5, 5, 9),
            ("dog", 0, "x", 5, 5, 9),
            ("emu", 0, 35, 1, 45, 9),
            size=(400, 300),
        )
    )
    for i in (2, 3):
        (root / f"Annotations/{i}.xml").write_text(annotation(("dog", 0, 2, 2, 10, 10)))
    for name, ids in {"train": "0\n1\n", "val": "2\n", "test": "3\n"}.items():
        (root / f"ImageSets/Main/{name}.txt").write_text(ids)
    return root


def test_voc(folder, convert):
    vocs()
    convert("--format", "voc", "--input", "voc", "--json", "o.json")
    config = read_data("data/voc/voc.data")
    assert config.names == ["cat", "dog", "emu"] and [str(config.train), str(config.valid)] == [
        "data/voc/train.txt",
        "data/voc/test.txt",
    ]
    assert Path("data/voc/val.txt").read_text() == "data/voc/images/2.jpg\n"
    assert (
        Path("data/voc/labels/0.txt").read_text()
        == "1 0.250000 0.250000 0.500000 0.500000\n0 0.625000 0.666667 0.750000 0.666667\n"
    )
    assert Path("data/voc/labels/1.txt").read_text() == f"2 {37 / 40:.6f} 0.150000 {6 / 40:.6f} 0.300000\n"
    result = json.loads(Path("o.json").read_text())
    assert {s["what"]: s["why"] for s in result["skipped"]} == {
        "object 1 cat": "marked difficult",
        "object 2 dog": "zero or negative width or height",
        "object 3 dog": "a coordinate is no number",
    }
    assert result["notes"] == {"images whose declared size is wrong": 1, "boxes clipped to the image": 1}
    Path("my.names").write_text("dog\ncat\n")
    convert(
        "--format", "voc", "--input", "voc", "--names", "my.names", "--keep_difficult", "--json", "o.json"
    )
    assert read_data("data/voc/voc.data").names_path == Path("my.names")
    assert Path("data/voc/labels/1.txt").read_text().split()[0] == "1"
    skipped = json.loads(Path("o.json").read_text())["skipped"]
    assert [s["why"] for s in skipped if "emu" in s["what"]] == ["its class is not among the names"]


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "is no XML"),
        ("<annotation>", "is no XML"),
        ("<html></html>", "its root is <html>"),
        (
            '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
            "has a document type",
        ),
        (
            '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]><annotation>&y;</annotation>',
            "has a document type",
        ),
        ("<annotation>&x;</annotation>", "is no XML"),
    ],
)
def test_xml_that_is_refused(folder, content, message):
    for encoding in ("utf-8", "utf-16"):
        Path("a.xml").write_bytes(content.encode(encoding) if content else b"")
        with pytest.raises(DatasetError, match=message):
            voc.read_xml("a.xml")


def test_voc_refusals(folder, convert):
    assert "voc: has no VOC annotations (.xml)" in convert("--format", "voc", "--input", "voc", code=2)
    root = vocs()
    (root / "ImageSets/Main/train.txt").write_text("../../etc/passwd\n")
    assert "train.txt:1: '../../etc/passwd' is a path" in convert("--format", "voc", "--input", "voc", code=2)
    (root / "ImageSets/Main/train.txt").write_text("0\nabsent\n")
    assert "JPEGImages/absent: the image is missing" in convert("--format", "voc", "--input", "voc", code=2)
    Path("my.names").write_text("yak\n")
    assert "no usable box in 3 images" in convert(
        "--format", "voc", "--input", "voc", "--names", "my.names", "--skip_broken", code=2
    )
    assert not Path("data").exists()


def cocos(root="coco"):
    root = Path(root)
    for name in ("train/1.jpg", "train/sub/2.jpg", "val/1.jpg"):
        picture(root / name)
    categories = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
    train = {
        "images": [
            {"id": 11, "file_name": "sub/2.jpg"},
            {"id": 10, "file_name": "1.jpg", "width": 41, "height": 30},
        ],
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 7, "bbox": [10, 5, 20, 10], "iscrowd": 0},
            {"id": 2, "image_id": 10, "category_id": 3, "bbox": [0, 0, 10, 10], "iscrowd": 1},
            {"id": 3, "image_id": 11, "category_id": 3, "bbox": [30, 10, 20.5, 10]},
            {"id": 4, "image_id": 11, "category_id": 3, "bbox": [1, 1, 0, 10]},
            {"id": 5, "image_id": 11, "category_id": 9, "bbox": [1, 1, 5, 10]},
            {"id": 6, "image_id": 99, "category_id": 3, "bbox": [1, 1, 5, 10]},
            {"id": 7, "image_id": 11, "category_id": 3, "bbox": [1, None, 5, 10]},
        ],
        "categories": categories,
    }
    val = {
        "images": [{"id": 10, "file_name": "1.jpg"}],
        "annotations": [{"image_id": 10, "category_id": 3, "bbox": [0, 0, 40, 30]}],
        "categories": categories,
    }
    (root / "annotations").mkdir()
    for name, content in (("train", train), ("val", val)):
        (root / f"annotations/instances_{name}.json").write_text(json.dumps(content))
    return root


def test_coco(folder, convert):
    cocos()
    convert("--format", "coco", "--input", "coco", "--json", "o.json")
    config = read_data("data/coco/coco.data")
    assert config.names == ["cat", "dog"] and [str(config.train), str(config.valid)] == [
        "data/coco/train.txt",
        "data/coco/val.txt",
    ]
    assert Path("data/coco/train.txt").read_text().split() == [
        "data/coco/images/1.jpg",
        "data/coco/images/2.jpg",
    ]
    assert Path("data/coco/val.txt").read_text().split() == ["data/coco/images/val_1.jpg"]
    assert Path("data/coco/labels/1.txt").read_text() == "1 0.500000 0.333333 0.500000 0.333333\n"
    assert Path("data/coco/labels/2.txt").read_text() == "0 0.875000 0.500000 0.250000 0.333333\n"
    assert Path("data/coco/labels/val_1.txt").read_text() == "0 0.500000 0.500000 1.000000 1.000000\n"
    result = json.loads(Path("o.json").read_text())
    assert {s["what"]: s["why"] for s in result["skipped"]} == {
        "annotation 4": "zero or negative width or height",
        "annotation 5": "its category is not among the names",
        "annotation 6": "its image is not in the list of images",
        "annotation 7": "bbox is not four numbers",
    }
    assert result["notes"] == {
        "crowds left out": 1,
        "boxes clipped to the image": 1,
        "images whose declared size is wrong": 1,
        "pictures renamed, since their names clash": 1,
    }


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c.pop("images"), "has no list images"),
        (lambda c: c["images"].append({"id": 1}), r"images\[2\] lacks id or file_name"),
        (lambda c: c["annotations"].append(3), r"annotations\[7\] lacks"),
        (lambda c: c["categories"].append({"id": [], "name": "x"}), "lacks id"),
        (
            lambda c: c["images"].append({"id": 5, "file_name": "../../secret.jpg"}),
            "leads out of the data set",
        ),
        (
            lambda c: c["images"].append({"id": 5, "file_name": "absent.jpg"}),
            "absent.jpg is missing; looked in coco/train, ",
        ),
        (lambda c: c["categories"].append({"id": 3, "name": "eel"}), "category 3 is 'eel', but 'cat'"),
    ],
)
def test_coco_refusals(folder, change, message):
    path = cocos() / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=message):
        coco.read_coco("coco")


def test_json_that_is_none(folder):
    path = cocos() / "annotations/instances_train.json"
    for content, message in (
        ("", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "has no list images"),
        ("3", "has no list"),
    ):
        path.write_text(content)
        with pytest.raises(DatasetError, match=message):
            coco.read_coco("coco")


def test_anchors_for_a_size(folder, convert):
    vocs()
    convert(
        "--format",
        "voc",
        "--input",
        "voc",
        "--anchors",
        2,
        "--width",
        400,
        "--height",
        300,
        "--json",
        "o.json",
    )
    found = json.loads(Path("o.json").read_text())["anchors"]
    # the training boxes: 200 x 150, 300 x 200 and 60 x 90 pixels
    assert found["sizes"] == [[60, 90], [250, 175]] and found["line"] == "anchors=60,90,250,175"
    assert found["mean_iou"] == pytest.approx((1 + 30000 / 43750 + 43750 / 60000) / 3)
    before = tree(".")
    assert "--anchors: 9 anchors from 3 different box sizes" in convert(
        "--format", "voc", "--input", "voc", "--anchors", 9, code=2
    )
    assert "--width: only matters for --anchors" in convert(
        "--format", "voc", "--input", "voc", "--width", 9, code=2
    )
    assert "absent.cfg" in convert(
        "--format", "voc", "--input", "voc", "--anchors", 2, "--model_def", "absent.cfg", code=2
    )
    assert tree(".") == before


def test_requests_that_are_refused(folder, convert):
    assert "--input: is missing" in convert("--format", "voc", code=2)
    assert "--generate: makes the Oxford layout" in convert("--format", "coco", "--generate", 5, code=2)
    assert "one of them" in convert("--download", "--generate", 5, code=2)
    assert "an https address" in convert("--download", "--url", "http://example.invalid/x", code=2)
    Path("file").write_text("")
    hands("h")
    assert "file is a file; a folder" in convert("--input", "h", "--output", "file", code=2)
    assert "file/x" in convert("--input", "h", "--output", "file/x", code=2)
    assert "absent.names: no such names file" in convert("--input", "h", "--names", "absent.names", code=2)
    Path("data/hand_dataset").mkdir(parents=True)
    assert "holds something else" in convert("--generate", 5, code=2)
    assert os.listdir("data/hand_dataset") == [] and os.listdir("data") == ["hand_dataset"]


def test_download(folder, convert):
    hands("hand_dataset")
    with tarfile.open("archive.tar.gz", "w:gz") as tar:
        tar.add("hand_dataset")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}/archive.tar.gz"
            digest = hashlib.sha256(Path("archive.tar.gz").read_bytes()).hexdigest()
            assert "its SHA-256 is" in convert("--download", "--url", url, "--sha256", "0" * 64, code=2)
            assert os.listdir("data") == []
            assert f"SHA-256 {digest}, unpacked to data/hand_dataset" in convert(
                "--download", "--url", url, "--sha256", digest
            )
        finally:
            server.shutdown()
            thread.join()
    assert tree("hand_dataset") == {k.removeprefix("data/"): v for k, v in tree("data/hand_dataset").items()}
    assert len(Path("data/train.txt").read_text().split()) == 3
    assert "nothing was fetched" in convert("--download", "--url", url)


def test_generated_hands(folder, convert):
    text = convert("--generate", 10, "--seed", 3, "--json", "o.json")
    assert "10 pictures drawn to data/hand_dataset" in text
    result = json.loads(Path("o.json").read_text())
    assert {n: c["images"] for n, c in result["lists"].items()} == {"train": 8, "valid": 2} and result[
        "boxes"
    ] >= 8
    assert sorted(os.listdir("data")) == [
        "hand_dataset",
        "images",
        "labels",
        "oxfordhand.data",
        "oxfordhand.names",
        "train.txt",
        "valid.txt",
    ]
    first = tree("data")
    assert "holds just these pictures already" in convert("--generate", 10, "--seed", 3)
    assert "holds other generated pictures" in convert("--generate", 11, "--seed", 3, code=2)
    assert tree("data") == first


def test_the_real_data_set_and_its_two_invalid_boxes(folder, convert, bccd):
    text = convert("--format", "voc", "--input", bccd, "--output", "data/bccd", "--json", "o.json")
    result = json.loads(Path("o.json").read_text())
    assert (
        result["images"] == 364 and result["names"] == ["Platelets", "RBC", "WBC"] and result["boxes"] == 4886
    )
    assert {n: (c["images"], c["boxes"]) for n, c in result["lists"].items()} == {
        "train": (205, 2804),
        "val": (87, 1137),
        "trainval": (292, 3941),
        "test": (72, 945),
    }
    assert [(Path(s["file"]).stem, s["what"], s["why"]) for s in result["skipped"]] == [
        ("BloodImage_00338", "object 13 RBC", "zero or negative width or height"),
        ("BloodImage_00343", "object 4 RBC", "zero or negative width or height"),
    ]
    assert "boxes skipped: 2" in text and "BloodImage_00338.xml" in text
    config = read_data("data/bccd/bccd.data")
    report = check_dataset(config.list_path("train"), config.classes)
    assert report.counts["images"] == 292 and report.counts["boxes"] == 3941 and report.counts["clipped"] == 0
    Path("data/bccd/.trainval.txt.cache").unlink(missing_ok=True)
    first = tree("data")
    convert("--format", "voc", "--input", bccd, "--output", "data/bccd")
    assert tree("data") == first
