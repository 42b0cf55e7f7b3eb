"""Broken and hostile data sets through the commands.

What cannot be used is refused before any work: exit 2, one line that names the list and the offenders,
nothing created or changed. What can be used is, with a warning that counts.
"""

from __future__ import annotations

import os
import pickle
import struct
import zlib

import numpy as np
import pytest
from commands import TINY, Bench, make_bench, picture, snapshot, spawn, tiny_model, write
from PIL import Image

from darkslim.data import check_cache
from darkslim.network import weights


@pytest.fixture
def bench(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_bench(tmp_path, capfd)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bomb(path, side: int) -> None:
    """A PNG of a hundred bytes that says it is side x side."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


def truncated(path) -> None:
    picture(path, format="JPEG")
    os.truncate(path, path.stat().st_size * 2 // 3)


def fifo(path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path) -> None:
    path.unlink()
    path.mkdir()


# what becomes of images/0.png, and words of the message
BAD_IMAGES = {
    "55-missing": (lambda p: p.unlink(), "1 missing image in 1 of 3 images: images/0.png does not exist"),
    "56-zero-bytes": (lambda p: p.write_bytes(b""), "images/0.png: is an empty file"),
    "57-truncated-jpeg": (truncated, "images/0.png: this image is broken"),
    "59-bomb": (lambda p: bomb(p, 60_000), "images/0.png: has more than 89,478,485 pixels"),
    "59-bomb-that-pillow-only-warns-of": (
        lambda p: bomb(p, 12_000),
        "images/0.png: has more than 89,478,485 pixels",
    ),
    "60-text-with-the-extension-of-a-picture": (
        lambda p: p.write_text("hello"),
        "images/0.png: is no image that can be read; one of JPEG",
    ),
    "60-html": (lambda p: p.write_text("<!DOCTYPE html>404"), "images/0.png: is an HTML or XML page"),
    "62-32-bit": (
        lambda p: Image.fromarray(np.zeros((8, 8), np.float32)).save(p, format="TIFF"),
        "images/0.png: has 32-bit pixels",
    ),
    "a-fifo": (fifo, "images/0.png: is a FIFO"),
    "a-folder": (folder, "images/0.png: is a folder"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_images(name, bench):
    change, words = BAD_IMAGES[name]
    change(bench.folder / "images" / "0.png")
    bench.refused("test", "valid.txt: 1 ", words)


# the row of labels/0.txt, words of the message
BAD_ROWS = {
    "65-four-columns": ("0 0.5 0.5 0.2", "4 columns, expected 5"),
    "65-six-columns": ("0 0.5 0.5 0.2 0.2 0.9", "6 columns, expected 5"),
    "66-a-word": ("0 0.5 half 0.2 0.2", "is not five numbers"),
    "67-class-2-of-2": ("2 0.5 0.5 0.2 0.2", "class 2, expected 0 to 1"),
    "68-negative-class": ("-1 0.5 0.5 0.2 0.2", "class -1, expected 0 to 1"),
    "69-class-1.5": ("1.5 0.5 0.5 0.2 0.2", "class 1.5 is no whole number"),
    "70-nan": ("0 nan 0.5 0.2 0.2", "not finite"),
    "70-nan-class": ("nan 0.5 0.5 0.2 0.2", "not finite"),
    "71-pixels": ("0 16 16 8 8", "x=16 is outside of 0 to 1 (pixels?"),
    "71-below-0": ("0 -0.5 0.5 0.2 0.2", "x=-0.5 is outside of 0 to 1"),
    "71-above-1": ("0 0.5 1.5 0.2 0.2", "y=1.5 is outside of 0 to 1"),
    "72-zero-width": ("0 0.5 0.5 0 0.2", "a box of width 0"),
    "72-zero-height": ("0 0.5 0.5 0.2 0", "a box of height 0"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_rows(name, bench):
    """The offender is named with its own file and line, behind good rows."""
    row, words = BAD_ROWS[name]
    write(bench.folder / "labels" / "0.txt", f"0 0.5 0.5 0.25 0.25\n\n{row}\n")
    line = bench.refused("test", "valid.txt: 1 bad label row in 1 of 3 images: labels/0.txt:3 ", words)
    assert "put them right" in line


# the list, words of the message
BAD_LISTS = {
    "54-empty": ("", "the list is empty"),
    "54-blank": ("\n \r\n", "the list is empty"),
    "54-html": ("<html>", "an HTML or XML page"),
    "54-picture": (b"\xff\xd8\xff\xe0", "is an image"),
    "54-utf-16": ("images/0.png\n".encode("utf-16"), "is UTF-16"),
}


@pytest.mark.parametrize("name", BAD_LISTS)
def test_bad_lists(name, bench):
    content, words = BAD_LISTS[name]
    write(bench.folder / "valid.txt", content)
    for command in ("test", "train"):
        bench.refused(command, "valid.txt: ", words)


def test_54_missing_lists(bench):
    (bench.folder / "train.txt").unlink()
    bench.refused("train", "train.txt: no such list of images", "")
    assert bench.run("test") == (0, [])


def test_train_and_prune_check_the_same(bench):
    write(bench.folder / "labels" / "1.txt", "0 0.5 0.5 0.2\n")
    bench.refused("train", "train.txt: 1 bad label row in 1 of 3 images: labels/1.txt:1 ", "4 columns")
    bench.always["test_prune"] = [word for word in bench.always["test_prune"] if word != "--no_eval"]
    bench.refused(
        "test_prune",
        "valid.txt: 1 bad label row in 1 of 3 images: labels/1.txt:1 ",
        "4 columns",
        "--data_config",
        "two.data",
    )


def test_all_are_counted_and_ten_are_named(bench):
    write(
        bench.folder / "valid.txt", "".join(f"images/absent{i}.png\n" for i in range(25)) + "images/0.png\n"
    )
    write(bench.folder / "labels" / "0.txt", "9 0.5 0.5 0.2 0.2\n")
    line = bench.refused(
        "test", "valid.txt: 25 missing images, 1 bad label row in 26 of 26 images", "and 16 more", limit=1000
    )
    assert "images/absent9.png" in line and "images/absent10.png" not in line


def test_80_relative_paths_start_from_the_current_folder(bench, monkeypatch):
    """Not from the folder of the list; the message says where they start."""
    inner = bench.folder / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    write(inner / "up.data", "classes=2\nvalid=../valid.txt\n")
    flags = ["--model_def", "../net.cfg", "--data_config", "up.data", "--weights_path", "../net.weights"]
    line = bench.refused("test", "../valid.txt: 3 missing images", "images/0.png does not exist", *flags)
    assert f"relative paths start from the current folder ({inner})" in line


def test_a_bad_list_as_a_user_meets_it(bench):
    truncated(bench.folder / "images" / "1.png")
    before = snapshot(bench.folder)
    done = spawn("train", bench.words("train", []), bench.folder)
    assert done.returncode == 2 and done.stderr.startswith(
        "error: train.txt: 1 unusable image in 1 of 3 images: images/1.png: "
    )
    assert done.stderr.count("\n") == 1 and snapshot(bench.folder) == before


def test_a_refused_run_leaves_no_cache_of_its_good_list(bench, monkeypatch):
    """train.txt is good and would be remembered, but valid.txt, or what else the run needs, is not."""
    monkeypatch.setattr(check_cache, "SETTLED", -(10**18))
    bench.refused("train", "nothing.pth: no such weights file", "", "-pre", "nothing.pth")
    write(bench.folder / "valid.txt", "images/none.png\n")
    bench.refused("train", "valid.txt: 1 missing image", "")


# ------------------------------------------------------------------------------------------------------------
# -- accepted


def score(bench: Bench) -> tuple[dict, list[int], list[str]]:
    """The report of test.py, the boxes of each class, and the warnings."""
    report, lines = bench.report("test")
    found = {row["class"]: row["truths"] for row in report["per_class"]}  # a class without truths is left out
    return report, [found.get(label, 0) for label in (0, 1)], lines


def replace(bench: Bench, mode: str, **options) -> None:
    picture(bench.folder / "images" / "0.png", mode=mode, **options)


# what becomes of images/0.png
GOOD_IMAGES = {
    "58-trailing-bytes": lambda b: (b.folder / "images/0.png").open("ab").write(b"more"),
    "58-trailing-bytes-of-a-jpeg": lambda b: (
        replace(b, "RGB", format="JPEG"),
        (b.folder / "images/0.png").open("ab").write(b"more"),
    ),
    "60-a-jpeg-called-png": lambda b: replace(b, "RGB", format="JPEG"),
    "61-rgba": lambda b: replace(b, "RGBA"),
    "61-grey": lambda b: replace(b, "L"),
    "61-grey-with-alpha": lambda b: replace(b, "LA"),
    "61-palette": lambda b: replace(b, "P"),
    "61-one-bit": lambda b: replace(b, "1"),
    "61-cmyk": lambda b: replace(b, "CMYK", format="JPEG"),
    "62-16-bit": lambda b: Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(
        b.folder / "images/0.png"
    ),
    "64-one-pixel": lambda b: replace(b, "RGB", size=(1, 1)),
    "64-a-line": lambda b: replace(b, "RGB", size=(3000, 1)),
    "64-a-column": lambda b: replace(b, "RGB", size=(1, 3000)),
}


@pytest.mark.parametrize("name", GOOD_IMAGES)
def test_odd_images_are_used(name, bench):
    GOOD_IMAGES[name](bench)
    report, truths, lines = score(bench)
    assert (report["images"], truths, lines) == (3, [2, 1], [])


def test_63_a_rotation_is_ignored_for_pixels_and_boxes(bench):
    """Stored bright on the left, with a tag that says to turn it. A network that finds bright cells finds the
    box on the left.
    """
    text = (
        TINY.split("[conv")[0]
        + "[convolutional]\nfilters=7\nsize=8\nstride=8\nactivation=linear\n\n[yolo]"
        + TINY.split("[yolo]")[1].replace("9,9", "8,8")
    )
    model = tiny_model(text)
    weight, bias = model.convolutions()[0].weight.data, model.convolutions()[0].bias.data
    weight.zero_(), bias.zero_()
    weight[4], bias[4], bias[5] = 20 / 192, -10, 9  # objectness is brightness; class 0
    weights.save_weights(model, bench.folder / "net.weights")
    write(bench.folder / "net.cfg", text)
    pixels, exif = np.zeros((32, 32, 3), np.uint8), Image.Exif()
    pixels[8:16, 0:8], exif[0x0112] = 255, 6
    Image.fromarray(pixels).save(bench.folder / "images" / "0.png", exif=exif)
    write(bench.folder / "labels" / "0.txt", "0 0.125 0.375 0.25 0.25\n")
    write(bench.folder / "valid.txt", "images/0.png\n")
    report, lines = bench.report("test")
    assert report["per_class"][0]["ap50"] == 1
    assert lines == [
        "warning: valid.txt: 1 images have an EXIF rotation, which is ignored: boxes are those of the "
        "stored pixels"
    ]


# labels/0.txt (None: no such file), boxes of each class, the warning
GOOD_LABELS = {
    "73-partly-outside": (
        "0 0.95 0.5 0.3 0.2\n1 0.5 0.02 0.2 0.2\n",
        [2, 2],
        "2 boxes stick out of their image and were clipped",
    ),
    "73-by-rounding": ("0 0.875 0.5 0.250001 0.25\n", [2, 1], None),
    "74-empty": ("", [1, 1], None),
    "74-blank-lines": ("\n \n", [1, 1], None),
    "75-missing": (
        None,
        [1, 1],
        "1 images have no label file and count as background "
        "(labels/0.txt and the like are looked for): images/0.png",
    ),
    "76-duplicates": (
        "0 0.5 0.5 0.2 0.2\n" * 3,
        [2, 1],
        "2 rows repeat another row of their label file and count once",
    ),
    "77-crlf": ("0 0.5 0.5 0.2 0.2\r\n1 0.2 0.2 0.1 0.1\r\n", [2, 2], None),
    "77-bom": ("\ufeff0 0.5 0.5 0.2 0.2\n", [2, 1], None),
    "69-class-0.0": ("0.0 0.5 0.5 0.2 0.2\n", [2, 1], None),
}


@pytest.mark.parametrize("name", GOOD_LABELS)
def test_odd_labels_are_used_and_counted(name, bench):
    text, expected, warning = GOOD_LABELS[name]
    path = bench.folder / "labels" / "0.txt"
    if text is None:
        path.unlink()
    else:
        write(path, text)
    before = snapshot(bench.folder)
    report, truths, lines = score(bench)
    assert (report["images"], truths) == (3, expected)
    assert lines == ([f"warning: valid.txt: {warning}"] if warning else [])
    (bench.folder / "report.json").unlink()
    assert snapshot(bench.folder) == before, "the user's files are never edited"


# where the picture and its label lie, and the line of the list
PATHS = {
    "77-crlf": ("images/a.png", "labels/a.txt", "images/a.png\r"),
    "78-spaces": ("my images/a picture.png", "my images/a picture.txt", "my images/a picture.png"),
    "78-unicode": (
        "images/h\u00e4nde \u624b.png",
        "labels/h\u00e4nde \u624b.txt",
        "images/h\u00e4nde \u624b.png",
    ),
    "78-blanks-around": ("images/a.png", "labels/a.txt", "  images/a.png\t"),
    "79-windows-separators": ("images/deep/a.png", "labels/deep/a.txt", "images\\deep\\a.png"),
    "79-mixed-separators": ("images/deep/a.png", "labels/deep/a.txt", ".\\images/deep\\a.png"),
    "81-images-twice": ("images/images/a.png", "images/labels/a.txt", "images/images/a.png"),
    "81-images-in-a-name": (
        "images/my_images/images.png",
        "labels/my_images/images.txt",
        "images/my_images/images.png",
    ),
    "30-shell": ("images/$(touch x); a.png", "labels/$(touch x); a.txt", "images/$(touch x); a.png"),
}


@pytest.mark.parametrize("name", PATHS)
def test_odd_paths_are_followed(name, bench):
    image, label, line = PATHS[name]
    picture(bench.folder / image)
    write(bench.folder / label, "1 0.5 0.5 0.2 0.2\n")
    write(bench.folder / "valid.txt", f"{line}\n")
    report, truths, lines = score(bench)
    assert (report["images"], truths, lines) == (1, [0, 1], []) and not list(bench.folder.rglob("x"))


def test_80_absolute_paths_are_what_they_are(bench, monkeypatch):
    write(bench.folder / "valid.txt", "".join(f"{bench.folder}/images/{i}.png\n" for i in range(3)))
    inner = bench.folder / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    write(inner / "up.data", "classes=2\nvalid=../valid.txt\n")
    assert bench.run(
        "test", "--model_def", "../net.cfg", "--data_config", "up.data", "--weights_path", "../net.weights"
    ) == (0, [])


# ------------------------------------------------------------------------------------------------------------
# - the cache


def test_82_an_edit_of_equal_length_is_seen_behind_the_cache(bench, monkeypatch):
    monkeypatch.setattr(check_cache, "SETTLED", -(10**18))
    assert score(bench)[1] == [2, 1] and (bench.folder / ".valid.txt.cache").is_file()
    path = bench.folder / "labels" / "0.txt"
    info = path.stat()
    path.write_text(path.read_text().replace("0 0.5", "1 0.5", 1))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert path.stat().st_size == info.st_size
    assert score(bench)[1] == [1, 2]


class Payload:
    def __reduce__(self):
        return os.mkdir, ("payload-ran",)


def test_83_a_poisoned_cache_is_as_none(bench, monkeypatch):
    monkeypatch.setattr(check_cache, "SETTLED", -(10**18))
    path = bench.folder / ".valid.txt.cache"
    score(bench)
    good = path.read_bytes()
    with open(bench.folder / "objects.npz", "wb") as f:
        np.savez(f, rows=np.array([Payload()], object))
    poisons = [
        pickle.dumps(Payload()),
        (bench.folder / "objects.npz").read_bytes(),
        good[:-40],
        b"",
        good.replace(struct.pack("<f", 0.25), struct.pack("<f", 0.75)),
    ]
    for poison in poisons:
        path.write_bytes(poison)
        report, truths, lines = score(bench)
        assert (report["images"], truths, lines) == (3, [2, 1], [])
    assert not list(bench.folder.rglob("payload-ran"))
