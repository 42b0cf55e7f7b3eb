"""What a run leaves on disk: the kept weights at PATH, the state to resume from beside it, and a lock.

    checkpoints/yolov3_ckpt.pth        the best (or the last) weights
    checkpoints/yolov3_ckpt.weights    the same, for Darknet and its other readers
    checkpoints/yolov3_ckpt.last.pth   weights, optimizer, average, position: what --resume reads
    checkpoints/yolov3_ckpt.lock       held while the run lives; the system frees it when the process dies

Files of an earlier run are never overwritten: they get a number (`yolov3_ckpt.1.pth`) before the first save.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from torch import nn

from ..base import files
from ..base.errors import CheckpointError, FileError, TrainingError, short
from ..base.locks import take_lock
from ..network import checkpoints, weights


class Checkpointer:
    """Saves and loads the files of one run.

    Args:
        path: where the kept weights go.
        identity: plain values that a resumed run must share (cfg hash, data hash, epochs ...), by name.
        told: called with a sentence when files of an earlier run were given another name.
    """

    def __init__(self, path, identity: dict, told: Callable[[str], None] | None = None):
        self.path = Path(path)
        self.identity = identity
        self.fresh = True
        self.told = told or (lambda sentence: None)
        self._lock = None

    @property
    def last(self) -> Path:
        return self.path.with_name(f"{self.path.stem}.last{self.path.suffix}")

    @property
    def weights(self) -> Path:
        """The kept weights as Darknet reads them."""
        return self.path.with_suffix(".weights")

    @property
    def lock(self) -> Path:
        return self.path.with_name(f"{self.path.stem}.lock")

    def __enter__(self) -> Checkpointer:
        self._made_folder = not self.path.parent.exists()
        check_writable(self.path)
        for path in (self.last, self.weights):
            files.check_writable(path)
        self._lock = take_lock(self.lock)
        return self

    def __exit__(self, *_) -> None:
        if self._lock is not None:
            self.lock.unlink(missing_ok=True)
            self._lock.close()
            self._lock = None
        if self._made_folder and not any(self.path.parent.iterdir()):
            self.path.parent.rmdir()  # the run ended before it had anything to save

    def keep(self, model: nn.Module, extra: dict) -> None:
        """Writes the weights that the run is about, for this program and for Darknet."""
        self._set_aside()
        darknet = (self.weights, weights.weights_bytes(model, 0))
        checkpoints.save_checkpoint(self.path, model, {**extra, "identity": self.identity}, darknet)

    def save_state(self, model: nn.Module, state: dict) -> None:
        """Writes everything that `load_state` needs."""
        self._set_aside()
        checkpoints.save_checkpoint(self.last, model, {**state, "identity": self.identity})

    def load_state(self, model: nn.Module) -> dict:
        """Loads the weights of the last state into `model` and returns the rest of it.

        Raises:
            TrainingError: there is none, or it belongs to a run with another cfg, data or setting.
        """
        if not self.last.exists():
            raise TrainingError(
                self.last,
                "there is nothing to resume",
                "the state that a run leaves beside its checkpoint",
                "start without --resume, or give the --checkpoint of that run",
            )
        state = checkpoints.read_checkpoint(self.last).get("extra")
        state = state if isinstance(state, dict) else {}
        identity = state.get("identity")
        if not isinstance(identity, dict) or "progress" not in state:
            raise CheckpointError(
                self.last,
                "holds no training state of this version",
                "the .last.pth of a run",
                "start anew without --resume",
            )
        for name, mine in self.identity.items():
            was = identity.get(name)
            if type(was) is not type(mine) or was != mine:
                said = short(repr(was) if plain(was) else type(was).__name__)
                raise TrainingError(
                    self.last,
                    f"was made with {name} {said}, and this run has {mine}",
                    remedy="resume with the same cfg, data and flags, or start anew without --resume",
                )
        checkpoints.load_checkpoint(self.last, model)
        self.fresh = False
        return state

    def _set_aside(self) -> None:
        """Gives the files of an earlier run a number, once, just before the first save."""
        if self.fresh:
            self.fresh = False
            for sentence in files.set_aside([self.path, self.last, self.weights], self.path.stem):
                self.told(sentence)


def plain(value) -> bool:
    """Whether a value can be printed without harm: numbers, texts, lists of a few of these."""
    if isinstance(value, (list, tuple)):
        return len(value) <= 8 and all(isinstance(v, (bool, int, float)) or v is None for v in value)
    return isinstance(value, (bool, int, float, str)) or value is None


def check_writable(path: Path) -> None:
    """Raises FileError unless a file can be made in the folder of `path`, which is created."""
    files.check_writable(path)
    try:  # the system's word for it, since some file systems allow less than their permissions say
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:80]}.", suffix=".tmp"):
            pass
    except (OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or e
        raise FileError(
            path.parent, f"cannot be written ({reason})", remedy="choose another folder with --checkpoint"
        ) from None
