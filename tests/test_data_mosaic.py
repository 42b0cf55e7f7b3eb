"""Mosaics: what is drawn, and that boxes stay on what they name."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from darkslim.data.augment import Augment
from darkslim.data.dataset import ListDataset
from darkslim.data.mosaic import draw_tiles

SIZE = (96, 128)  # of the input, height and width
STILL = {"hue": 0, "saturation": 1, "exposure": 1}


@pytest.fixture
def pictures(tmp_path):
    """Six black pictures of several sizes, each with two bright rectangles: the class is in the colour."""
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    paths = []
    for number in range(6):
        w, h = int(rng.integers(80, 260)), int(rng.integers(80, 260))
        pixels, lines = np.zeros((h, w, 3), np.uint8), []
        for kind in range(2):
            x, y = int((0.1 + 0.45 * kind) * w), int(rng.integers(h // 8, h // 3))
            wide, high = int(0.3 * w), int(rng.integers(h // 4, h // 2))
            pixels[y : y + high, x : x + wide, kind] = 255
            lines.append(f"{kind} {(x + wide / 2) / w} {(y + high / 2) / h} {wide / w} {high / h}")
        path = tmp_path / "images" / f"{number}.png"
        Image.fromarray(pixels).save(path)
        (tmp_path / "labels" / f"{number}.txt").write_text("\n".join(lines) + "\n")
        paths.append(str(path))
    (tmp_path / "list.txt").write_text("\n".join(paths) + "\n")
    return tmp_path / "list.txt"


def dataset(path, letterbox=False, **changes) -> ListDataset:
    augment = Augment(**{**STILL, "jitter": 0.2, "vflip": 0.5, "mosaic": 1.0, **changes})
    return ListDataset(path, 2, SIZE, augment=augment, letterbox=letterbox)


def test_tiles_cover_the_input_once_and_windows_lie_within():
    crosses = []
    for seed in range(300):
        tiles = draw_tiles(np.random.default_rng(seed), SIZE)
        covered = np.zeros(SIZE, int)
        for t in tiles:
            covered[t.top : t.bottom, t.left : t.right] += 1
            assert 0 <= t.x <= SIZE[1] - t.size[1] and 0 <= t.y <= SIZE[0] - t.size[0]
        assert (covered == 1).all() and len(tiles) == 4
        crosses.append((tiles[0].right / SIZE[1], tiles[0].bottom / SIZE[0]))
    low, high = np.min(crosses, 0), np.max(crosses, 0)
    assert (low >= 0.19).all() and (low < 0.23).all() and (high <= 0.81).all() and (high > 0.77).all()


@pytest.mark.parametrize("letterbox", [False, True])
def test_boxes_stay_on_what_they_name(pictures, letterbox):
    data, seen = dataset(pictures, letterbox, min_visible=0.3), 0
    for index in range(len(data)):
        for epoch in range(12):
            pixels, rows = data.load(index, epoch)
            assert pixels.shape == (*SIZE, 3) and rows.shape[1] == 5
            for kind, x, y, w, h in rows:
                sides = [(x - w / 2) * 128, (y - h / 2) * 96, (x + w / 2) * 128, (y + h / 2) * 96]
                assert min(sides) > -1e-3 and sides[2] < 128 + 1e-3 and sides[3] < 96 + 1e-3
                left, top, right, bottom = (int(round(v)) for v in sides)
                inner = pixels[top + 1 : bottom - 1, left + 1 : right - 1]
                if inner.size:  # of borders of a pixel, the resize makes a mixture
                    assert inner[..., int(kind)].mean() > 250 and inner[..., 1 - int(kind)].max() < 5
                    seen += 1
            bright = (pixels[..., :2] > 200).any(-1)
            for _, x, y, w, h in rows:  # and what is left over was too little of its object
                a, b = int((y - h / 2) * 96), int(np.ceil((y + h / 2) * 96))
                c, d = int((x - w / 2) * 128), int(np.ceil((x + w / 2) * 128))
                bright[max(0, a - 1) : b + 1, max(0, c - 1) : d + 1] = False
            assert bright.mean() < 0.2
    assert seen > 150


def test_a_mosaic_depends_on_seed_epoch_and_index_alone(pictures):
    data = dataset(pictures)
    for i in range(3):
        assert (data.load(i, 3)[0] == dataset(pictures).load(i, 3)[0]).all()
        assert (data.load(i, 3)[0] != data.load(i, 4)[0]).any()


def test_the_chance_and_the_end_of_mosaics(pictures):
    alone = dataset(pictures, mosaic=0.0)
    rare, until = dataset(pictures, mosaic=0.4), dataset(pictures, mosaic=0.4, mosaic_until=30)
    made = 0
    for epoch in range(60):
        whole = [(alone.load(i, epoch)[0] == rare.load(i, epoch)[0]).all() for i in range(6)]
        made += whole.count(False)
        expected = whole if epoch < 30 else [True] * 6
        assert [(alone.load(i, epoch)[0] == until.load(i, epoch)[0]).all() for i in range(6)] == expected
    assert 0.3 < made / 360 < 0.5


def test_grey_pictures_and_small_inputs(pictures):
    augment = Augment(**STILL, mosaic=1.0)
    data = ListDataset(pictures, 2, (2, 3), augment=augment, channels=1)
    for index in range(6):
        pixels, rows = data.load(index, 0)
        assert pixels.shape == (2, 3, 1) and np.isfinite(rows).all()
