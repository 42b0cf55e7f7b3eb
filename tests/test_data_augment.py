"""Jitter, flip and distortion."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from PIL import Image

from darkslim.data.augment import Augment, AugmentParams, distort, flip_boxes, flip_image, jittered


def draws(augment, count=2000):
    return [augment.draw(np.random.default_rng([0, 0, i])) for i in range(count)]


def test_what_is_drawn_has_darknets_ranges():
    found = draws(Augment(hue=0.1, saturation=1.5, exposure=2, jitter=0.3, flip=1, vflip=0.25))
    sides = np.array([d.sides for d in found])
    assert -0.3 <= sides.min() < -0.29 and 0.29 < sides.max() <= 0.3 and abs(sides.mean()) < 0.01
    for values, limit in (([d.saturation for d in found], 1.5), ([d.exposure for d in found], 2)):
        assert 1 / limit <= min(values) < 1.05 / limit and 0.95 * limit < max(values) <= limit
        assert abs(np.mean(np.array(values) > 1) - 0.5) < 0.05
    hues = [d.hue for d in found]
    assert -0.1 <= min(hues) < -0.09 and 0.09 < max(hues) <= 0.1
    assert (
        abs(np.mean([d.flip for d in found]) - 0.5) < 0.05
        and abs(np.mean([d.vflip for d in found]) - 0.25) < 0.05
    )


def test_off_is_off_and_settings_do_not_move_each_other():
    off = Augment(hue=0, saturation=1, exposure=1, jitter=0, flip=0)
    assert all(d == AugmentParams(d.sides) and not any(d.sides) for d in draws(off, 50))
    assert [d.flip for d in draws(Augment(jitter=0))] == [
        d.flip for d in draws(Augment(hue=0.4, saturation=3))
    ]
    for jitter in (0.5, 0.9):  # Darknet would turn such a picture inside out
        assert all(d.sides[0] + d.sides[2] < 1 for d in draws(Augment(jitter=jitter)))


def test_from_the_keys_of_a_cfg():
    augment = Augment.from_options(
        {"hue": 0.2, "saturation": 1.4, "exposure": 1.3, "flip": 0}, {"jitter": 0.4}, vflip=0.5
    )
    assert augment == Augment(0.2, 1.4, 1.3, 0.4, 0, 0.5)
    assert Augment.from_options({}, {}) == Augment(0, 1, 1, 0.2, 1)


def test_jitter_moves_each_side():
    assert jittered((0, 0, 100, 50), (100, 50), (0.1, -0.2, -0.3, 0.4)) == (10, -10, 130, 30)


def test_boxes_of_which_too_little_is_left_are_dropped():
    rows = np.array(
        [
            [1, 0.5, 0.5, 0.2, 0.2],
            [2, 0.0, 0.5, 0.2, 0.2],
            [3, -0.09, 0.5, 0.2, 0.2],
            [4, -0.5, 0.5, 0.2, 0.2],
            [5, 1.05, 1.0, 0.2, 0.2],
        ]
    )
    kept = Augment(min_visible=0.15).clip_boxes(rows)
    np.testing.assert_allclose(kept, [[1, 0.5, 0.5, 0.2, 0.2], [2, 0.05, 0.5, 0.1, 0.2]])
    np.testing.assert_allclose(Augment(min_visible=0.05).clip_boxes(rows)[2], [3, 0.005, 0.5, 0.01, 0.2])
    assert Augment().clip_boxes(np.zeros((0, 5))).shape == (0, 5)


def test_boxes_clipped_to_a_part_of_the_input():
    rows = np.array([[1, 0.5, 0.25, 0.4, 0.1], [2, 0.9, 0.9, 0.1, 0.1]])
    found = Augment().clip_boxes(rows, 0.0, 0.0, 0.5, 1.0)
    np.testing.assert_allclose(found, [[1, 0.4, 0.25, 0.2, 0.1]])


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("vflip", [False, True])
def test_flips_of_pixels_and_boxes_agree(flip, vflip):
    pixels = np.zeros((20, 40), np.uint8)
    pixels[2:6, 4:14] = 255
    draw = AugmentParams(flip=flip, vflip=vflip)
    ys, xs = np.nonzero(np.asarray(flip_image(Image.fromarray(pixels), draw)))
    row = flip_boxes(np.array([[0, 9 / 40, 4 / 20, 10 / 40, 4 / 20]]), draw)[0]
    np.testing.assert_allclose(
        [row[1] * 40, row[2] * 20], [(xs.min() + xs.max() + 1) / 2, (ys.min() + ys.max() + 1) / 2]
    )


def test_saturation_and_exposure_are_those_of_hsv():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 20, 3), np.uint8)
    for saturation, exposure in ((1.0, 1.0), (0.6, 1.4), (1.5, 1.0), (1.5, 0.7), (0.7, 0.7)):
        found = np.asarray(
            distort(Image.fromarray(pixels), AugmentParams(saturation=saturation, exposure=exposure)), int
        )
        expected = []
        for pixel in pixels.reshape(-1, 3):
            h, s, v = colorsys.rgb_to_hsv(*(pixel / 255))
            # as Darknet: saturation and value are scaled without a limit, and the result is clipped
            expected.append(
                np.clip(np.array(colorsys.hsv_to_rgb(h, min(s * saturation, 1), v)) * exposure, 0, 1)
                if s * saturation <= 1
                else [np.nan] * 3
            )
        expected = np.array(expected).reshape(20, 20, 3) * 255
        good = ~np.isnan(expected)
        assert good.mean() > 0.25 and abs(found - expected)[good].max() <= 2


def test_the_hue_turns_and_grey_stays():
    red = Image.new("RGB", (2, 2), (200, 50, 50))
    for hue in (1 / 3, -2 / 3):
        assert np.asarray(distort(red, AugmentParams(hue=hue)))[0, 0].tolist() == pytest.approx(
            [50, 200, 50], abs=1
        )
    turned = colorsys.rgb_to_hsv(*(np.asarray(distort(red, AugmentParams(hue=0.05)))[0, 0] / 255))[0]
    assert turned == pytest.approx(0.05, abs=0.012)
    assert np.asarray(
        distort(Image.new("RGB", (2, 2), (90, 90, 90)), AugmentParams(hue=0.1, saturation=1.5))
    )[0, 0].tolist() == pytest.approx([90] * 3, abs=1)


def test_a_grey_picture_only_has_exposure():
    grey = Image.new("L", (2, 2), 100)
    assert (
        np.asarray(distort(grey, AugmentParams(hue=0.1, saturation=2, exposure=1.5))).tolist()
        == [[150, 150]] * 2
    )
    assert np.asarray(distort(grey, AugmentParams(exposure=5))).tolist() == [[255, 255]] * 2
