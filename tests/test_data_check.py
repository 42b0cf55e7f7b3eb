"""Lists, labels and the check of a whole data set; the numbers are those of the list of bad inputs."""

from __future__ import annotations

import os
import struct
import warnings

import numpy as np
import pytest
from PIL import Image

from darkslim.base.errors import DatasetError
from darkslim.data import check, check_cache
from darkslim.data.check import check_dataset
from darkslim.data.labels import parse_labels
from darkslim.data.listing import label_path, read_list


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Three pictures with one box each, the current folder among them."""
    monkeypatch.chdir(tmp_path)
    for folder in ("images", "labels"):
        os.mkdir(folder)
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 255, (24, 32, 3), np.uint8)).save(f"images/{i}.jpg")
        (tmp_path / f"labels/{i}.txt").write_text(f"{i % 2} 0.5 0.5 0.25 0.5\n")
    (tmp_path / "list.txt").write_text("".join(f"images/{i}.jpg\n" for i in range(3)))
    return tmp_path


def refusal(classes=2, **kwargs) -> str:
    """The one line that a bad data set is refused with; nothing may be written."""
    before = {path: path.stat().st_mtime_ns for path in _all_files()}
    with pytest.raises(DatasetError) as error, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_dataset("list.txt", classes, **kwargs)
    assert {path: path.stat().st_mtime_ns for path in _all_files()} == before
    assert "\n" not in str(error.value) and error.value.exit_code == 2
    return str(error.value)


def _all_files():
    from pathlib import Path

    return sorted(Path(".").rglob("*"))


def age():
    """Lets the cache believe that files have been as they are for long."""
    check_cache.SETTLED = -(10**18)


@pytest.fixture(autouse=True)
def _settled(monkeypatch):
    monkeypatch.setattr(check_cache, "SETTLED", check_cache.SETTLED)


def test_a_good_set_is_counted(data):
    report = check_dataset("list.txt", 2)
    assert report.counts == {
        "images": 3,
        "boxes": 3,
        "background": 0,
        "missing_labels": 0,
        "clipped": 0,
        "duplicates": 0,
        "rotated": 0,
        "cached": 0,
    }
    assert report.per_class() == [2, 1] and report.sizes.tolist() == [[32, 24]] * 3
    np.testing.assert_allclose(report.labels(1), [[1, 0.5, 0.5, 0.25, 0.5]])


def test_54_list_missing_empty_or_something_else(data):
    os.rename("list.txt", "kept.txt")
    assert refusal().startswith("list.txt: no such list of images")
    (data / "list.txt").write_text("\n \n")
    assert "list.txt: the list is empty" in refusal()
    (data / "list.txt").write_bytes((data / "images/0.jpg").read_bytes())
    assert "is an image" in refusal()
    os.remove("list.txt")
    os.mkfifo("list.txt")
    assert "is a FIFO" in refusal()


def test_55_and_80_missing_images_state_the_base(data):
    os.remove("images/0.jpg")
    text = refusal()
    assert text.startswith("list.txt: 1 missing image in 1 of 3 images: images/0.jpg does not exist")
    assert f"relative paths start from the current folder ({data})" in text


def test_first_ten_of_many(data):
    (data / "list.txt").write_text("".join(f"images/absent{i}.jpg\n" for i in range(25)))
    text = refusal()
    assert (
        "25 missing images in 25 of 25" in text
        and "absent9.jpg" in text
        and "absent10.jpg" not in text
        and "and 15 more" in text
    )


def test_56_57_58_60_files_that_are_no_whole_pictures(data):
    whole = (data / "images/1.jpg").read_bytes()
    (data / "images/0.jpg").write_bytes(b"")
    assert "images/0.jpg: is an empty file" in refusal()
    (data / "images/0.jpg").write_bytes(b"hello, I am a picture")
    assert "images/0.jpg: is no image that can be read; one of JPEG" in refusal()
    (data / "images/0.jpg").write_text("<!DOCTYPE html><html>404")
    assert "is an HTML" in refusal()
    (data / "images/0.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    assert "images/0.jpg: this image is broken (image file is truncated" in refusal()
    check_dataset("list.txt", 2, decode=False)
    (data / "images/0.jpg").write_bytes(whole + b"trailing bytes")
    assert check_dataset("list.txt", 2).counts["images"] == 3
    Image.new("RGB", (5, 5)).save("images/0.jpg", format="PNG")
    assert check_dataset("list.txt", 2).sizes[0].tolist() == [5, 5]


def test_59_decompression_bombs(data):
    def chunk(kind, body):
        import zlib

        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    for side in (12000, 60000):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        (data / "images/0.jpg").write_bytes(
            b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
        )
        assert "has more than 89,478,485 pixels" in refusal()


def test_a_folder_or_fifo_as_image_or_label(data):
    os.remove("images/0.jpg")
    os.mkfifo("images/0.jpg")
    os.remove("labels/1.txt")
    os.mkdir("labels/1.txt")
    text = refusal()
    assert "images/0.jpg: is a FIFO" in text and "labels/1.txt: is a folder" in text


@pytest.mark.parametrize(
    "row, message",
    [
        ("0 .5 .5 .1", "4 columns, expected 5"),  # 65
        ("0 .5 .5 .1 .1 .9", "6 columns, expected 5"),
        ("0 .5 here .1 .1", "'0 .5 here .1 .1' is not five numbers"),  # 66
        ("0 .5 1_0 .1 .1", "is not five numbers"),
        ("2 .5 .5 .1 .1", "class 2, expected 0 to 1"),  # 67
        ("-1 .5 .5 .1 .1", "class -1, expected 0 to 1"),  # 68
        ("1.5 .5 .5 .1 .1", "class 1.5 is no whole number"),  # 69
        ("0 nan .5 .1 .1", "not finite"),  # 70
        ("inf .5 .5 .1 .1", "not finite"),
        ("0 208 .5 .1 .1", "x=208 is outside of 0 to 1 (pixels? divide"),  # 71
        ("0 .5 -0.2 .1 .1", "y=-0.2 is outside of 0 to 1"),
        ("0 .5 .5 0 .1", "a box of width 0"),  # 72
        ("0 .5 .5 .1 -0.0001", "a box of height -0.0001"),
    ],
)
def test_65_to_72_rows_that_cannot_be_used(data, row, message):
    (data / "labels/1.txt").write_text(f"\n1 .5 .5 .1 .1\n{row}\n")
    text = refusal()
    assert f"1 bad label row in 1 of 3 images: labels/1.txt:3 {message}" in text or (
        message in text and "labels/1.txt:3" in text
    )


def test_labels_that_are_no_text(data):
    for content, message in (
        (b"0 .5\0", "NUL byte"),
        (b"\xff\xfe0", "is UTF-16"),
        (b"\x80\x04pickle", "a Python pickle"),
    ):
        (data / "labels/1.txt").write_bytes(content)
        assert message in refusal() and "1 unreadable label" in refusal()


def test_73_boxes_partly_outside_are_clipped():
    labels = parse_labels("0 0.1 0.5 0.4 0.5\n0 0.5 0.5 1.0 1.0\n0 0.9999995 0.5 0.000002 0.1", 1)
    assert labels.clipped == 1 and not labels.problems
    np.testing.assert_allclose(labels.rows[0], [0, 0.15, 0.5, 0.3, 0.5], atol=1e-6)
    np.testing.assert_allclose(labels.rows[1], [0, 0.5, 0.5, 1, 1])
    assert (labels.rows[:, 3:] > 0).all()


def test_74_75_76_background_missing_and_duplicates(data):
    (data / "labels/0.txt").write_text("")
    os.remove("labels/1.txt")
    (data / "labels/2.txt").write_text("0 .5 .5 .25 .5\n0 0.5 0.5 0.25 0.5\n0 .1 .5 .4 .5\n")
    with pytest.warns(UserWarning) as warned:
        report = check_dataset("list.txt", 2)
    assert {
        k: report.counts[k] for k in ("boxes", "background", "missing_labels", "clipped", "duplicates")
    } == {"boxes": 2, "background": 1, "missing_labels": 1, "clipped": 1, "duplicates": 1}
    assert sorted(str(w.message).split(": ")[1][:9] for w in warned) == [
        "1 boxes s",
        "1 images ",
        "1 rows re",
    ]


def test_a_set_without_any_box_can_be_refused(data):
    for i in range(3):
        os.remove(f"labels/{i}.txt")
    assert "no box in 3 images, 3 of which have no label file; labels such as labels/0.txt" in refusal(
        need_boxes=True
    )
    with pytest.warns(UserWarning):
        assert check_dataset("list.txt", 2).counts["missing_labels"] == 3


def test_77_78_79_lines_ends_spaces_unicode_separators(data):
    os.makedirs("my images/\u00fc \u4e2d/images")
    os.makedirs("my images/\u00fc \u4e2d/labels")
    os.rename("images/0.jpg", "my images/\u00fc \u4e2d/images/a b.jpg")
    os.rename("labels/0.txt", "my images/\u00fc \u4e2d/labels/a b.txt")
    (data / "list.txt").write_bytes(
        "\ufeffmy images\\\u00fc \u4e2d\\images\\a b.jpg\r\n\r\nimages/1.jpg\r\n".encode()
    )
    report = check_dataset("list.txt", 2)
    assert (
        report.images == ["my images/\u00fc \u4e2d/images/a b.jpg", "images/1.jpg"]
        and report.counts["boxes"] == 2
    )


@pytest.mark.parametrize(
    "image, label",
    [
        ("data/images/a.jpg", "data/labels/a.txt"),
        ("images/a.jpg", "labels/a.txt"),
        ("/d/images/x/images/a.b.png", "/d/images/x/labels/a.b.txt"),
        ("/d/images/train2017/1.jpg", "/d/labels/train2017/1.txt"),
        ("VOC/JPEGImages/1.jpg", "VOC/labels/1.txt"),
        ("obj/1.jpg", "obj/1.txt"),
        ("my_images/images.jpg", "my_images/images.txt"),
        ("images/images", "labels/images.txt"),
    ],
)
def test_81_label_paths(image, label):
    assert label_path(image) == label


def test_63_exif_rotation_is_ignored_and_counted(data):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (32, 24)).save("images/0.jpg", exif=exif)
    with pytest.warns(UserWarning, match="1 images have an EXIF rotation, which is ignored"):
        report = check_dataset("list.txt", 2)
    assert report.sizes[0].tolist() == [32, 24] and report.counts["rotated"] == 1


def test_the_cache_spares_the_decoding(data, monkeypatch):
    age()
    first = check_dataset("list.txt", 2)
    assert (data / ".list.txt.cache").is_file()
    monkeypatch.setattr(check, "check_image", None)  # a call would fail
    again = check_dataset("list.txt", 2)
    assert again.counts["cached"] == 3
    np.testing.assert_array_equal(again.rows, first.rows)
    np.testing.assert_array_equal(again.sizes, first.sizes)


def test_82_an_edit_of_equal_length_with_the_old_time_is_seen(data):
    age()
    check_dataset("list.txt", 2)
    old = os.stat("labels/0.txt")
    (data / "labels/0.txt").write_text("1 0.5 0.5 0.25 0.5\n")
    os.utime("labels/0.txt", ns=(old.st_atime_ns, old.st_mtime_ns))
    report = check_dataset("list.txt", 2)
    assert report.counts["cached"] == 2 and report.labels(0)[0, 0] == 1


def test_files_that_changed_just_now_are_not_stored(data):
    check_dataset("list.txt", 2)
    assert not (data / ".list.txt.cache").exists()


def test_a_cache_for_other_classes_is_not_used(data):
    age()
    check_dataset("list.txt", 2)
    assert "class 1, expected 0 to 0" in refusal(classes=1)


def test_83_a_poisoned_cache_is_ignored(data):
    age()
    check_dataset("list.txt", 2)
    path = data / ".list.txt.cache"
    good = path.read_bytes()
    with np.load(path) as archive:
        content = {name: archive[name] for name in archive.files}

    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(data / "owned"),)

    def poisons():
        yield b""
        yield b"garbage"
        yield good[:-50]
        yield good.replace(struct.pack("<f", 0.25), struct.pack("<f", 0.75))
        import io
        import pickle

        yield pickle.dumps(Payload())
        for change in (
            {"rows": np.array([Payload()], object)},
            {"rows": content["rows"] + 7},
            {"offset": content["offset"] * 0},
            {"offset": content["offset"][::-1]},
            {"info": content["info"] * -1},
            {"path": content["path"][:1]},
            {"head": content["head"][:1]},
            {"extra": content["head"]},
        ):
            for digest in (False, True):
                stream, changed = io.BytesIO(), {**content, **change}
                if digest and changed["rows"].dtype != object:
                    changed["digest"] = check_cache._digest(changed)
                np.savez(stream, **changed)
                yield stream.getvalue()
        stream = io.BytesIO()
        np.savez_compressed(stream, **{**content, "rows": np.zeros((3_000_000, 5), np.float32)})
        yield stream.getvalue()

    for poison in poisons():
        path.write_bytes(poison)
        report = check_dataset("list.txt", 2)
        assert report.counts["cached"] == 0 and report.rows[0].tolist() == [0, 0.5, 0.5, 0.25, 0.5]
    assert not (data / "owned").exists()


def test_a_folder_that_cannot_be_written_to_is_no_error(data, monkeypatch):
    age()
    os.mkdir(".list.txt.cache")
    assert check_dataset("list.txt", 2).counts["images"] == 3


def test_read_list_keeps_the_order(data):
    assert read_list("list.txt") == [f"images/{i}.jpg" for i in range(3)]


def test_real_data(bccd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text(
        "".join(f"{p}\n" for p in sorted((bccd / "JPEGImages").iterdir())[:40])
    )
    with pytest.warns(UserWarning, match="40 images have no label file"):
        report = check_dataset("list.txt", 3)
    assert report.sizes.tolist() == [[640, 480]] * 40
