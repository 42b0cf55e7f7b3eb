"""The bootstrap over pictures: what it draws, what mAP it comes to, and what it calls sure."""

from __future__ import annotations

import numpy as np
import pytest

from darkslim.evaluation import score
from darkslim.evaluation.resampling import better, resampled


def pictures(rights: list[float], seed: int = 0) -> tuple[list, list]:
    """(found, truths): three truths of two classes a picture, each found with the chance that is given, and
    a false detection.
    """
    draw = np.random.default_rng(seed)
    found, truths = [], []
    for chance in rights:
        boxes = np.array([[20 * i, 0, 20 * i + 10, 10, i % 2] for i in range(3)], float)
        rows = [[*b[:4], draw.uniform(0.3, 1), b[4]] for b in boxes if draw.random() < chance]
        rows.append([200, 200, 210, 210, draw.uniform(0, 0.7), 0])
        found.append(np.array(rows))
        truths.append(boxes)
    return found, truths


def test_a_draw_is_the_score_of_the_pictures_drawn():
    found, truths = pictures([0.6] * 12)
    hits = score(found, truths, coco=False).hits
    (maps,) = resampled([hits], draws=20, seed=3).T
    draw = np.random.default_rng(3)
    for reached in maps:
        places = draw.integers(12, size=12)
        wanted = score([found[i] for i in places], [truths[i] for i in places], coco=False).map50
        assert reached == pytest.approx(wanted, abs=1e-12)


def test_a_class_that_is_not_drawn_does_not_count():
    found, truths = pictures([1.0] * 4)
    truths[0][:, 4] = 7
    found[0][:3, 5] = 7
    (maps,) = resampled([score(found, truths, coco=False).hits], draws=200).T
    assert (maps > 0.5).all(), "a class without a truth would count as 0"


def test_what_is_better_by_much_is_sure_and_by_a_hair_is_not():
    good, weak = (score(*pictures([chance] * 60, 1), coco=False).hits for chance in (0.9, 0.5))
    hair = score(*pictures([0.9] * 60, 2), coco=False).hits
    a, b, c = resampled([good, weak, hair]).T
    assert better(a, b) > 0.99 and better(b, a) < 0.01
    assert 0.02 < better(a, c) < 0.98
    assert better(a, a) == 0.5
    assert better(a, b) + better(b, a) == pytest.approx(1)
    assert np.array_equal(resampled([good]), resampled([good])), "the same draws each time"
