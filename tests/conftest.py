"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # tests run beside each other (pytest -n): more threads would wait for each other's cores
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the golden vectors and the real data set, which lies beside the checkout."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the folder ../shared (golden vectors, data sets) is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def golden(shared) -> Path:
    """The golden vectors: what Darknet itself computes."""
    if not (shared / "golden").is_dir():
        pytest.skip("../shared/golden is absent")
    return shared / "golden"


@pytest.fixture(scope="session")
def bccd(shared) -> Path:
    """The BCCD data set in VOC layout."""
    if not (shared / "data" / "bccd").is_dir():
        pytest.skip("../shared/data/bccd is absent")
    return shared / "data" / "bccd"
