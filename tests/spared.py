"""Stands in for what takes time and most tests do not look at: pictures of networks, gammas and slim runs,
and the turns in which networks are timed until the median is sure.
"""

from __future__ import annotations

import importlib

from darkslim.base import files

NOT_DRAWN = b"not drawn"


def drawing(put) -> None:
    """Replaces pictures by a word, with `put(object, name, value)`: monkeypatch.setattr, or setattr."""
    gammas = importlib.import_module("darkslim.report.gammas")
    prune = importlib.import_module("darkslim.pipelines.prune")
    put(gammas.GammaTrace, "draw", lambda self, path: files.save(path, NOT_DRAWN))
    put(prune, "network_picture", lambda *_: NOT_DRAWN)
    slim_report = importlib.import_module("darkslim.report.slim_report")
    put(slim_report, "figure", lambda *_: NOT_DRAWN)


def timing(put) -> None:
    """The fewest turns are enough for networks that are timed."""
    put(importlib.import_module("darkslim.latency.networks"), "SECONDS", 0.0)
