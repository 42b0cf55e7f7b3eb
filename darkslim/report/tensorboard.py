"""What TensorBoard shows of a training run."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

MOST_CHANNELS = 64


class Board:
    """Writes the events of one run into a folder.

    Scalars as the caller names them; of the gammas `gamma_quintiles/*` and `gamma_first_layer/*`, each shown
    as one chart of lines (tab "custom scalars"), and the histogram `gamma/all`.
    """

    def __init__(self, folder):
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and needed by training only

        self.folder = Path(folder)
        self.failed: BaseException | None = None
        self._hook, threading.excepthook = threading.excepthook, self._of_thread
        self.writer = SummaryWriter(str(self.folder), flush_secs=30)
        lines = ["Multiline", ["gamma_quintiles/.*"]], ["Multiline", ["gamma_first_layer/.*"]]
        self.writer.add_custom_scalars(
            {"gammas": {"quintiles of all prunable gammas": lines[0], "first BN layer": lines[1]}}
        )

    def _of_thread(self, args) -> None:
        """The events are written by a thread, which would print the traceback of a full disk and die."""
        if isinstance(args.exc_value, OSError) and "tensorboard" in type(args.thread).__module__:
            self.failed = args.exc_value
        else:
            self._hook(args)

    def scalars(self, step: int, values: dict[str, float | None]) -> None:
        """One point a tag; None is left out.

        Raises:
            OSError: the disk did not take what was written before.
        """
        if self.failed is not None:
            raise self.failed
        for tag, value in values.items():
            if value is not None:
                self.writer.add_scalar(tag, value, step)

    def gammas(self, step: int, quintiles: list[float], first: np.ndarray, gammas: np.ndarray) -> None:
        """The quintiles' borders, the first BN layer (its first MOST_CHANNELS channels), the histogram."""
        if not len(gammas):
            return
        self.scalars(step, {f"gamma_quintiles/{20 * i:03d}_percent": q for i, q in enumerate(quintiles)})
        self.scalars(
            step, {f"gamma_first_layer/{i:03d}": float(v) for i, v in enumerate(first[:MOST_CHANNELS])}
        )
        self.writer.add_histogram("gamma/all", np.asarray(gammas, np.float32), step)

    def close(self) -> None:
        """Writes what is left.

        Raises:
            OSError: the disk did not take it, now or since the last time that anyone looked.
        """
        try:
            if self.failed is None:
                self.writer.close()
        finally:
            threading.excepthook = self._hook
        if self.failed is not None:
            raise self.failed
