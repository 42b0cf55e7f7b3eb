"""Stands in for the pictures of networks, gammas and slim runs where a test does not look at them."""

from __future__ import annotations

import importlib

from darkslim.base import files

NOT_DRAWN = b"not drawn"


def patch(put) -> None:
    """Replaces both, by `put(object, name, value)`: monkeypatch.setattr, or setattr in another process."""
    gammas = importlib.import_module("darkslim.report.gammas")
    prune = importlib.import_module("darkslim.pipelines.prune")
    put(gammas.GammaTrace, "draw", lambda self, path: files.save(path, NOT_DRAWN))
    put(prune, "network_picture", lambda *_: NOT_DRAWN)
    slim_report = importlib.import_module("darkslim.report.slim_report")
    put(slim_report, "figure", lambda *_: NOT_DRAWN)
