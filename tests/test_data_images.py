"""One picture: conversions, placing, and what is broken."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from darkslim.base.errors import DatasetError
from darkslim.data import images


def gradient(width=32, height=24) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], 2).astype(np.uint8)


def load(path, channels=3):
    return np.asarray(images.read_image(path, channels)[0])


def test_61_modes_become_rgb_or_grey(tmp_path):
    rgb = Image.fromarray(gradient())
    path = tmp_path / "a.png"
    rgba = rgb.convert("RGBA")
    rgba.putalpha(7)
    rgba.save(path)
    np.testing.assert_array_equal(
        load(path), gradient()
    )  # transparency is dropped, the colours below it stay
    rgb.convert("L").save(path)
    grey = np.asarray(rgb.convert("L"))
    np.testing.assert_array_equal(load(path), np.stack([grey] * 3, 2))
    np.testing.assert_array_equal(load(path, 1), grey)
    rgb.save(path)
    np.testing.assert_array_equal(load(path, 1), grey)
    palette = rgb.quantize(16)
    palette.save(path, transparency=3)
    np.testing.assert_array_equal(load(path), np.asarray(palette.convert("RGB")))
    Image.fromarray(grey > 100).save(path)
    assert set(np.unique(load(path))) == {0, 255}
    cmyk = tmp_path / "a.jpg"
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(cmyk, quality=100)
    assert abs(load(cmyk)[4, 4].astype(int) - [255, 0, 0]).max() < 6


def test_62_sixteen_bits_are_scaled_and_32_refused(tmp_path):
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(values).save(tmp_path / name)
        np.testing.assert_array_equal(load(tmp_path / name, 1), [[0, 1, 128, 255]])
    (tmp_path / "a.pgm").write_bytes(b"P5 4 1 65535\n" + values.astype(">u2").tobytes())
    np.testing.assert_array_equal(load(tmp_path / "a.pgm", 1), [[0, 1, 128, 255]])
    for dtype in (np.int32, np.float32):
        Image.fromarray(np.ones((4, 4), dtype)).save(tmp_path / "b.tif")
        with pytest.raises(DatasetError, match="b.tif: has 32-bit pixels.*8 or 16 bits"):
            load(tmp_path / "b.tif")


def test_63_exif_rotation_does_not_turn_pixels(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(gradient()).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(load(tmp_path / "a.png"), gradient())
    assert images.check_image(tmp_path / "a.png") == (32, 24, 6)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (7, 5)])
@pytest.mark.parametrize("letterbox", [False, True])
def test_64_extreme_shapes(tmp_path, size, letterbox):
    Image.new("RGB", size, (10, 20, 30)).save(tmp_path / "a.png")
    pixels, rect, stored = images.prepare(tmp_path / "a.png", (64, 96), letterbox)
    assert pixels.shape == (64, 96, 3) and stored == size and rect[2] > rect[0] and rect[3] > rect[1]
    assert (pixels == [10, 20, 30]).all(2).any()


def test_animations_give_their_first_picture(tmp_path):
    first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert load(tmp_path / "a.gif")[0, 0].tolist() == [255, 0, 0]


def test_stretching_is_a_plain_resize():
    picture = Image.fromarray(gradient(64, 48))
    placed = images.place(picture, images.fit((64, 48), (32, 40), False), (32, 40))
    np.testing.assert_array_equal(
        np.asarray(placed), np.asarray(picture.resize((40, 32), Image.Resampling.BILINEAR))
    )
    same = images.place(picture, images.fit((64, 48), (48, 64), False), (48, 64))
    np.testing.assert_array_equal(np.asarray(same), gradient(64, 48))


def test_letterbox_is_darknets():
    # 640 x 480 on 416 x 416: 416 x 312 pixels, 52 of grey above and below
    placed = np.asarray(
        images.place(
            Image.new("RGB", (640, 480), "white"), images.fit((640, 480), (416, 416), True), (416, 416)
        )
    )
    assert (
        (placed[:52] == images.GREY).all()
        and (placed[364:] == images.GREY).all()
        and (placed[52:364] == 255).all()
    )
    # 100 x 333 on 416 x 416: 124 (124.9 cut) x 416, 146 on the left, 146 on the right
    placed = np.asarray(
        images.place(Image.new("L", (100, 333), 255), images.fit((100, 333), (416, 416), True), (416, 416))
    )
    assert (
        (placed[:, :146] == images.GREY).all()
        and (placed[:, 146:270] == 255).all()
        and (placed[:, 270:] == images.GREY).all()
    )


def test_boxes_follow_pixels_and_back():
    rng = np.random.default_rng(0)
    for _ in range(50):
        w, h, x, y = (int(v) for v in rng.integers(20, 60, 4))
        picture = np.zeros((200, 300), np.uint8)
        picture[y : y + h, x : x + w] = 255
        left, top = rng.uniform(-60, 10, 2)
        rect = (left, top, left + rng.uniform(200, 400), top + rng.uniform(150, 300))
        placed = np.asarray(images.place(Image.fromarray(picture), rect, (416, 352))).copy()
        row = np.array([[0, (x + w / 2) / 300, (y + h / 2) / 200, w / 300, h / 200]])
        moved = images.place_boxes(row, rect, (300, 200))[0, 1:] * [352, 416, 352, 416]
        x1, y1, x2, y2 = (
            moved[0] - moved[2] / 2,
            moved[1] - moved[3] / 2,
            moved[0] + moved[2] / 2,
            moved[1] + moved[3] / 2,
        )
        ys, xs = np.nonzero(placed > 160)
        if 1 < x1 and x2 < 351 and 1 < y1 and y2 < 415:
            np.testing.assert_allclose(
                [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], [x1, y1, x2, y2], atol=1.6
            )
        back = images.unplace_boxes(np.array([[x1, y1, x2, y2]]), rect, (416, 352))
        np.testing.assert_allclose(back, [[x, y, x + w, y + h]], atol=1e-9)


def test_large_jpegs_are_decoded_smaller_with_the_same_boxes(tmp_path):
    picture = np.zeros((1201, 1603, 3), np.uint8)
    picture[301:700, 403:902] = 255
    Image.fromarray(picture).save(tmp_path / "a.jpg", quality=95)
    image, stored = images.read_image(tmp_path / "a.jpg", 3, at_least=(200, 150))
    assert stored == (1603, 1201) and image.width < 500
    rect = (100.5, 50.25, 1300.0, 1000.0)
    small = np.asarray(images.place(image, rect, (160, 200), stored), int)
    full = np.asarray(images.place(images.read_image(tmp_path / "a.jpg")[0], rect, (160, 200)), int)
    assert abs(small - full).mean() < 1.5


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_what_is_outside_is_grey(mode):
    placed = np.asarray(images.place(Image.new(mode, (10, 10)), (-10, 5, 10, 25), (40, 40)))
    assert (placed[:10, 20:] == 0).all()
    assert (placed[:, :20] == images.GREY).all() and (placed[10:] == images.GREY).all()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_anywhere_is_an_error_of_ours(tmp_path):
    """Every kind of file, cut and with bytes changed: decoded or refused, never another exception."""
    rng = np.random.default_rng(0)
    for extension in ("jpg", "png", "gif", "tif", "bmp", "webp", "ppm"):
        path = tmp_path / f"a.{extension}"
        Image.fromarray(gradient()).save(path)
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        for trial in range(60):
            data = whole[: rng.integers(1, len(whole))].copy() if trial % 2 else whole.copy()
            places = rng.integers(0, min(len(data), 200 if trial % 3 else len(data)), 4)
            data[places] = rng.integers(0, 256, 4)
            path.write_bytes(data.tobytes())
            try:
                images.check_image(path)
            except DatasetError:
                pass
