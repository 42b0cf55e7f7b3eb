"""Stands in for the pictures of networks and gammas where a test does not look at them."""

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
