"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import spared

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # tests run beside each other (pytest -n): more threads would wait for each other's cores
ROOT = Path(__file__).resolve().parent.parent


def pytest_configure(config):
    config.addinivalue_line("markers", "draws: pictures of networks and gammas are really drawn")
    config.addinivalue_line("markers", "times: networks are timed until the median is sure")


@pytest.fixture(autouse=True)
def time_spared(request, monkeypatch):
    """A picture takes a second to draw and a cut network two to be timed, and most tests look at neither."""
    if request.node.get_closest_marker("draws") is None:
        spared.drawing(monkeypatch.setattr)
    if request.node.get_closest_marker("times") is None:
        spared.timing(monkeypatch.setattr)


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def golden() -> Path:
    """The golden vectors: what Darknet itself computes."""
    return ROOT / "tests" / "golden"


def _beside(name: str, where: str) -> Path:
    """Data that are not ours to hand on, from the folder `shared/data` beside the checkout."""
    folder = ROOT.parent / "shared" / "data" / name
    if not folder.is_dir():
        pytest.skip(f"../shared/data/{name} is absent: {where}")
    return folder


@pytest.fixture(scope="session")
def bccd() -> Path:
    """The BCCD data set in VOC layout."""
    return _beside("bccd", "the BCCD data set in VOC layout; docs/data.md says where it comes from")


@pytest.fixture(scope="session")
def coco256() -> Path:
    """256 pictures of COCO with Darknet labels: train.txt, val.txt, images, labels."""
    return _beside("coco256", "256 pictures of COCO 2017 with labels as class x y w h")


@pytest.fixture(scope="session")
def published() -> Path:
    """Published detectors: cfg and weights."""
    return _beside("published", "cfg and weights of published detectors")
