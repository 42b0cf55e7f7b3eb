"""Pictures shrunk as Darknet and OpenCV shrink them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from commands import make_bench, picture
from PIL import Image

from darkslim.data.images import prepare
from darkslim.data.resize import bilinear


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def resize_image(pixels: np.ndarray, w: int, h: int) -> np.ndarray:
    """Darknet's, pixel by pixel: first along x, then along y."""
    im_h, im_w, _ = pixels.shape
    source, part = pixels.astype(float), np.zeros((im_h, w, 3))
    w_scale, h_scale = (im_w - 1) / (w - 1), (im_h - 1) / (h - 1)
    for c in range(w):
        if c == w - 1 or im_w == 1:
            part[:, c] = source[:, im_w - 1]
        else:
            sx = c * w_scale
            ix = int(sx)
            part[:, c] = (1 - (sx - ix)) * source[:, ix] + (sx - ix) * source[:, ix + 1]
    result = np.zeros((h, w, 3))
    for r in range(h):
        sy = r * h_scale
        iy = int(sy)
        result[r] = (1 - (sy - iy)) * part[iy]
        if r != h - 1 and im_h != 1:
            result[r] += (sy - iy) * part[iy + 1]
    return result


SIZES = [(120, 160, 32, 32), (37, 53, 64, 96), (64, 96, 64, 96), (33, 1, 32, 32), (500, 333, 416, 416)]


@pytest.mark.parametrize("height, width, h, w", SIZES)
def test_as_darknet(height, width, h, w):
    pixels = noise(height, width)
    ours = bilinear(pixels, (0, 0, width, height), (h, w), "darknet")
    assert np.abs(ours - resize_image(pixels, w, h)).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("height, width, h, w", SIZES)
def test_as_opencv(height, width, h, w):
    pixels = noise(height, width)
    ours = bilinear(pixels, (0, 0, width, height), (h, w), "opencv")
    theirs = cv2.resize(pixels, (w, h), interpolation=cv2.INTER_LINEAR)
    assert np.abs(ours.astype(int) - theirs).max() <= 1  # it rounds its weights to 11 bits


@pytest.mark.parametrize("how", ("opencv", "darknet"))
def test_letterboxed_and_grey(tmp_path, how):
    picture(tmp_path / "a.png", (100, 50))
    stored = np.asarray(Image.open(tmp_path / "a.png"))
    shown, _, _ = prepare(tmp_path / "a.png", (32, 32), letterbox=True, resize=how)
    assert (shown[:8] == 128).all() and (shown[24:] == 128).all()
    assert np.array_equal(shown[8:24], bilinear(stored, (0, 0, 100, 50), (16, 32), how))
    grey, _, _ = prepare(tmp_path / "a.png", (32, 32), channels=1, resize=how)
    luma = np.asarray(Image.open(tmp_path / "a.png").convert("L"))[:, :, None]
    assert np.array_equal(grey, bilinear(luma, (0, 0, 100, 50), (32, 32), how))


def test_large_jpegs_are_decoded_whole(tmp_path):
    """A JPEG decoded at half its size is antialiased already."""
    picture(tmp_path / "a.jpg", (640, 480), quality=95)
    shown, _, _ = prepare(tmp_path / "a.jpg", (32, 32), resize="opencv")
    whole = np.asarray(Image.open(tmp_path / "a.jpg"))
    assert np.abs(shown.astype(int) - cv2.resize(whole, (32, 32))).max() <= 1
    smooth, _, _ = prepare(tmp_path / "a.jpg", (32, 32))
    assert smooth.std() < shown.std() / 2


def test_from_the_command_line(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    bench = make_bench(tmp_path, capfd)
    for name in ("0", "1", "2"):
        picture(tmp_path / f"images/{name}.png", (200, 150))
    bench.run("test")  # what it has to say about these pictures, it says now
    reports = {how: bench.report("test", "--resize", how)[0] for how in ("antialias", "opencv", "darknet")}
    assert [r["resize"] for r in reports.values()] == list(reports)
    code, lines = bench.run("test", "--resize", "nearest")
    assert code == 2 and "--resize" in lines[0]
    assert bench.run("train", "--resize", "darknet")[0] == 0
