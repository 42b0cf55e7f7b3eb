"""The picture of the gammas, and how often it is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from darkslim.pipelines import training_log
from darkslim.report.gammas import GammaTrace

pytestmark = pytest.mark.draws


def trace(epochs: int) -> GammaTrace:
    rng, found = np.random.default_rng(0), GammaTrace()
    for epoch in range(1, epochs + 1):
        gammas = np.abs(rng.normal(1 / epoch, 0.1, 300))
        found.add(epoch, np.quantile(gammas, np.linspace(0, 1, 6)).tolist(), gammas[:20], gammas)
    return found


@pytest.mark.parametrize("epochs", [1, 12])
def test_three_panels(tmp_path, epochs):
    assert GammaTrace.from_dict(trace(epochs).to_dict()).draw(tmp_path / "gammas.png")
    with Image.open(tmp_path / "gammas.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] > 3 * pixels.shape[0] > 900
    third = pixels.shape[1] // 3
    for panel in range(3):  # each shows something
        assert len(np.unique(pixels[:, panel * third : (panel + 1) * third].reshape(-1, 3), axis=0)) > 50


def test_nothing_to_draw(tmp_path):
    assert GammaTrace().draw(tmp_path / "gammas.png") is None and not list(tmp_path.iterdir())


def test_it_is_drawn_rarely_where_epochs_are_short(monkeypatch, tmp_path):
    clock, drawn = [0.0], []
    monkeypatch.setattr(training_log.time, "monotonic", lambda: clock[0])
    log = training_log.TrainingLog.__new__(training_log.TrainingLog)
    log.folder, log.draw_again = tmp_path, training_log.SOON

    class Trace:
        def draw(self, path):
            drawn.append(clock[0])
            clock[0] += 1.0

    log.trace = Trace()
    for _ in range(100):
        log.draw()
        clock[0] += 0.5
    assert drawn == pytest.approx([10.0, 31.0]), "not at once, then a twentieth of the time"
