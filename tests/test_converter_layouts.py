"""converter.py on data sets as they are handed around: YOLO exports, other folders, no lists."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest
from commands import call, check, perform, picture, write

from darkslim.data.check import check_dataset
from darkslim.data.datafile import read_data

ROW = "{} 0.5 0.5 0.25 0.5\n"


@pytest.fixture
def convert(tmp_path, monkeypatch, capfd):
    """Runs the command on `in`: (exit code, what it said on stdout, the lines on stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *more, source="in"):
        words = ["--format", name, "--input", source, "--output", "out", *more]
        code, said = perform(capfd, "converter", words)
        return code, said.out, said.err.splitlines()

    return run


def lists() -> dict[str, list[str]]:
    config = read_data("out/out.data")
    return {
        key: [Path(line).name for line in getattr(config, key).read_text().split()]
        for key in ("train", "valid", "test")
        if getattr(config, key) is not None
    }


def roboflow(root: Path, splits=("train", "valid", "test"), entry="../{}/images") -> None:
    for number, split in enumerate(splits):
        for i in range(3):
            picture(root / f"{split}/images/{split}{i}.jpg", (40, 30 + number))
            write(root / f"{split}/labels/{split}{i}.txt", ROW.format(i))
    keys = {"train": "train", "valid": "val", "test": "test"}
    text = "".join(f"{keys[s]}: {entry.format(s)}\n" for s in splits)
    write(root / "data.yaml", text + "nc: 3\nnames: ['red cell', b, 7]\nroboflow:\n  license: MIT\n")


def test_roboflow(convert):
    roboflow(Path("in"))
    code, _, lines = convert("yolo")
    assert (code, lines) == (0, [])
    assert lists() == {
        "train": ["train0.jpg", "train1.jpg", "train2.jpg"],
        "valid": ["valid0.jpg", "valid1.jpg", "valid2.jpg"],
        "test": ["test0.jpg", "test1.jpg", "test2.jpg"],
    }
    assert read_data("out/out.data").names == ["red cell", "b", "7"]
    assert check_dataset("out/train.txt", 3).per_class() == [1, 1, 1]


@pytest.mark.parametrize("kind", ("folders", "path", "lists", "elsewhere"))
def test_ultralytics(convert, tmp_path, kind):
    root = tmp_path / "in"
    for split in ("train", "val"):
        for i in range(2):
            picture(root / f"images/{split}/{i}.PNG", (40, 30 if split == "train" else 31))
            write(root / f"labels/{split}/{i}.txt", ROW.format(i))
    head = {"path": f"path: {root}\n", "elsewhere": "path: ../datasets/coco8\n"}.get(kind, "")
    text = head + "train: images/train\nval: images/val\ntest:\nnames:\n  0: cat\n  1: dog\n"
    if kind == "lists":
        for split in ("train", "val"):
            write(root / f"{split}.txt", f"./images/{split}/0.PNG\n./images/{split}/1.PNG\n")
        text = text.replace("images/train", "train.txt").replace("images/val", "val.txt")
    write(root / "my.yaml", text)
    code, out, lines = convert("yolo", source="in/my.yaml")
    assert (code, lines) == (0, [])
    assert lists() == {"train": ["0.PNG", "1.PNG"], "valid": ["val_0.PNG", "val_1.PNG"]}
    assert "pictures renamed, since their names clash: 2" in out
    assert check_dataset(
        "out/valid.txt" if Path("out/valid.txt").exists() else "out/val.txt", 2
    ).per_class() == [1, 1]


def test_images_labels_and_a_file_of_classes(convert):
    """What LabelImg and Label Studio leave: no splits; a share is drawn."""
    for i in range(10):
        picture(Path(f"in/images/{i}.jpg"), (40, 30 + i))
        write(Path(f"in/labels/{i}.txt"), ROW.format(i % 2))
    write(Path("in/classes.txt"), "cat\ndog\n")
    code, out, _ = convert("yolo")
    assert code == 0 and "2 of 10 pictures, drawn by the seed, are val.txt" in out
    first = lists()
    assert (
        len(first["train"]) == 8
        and len(first["valid"]) == 2
        and not set(first["train"]) & set(first["valid"])
    )
    shutil.rmtree("out")
    assert convert("yolo")[0] == 0 and lists() == first
    assert convert("yolo", "--split", 0.5, "--seed", 1)[0] == 0
    assert len(lists()["valid"]) == 5


def test_polygons_and_rows_that_make_no_sense(convert):
    roboflow(Path("in"), ("train", "valid"), "{}/images")
    write(
        Path("in/train/labels/train0.txt"),
        "0 0.1 0.2 0.5 0.2 0.5 0.6 0.1 0.6\n0 0.1 0.2 0.5\n9 .5 .5 .1 .1\n",
    )
    Path("in/train/labels/train1.txt").unlink()
    code, out, _ = convert("yolo", "--json", "o.json")
    assert code == 0 and "polygons of which the bounding box was taken: 1" in out
    assert Path("out/labels/train0.txt").read_text() == "0 0.300000 0.400000 0.400000 0.400000\n"
    skipped = json.loads(Path("o.json").read_text())["skipped"]
    assert [s["file"] for s in skipped] == [f"in/train/labels/train0.txt:{n}" for n in (2, 3)]
    assert "pictures without a label file (background): 1" in out


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "holds no keys"),
        ("train: [", "is no YAML"),
        ("train: train/images\nnames: [a, b, c, d]\nnc: 3\n", "nc: 3, and 4 names"),
        ("train: train/images\nnames: {0: a, 2: b}\n", "numbers classes with gaps"),
        ("train: train/images\nnames: [[a]]\n", "a name that is no text"),
        ("train: nowhere\nnames: [a]\n", "nowhere is not there"),
        ("train: 7\nnames: [a]\n", "'7' is no path"),
        ("train: train/images\n", "names no classes"),
        (
            "a: &a [x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in itertools.pairwise("abcdefghi")),
            "names no",
        ),
        ("names: !!python/object/apply:os.system ['true']\n", "is no YAML"),
        ("[" * 5000, "is no YAML"),
        ("names: [" + "a, " * 200_000 + "]", "is 600,009 bytes long"),
    ],
    ids=range(12),
)
def test_yaml_that_is_refused(convert, text, said):
    roboflow(Path("in"), ("train",))
    write(Path("in/data.yaml"), text)
    code, _, lines = convert("yolo")
    check(code, lines, "in", said)
    assert not Path("out").exists()


VOC = """<annotation><filename>{}</filename><object><name>{}</name><bndbox><xmin>5</xmin><ymin>5</ymin>
<xmax>20</xmax><ymax>20</ymax></bndbox></object></annotation>"""


def voc(annotations: str, images: str, ids, suffix=".jpg", name="cat") -> None:
    for i, ident in enumerate(ids):
        picture(Path(images) / f"{ident}{suffix}", (40, 30 + i + len(annotations)))
        write(Path(annotations) / f"{ident}.xml", VOC.format(f"{ident}{suffix}", name))


@pytest.mark.parametrize(
    "annotations, images",
    [("in/annots", "in/images"), ("in/annotations", "in/Images"), ("in", "in"), ("in/xml", "in")],
)
def test_voc_in_other_folders(convert, annotations, images):
    voc(annotations, images, range(10))
    code, out, lines = convert("voc", "--split", 0.3)
    assert (code, lines) == (0, []) and "3 of 10 pictures" in out
    assert len(lists()["train"]) == 7 and len(lists()["valid"]) == 3


def test_voc_a_folder_a_split(convert):
    for split in ("train", "valid", "test"):
        voc(f"in/{split}", f"in/{split}", [f"{split}{i}" for i in range(2)])
    assert convert("voc")[0] == 0
    assert lists() == {"train": ["train0.jpg", "train1.jpg"], "valid": ["test0.jpg", "test1.jpg"]}
    assert len(Path("out/val.txt").read_text().split()) == 2


@pytest.mark.parametrize(
    "suffix", (".jpeg", ".JPG", ".Png", ".bmp", ".tif", ".TIFF", ".webp", ".gif", ".ppm")
)
def test_voc_every_suffix_that_training_reads(convert, suffix):
    voc("in/Annotations", "in/JPEGImages", range(3), suffix)
    assert convert("voc")[0] == 0
    assert len(check_dataset("out/train.txt", 1).images) == 2


def test_voc2012_never_trains_on_what_it_validates_on(convert):
    voc("in/Annotations", "in/JPEGImages", range(6))
    for name, ids in {"train": "0\n1\n2\n", "val": "3\n4\n5\n", "trainval": "0\n1\n2\n3\n4\n5\n"}.items():
        write(Path(f"in/ImageSets/Main/{name}.txt"), ids)
    code, _, lines = convert("voc")
    assert (code, lines) == (0, [])
    assert lists() == {"train": ["0.jpg", "1.jpg", "2.jpg"], "valid": ["3.jpg", "4.jpg", "5.jpg"]}
    check(*convert("voc", "--split", 0.5)[::2], "--split", "lists of its own: train, val, trainval")


def test_names_and_pictures_that_differ_by_case_only(convert):
    voc("in/Annotations", "in/JPEGImages", ["a"], ".jpg", "Cat")
    voc("in/Annotations", "in/JPEGImages", ["A"], ".jpg", "cat ")
    voc("in/Annotations", "in/JPEGImages", ["b"], ".jpg", "c at")
    write(Path("in/ImageSets/Main/train.txt"), "a\nA\nb\n")
    code, out, lines = convert("voc")
    assert code == 0 and "pictures renamed, since their names clash: 1" in out
    assert [x for x in lines if "differ by letter case" in x and "'Cat' and 'c at' and 'cat'" in x]


def test_lists_that_share_pictures(convert):
    roboflow(Path("in"), ("train", "valid"))
    shutil.copy("in/train/images/train1.jpg", "in/valid/images/valid2.jpg")
    code, _, lines = convert("yolo")
    assert code == 0 and len(lines) == 1
    assert "1 pictures are in train.txt and in val.txt" in lines[0] and lines[0].endswith("valid2.jpg")


@pytest.mark.parametrize("kind", ("roboflow", "beside", "images"))
def test_coco_beside_its_pictures(convert, kind):
    parts = {"roboflow": ("train", "valid"), "beside": ("",), "images": ("",)}[kind]
    for part in parts:
        images = [{"id": i, "file_name": f"{part}{i}.jpg", "width": 40, "height": 30 + i} for i in range(5)]
        boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [5, 5, 10, 10]} for i in range(5)]
        content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
        write(Path("in") / part / "_annotations.coco.json", json.dumps(content))
        for i in range(5):
            sub = "images" if kind == "images" else ""
            picture(Path("in") / part / sub / f"{part}{i}.jpg", (40 + len(part) * (part == "train"), 30 + i))
    code, _, lines = convert("coco")
    assert (code, lines) == (0, [])
    assert {key: len(names) for key, names in lists().items()} == (
        {"train": 5, "valid": 5} if kind == "roboflow" else {"train": 4, "valid": 1}
    )


def test_anchors_of_data_in_darknets_form(convert, tmp_path, capfd):
    roboflow(Path("in"), ("train", "valid"))
    assert convert("yolo")[0] == 0
    for i, row in enumerate(("0 .5 .5 .5 .2", "1 .5 .5 .5 .2", "2 .5 .5 .5 .2")):
        write(Path(f"out/labels/train{i}.txt"), row + "\n")
    before = sorted(tmp_path.rglob("*"))
    words = ["--format", "darknet", "--input", "out/out.data", "--anchors", 1]
    code, said = perform(capfd, "converter", words)
    assert code == 0 and "anchors=208,83" in said.out and sorted(tmp_path.rglob("*")) == before
    cfg = "[net]\nwidth=416\nheight=416\nchannels=3\nletter_box=1\n\n[convolutional]\nsize=1\nstride=1\n"
    cfg += "filters=8\nactivation=linear\n\n[yolo]\nmask=0\nanchors=1,1\nnum=1\nclasses=3\n"
    write(Path("net.cfg"), cfg)
    code, said = perform(capfd, "converter", [*words, "--model_def", "net.cfg", "--cfg_out", "mine.cfg"])
    assert code == 0 and "anchors=208,62" in said.out  # 40 x 30 pictures fill 416 x 312 of the input
    assert "anchors=208,62" in Path("mine.cfg").read_text()
    check(*call(capfd, "converter", [*words, "--names", "out/out.names"])[:2], "--names", "leave it out")


def test_labels_beside_their_pictures(convert, tmp_path, capfd):
    """AlexeyAB's habit: images/a.jpg and images/a.txt."""
    for i in range(3):
        picture(Path(f"in/images/{i}.jpg"), (40, 30 + i))
        write(Path(f"in/images/{i}.txt"), ROW.format(i))
    write(Path("train.txt"), "".join(f"in/images/{i}.jpg\n" for i in range(3)))
    assert check_dataset("train.txt", 3).per_class() == [1, 1, 1]
    write(Path("in/labels/1.txt"), ROW.format(0))  # where both are, that of labels/ counts
    assert check_dataset("train.txt", 3).per_class() == [2, 0, 1]
    write(Path("in/classes.txt"), "a\nb\nc\n")
    assert convert("yolo")[0] == 0
