"""The hand generator: layout and annotations as scipy reads them, quads against masks, the same bytes from
the same seed.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from darkslim.base.errors import FileError, RequestError
from darkslim.data.hands import generator as hands
from darkslim.data.hands import model as hand_model
from darkslim.data.hands.drawing import SIZE_RANGE
from darkslim.data.hands.relief import Relief
from darkslim.data.oxford import read_mat

COUNTS = {"training": 3, "validation": 1, "test": 2}


def cross(a, b) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def area(quad: np.ndarray) -> float:
    """The shoelace formula."""
    return float(cross(quad, np.roll(quad, -1, axis=0)).sum() / 2)


def inside(quad: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Which points (N, 2) lie on the inner side of all four edges of a convex quad."""
    edges = np.roll(quad, -1, axis=0) - quad
    side = cross(edges[None], points[:, None] - quad[None]) * np.sign(area(quad))
    return (side >= -1e-6).all(axis=1)


def digest(folder) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "hand_dataset"
    return folder, hands.generate(folder, COUNTS, seed=5)


@pytest.fixture(scope="module")
def pictures():
    return [hands.picture(3, "training", i) for i in range(24)]


def test_the_layout_is_that_of_the_oxford_archive(made):
    folder, done = made
    assert sorted(p.name for p in folder.iterdir()) == [
        "test_dataset",
        "training_dataset",
        "validation_dataset",
    ]
    for split, count in COUNTS.items():
        inner = folder / f"{split}_dataset" / f"{split}_data"
        images, annotations = sorted((inner / "images").iterdir()), sorted((inner / "annotations").iterdir())
        assert [p.stem for p in images] == [p.stem for p in annotations] and len(images) == count
        assert {p.suffix for p in images} == {".jpg"} and {p.suffix for p in annotations} == {".mat"}
        assert done[split] == {"images": count, "hands": sum(len(read_mat(p)) for p in annotations)}
    assert [p.name for p in folder.parent.iterdir()] == ["hand_dataset"], "nothing temporary is left"


def test_images_are_jpegs_of_the_promised_size(made):
    for path in made[0].rglob("*.jpg"):
        with Image.open(path) as image:
            assert image.format == "JPEG" and image.mode == "RGB"
            assert max(image.size) <= 400 * 1.15 + 1 and min(image.size) >= 300 * 0.85 - 1


def test_annotations_are_cells_of_structs_with_matlab_corners(made):
    folder, _ = made
    path = folder / "test_dataset/test_data/annotations/test_00002.mat"
    boxes = loadmat(path)["boxes"]
    _, drawn = hands.picture(5, "test", 1)
    assert boxes.dtype == object and boxes.shape == (1, len(drawn))
    for cell, hand in zip(boxes[0], drawn, strict=True):
        assert cell.shape == (1, 1) and cell.dtype.names == ("a", "b", "c", "d")
        corners = [cell[name][0, 0] for name in "abcd"]
        assert all(c.shape == (1, 2) and c.dtype == np.float64 for c in corners)
        np.testing.assert_array_equal(
            np.array([c[0, ::-1] - 1 for c in corners]), hand.quad
        )  # [y x], the first pixel is 1


def test_what_is_written_is_what_the_converter_reads(tmp_path):
    quads = [
        np.array([(0.0, 1.0), (4.5, 2.0), (4.0, 9.0), (-1.0, 8.0)]),
        np.array([(5.0, 5.0), (9.0, 5.0), (9.0, 9.0), (5.0, 9.0)]),
    ]
    path = tmp_path / "a.mat"
    path.write_bytes(hands.mat_bytes(quads))
    np.testing.assert_allclose(
        np.array(read_mat(path)), np.array(quads) + 0.5, atol=1e-12
    )  # from the middles of pixels to their borders


def test_every_picture_has_one_to_four_hands_of_some_size(pictures):
    numbers, sides = [], []
    for pixels, drawn in pictures:
        assert pixels.dtype == np.uint8 and pixels.shape[2] == 3
        numbers.append(len(drawn))
        for hand in drawn:
            box = hand_model.bounding_box(hand.quad)
            sides.append(np.sqrt((box[2:] - box[:2]).prod()) / min(pixels.shape[:2]))
            assert 0.6 <= hand.visible <= 1
    assert min(numbers) >= 1 and max(numbers) <= 4 and len(set(numbers)) > 1
    least, most = SIZE_RANGE
    assert least - 1e-3 <= min(sides) < least + 0.1 and most - 0.15 < max(sides) <= most + 1e-3


def test_quads_are_rectangles_around_their_hands_and_no_larger(pictures):
    for _, drawn in pictures:
        for hand in drawn:
            sides = np.roll(hand.quad, -1, axis=0) - hand.quad
            turns = cross(sides, np.roll(sides, -1, axis=0))
            assert (turns > 0).all() or (turns < 0).all(), "convex"
            np.testing.assert_allclose(
                (sides * np.roll(sides, -1, axis=0)).sum(axis=1), 0, atol=1e-6 * abs(area(hand.quad))
            )
            assert np.hypot(*sides.T).min() > 10
            rows, columns = np.nonzero(hand.mask)
            covered = inside(hand.quad, np.stack([columns, rows], axis=1))
            assert covered.mean() > 0.995
            if hand.visible > 0.999:  # not cut by the border: the mask fills its quad
                assert 0.3 < len(rows) / abs(area(hand.quad)) < 0.95


def test_each_side_of_the_quad_touches_the_hand(pictures):
    for _, drawn in pictures:
        for hand in (h for h in drawn if h.visible > 0.999):
            points = np.stack(np.nonzero(hand.mask)[::-1], axis=1)
            for k in range(4):
                corner, edge = hand.quad[k], hand.quad[(k + 1) % 4] - hand.quad[k]
                gap = np.abs(cross(edge, points - corner)).min() / np.hypot(*edge)
                assert gap < 0.04 * np.sqrt(abs(area(hand.quad))) + 2


def test_the_first_side_is_the_wrist():
    for seed in range(20):
        hand = hand_model.random_hand(np.random.default_rng(seed))
        quad, wrist = hand.quad(), hand.arm[0, :2]
        near, far = quad[:2].mean(axis=0), quad[2:].mean(axis=0)
        assert np.hypot(*(near - wrist)) < 0.45 < np.hypot(*(far - wrist))
        elbow = hand.arm[1, :2]
        assert not inside(quad, elbow[None])[0], "the forearm is no part of the hand"


def test_placing_moves_scales_and_keeps_the_shape():
    hand = hand_model.random_hand(np.random.default_rng(1))
    placed = hand.placed(50.0, (120.0, 80.0))
    box, before = hand_model.bounding_box(placed.quad()), hand_model.bounding_box(hand.quad())
    np.testing.assert_allclose((box[:2] + box[2:]) / 2, (120, 80))
    np.testing.assert_allclose(box[2:] - box[:2], 50 * (before[2:] - before[:2]))


def test_relief_of_a_ball_is_a_half_sphere():
    relief = Relief(-12, -12, 25, 25)
    relief.capsule((0, 0, 3), (0, 0, 3), 10, 10, 1)
    assert relief.height[12, 12] == pytest.approx(13) and relief.height[12, 18] == pytest.approx(
        3 + 8
    )  # 6, 8, 10
    assert (
        relief.cover[12, 22] == pytest.approx(0.5) and relief.cover[12, 23] == 0 and relief.part[12, 12] == 1
    )
    assert relief.cover.sum() == pytest.approx(np.pi * 100, rel=0.01)
    lit = relief.shade(np.array([(0, 0, 0), (200, 200, 200)], float), (-0.6, 0, 0.8), 0.0)
    assert lit[12, 7, 0] > lit[12, 12, 0] > lit[12, 17, 0]


def test_what_is_nearer_hides_what_is_farther():
    for order in (1, -1):
        relief = Relief(0, 0, 20, 20)
        for part, z in ((1, 0), (2, 5))[::order]:
            relief.ellipsoid((10, 10, z), 6, 4, 3, 0.3, part)
        assert relief.part[10, 10] == 2
    assert (
        relief.trimmed().cover.sum() == relief.cover.sum()
        and relief.trimmed().cover.shape < relief.cover.shape
    )


def test_the_same_seed_gives_the_same_bytes_whatever_the_workers(made, tmp_path):
    folder, _ = made
    again = tmp_path / "two" / "hand_dataset"
    hands.generate(again, COUNTS, seed=5, workers=2)
    assert digest(again) == digest(folder)
    hands.generate(tmp_path / "other", {"training": 1}, seed=6)
    assert (
        digest(tmp_path / "other")[(name := "training_dataset/training_data/images/training_00001.jpg")]
        != digest(folder)[name]
    )


def test_no_two_pictures_are_alike(made):
    images = [value for name, value in digest(made[0]).items() if name.endswith(".jpg")]
    assert len(set(images)) == len(images) == 6


def test_progress_wraps_the_work_and_an_interruption_leaves_nothing(tmp_path):
    seen = []

    def stop(items, total, desc):
        for item in items:
            seen.append((item[0], total))
            if len(seen) == 2:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        hands.generate(tmp_path / "hand_dataset", COUNTS, progress=stop, size=(80, 64))
    assert seen == [("training", 6)] * 2 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"counts": {"trainning": 3}}, "trainning"),
        ({"counts": {}}, "at least one"),
        ({"counts": {"test": -1}}, "no count below 0"),
        ({"seed": -1}, "0 or more"),
        ({"size": (20, 300)}, "64 to 4096"),
    ],
)
def test_requests_that_cannot_be_met(tmp_path, wrong, message):
    with pytest.raises(RequestError, match=message):
        hands.generate(tmp_path / "x", **{"counts": COUNTS, **wrong})
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("a")
    (tmp_path / "file").write_text("b")
    with pytest.raises(RequestError, match="holds something already"):
        hands.generate(tmp_path / "mine", COUNTS)
    with pytest.raises(FileError, match="is a file"):
        hands.generate(tmp_path / "file", COUNTS)
    with pytest.raises(FileError, match="cannot be written|cannot be opened"):
        hands.generate(tmp_path / "file" / "below", COUNTS)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.txt", "file", "mine"]
