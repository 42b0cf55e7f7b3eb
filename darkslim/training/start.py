"""Where a run starts from, and where its results go."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ..base.errors import DarkslimError, RequestError, WeightsError
from ..network import weights
from . import transfer


@dataclass(frozen=True)
class Start:
    """What the weights were before training.

    Attributes:
        content: "random", "backbone" (the first layers came from a file), "transfer" (all but the heads did)
            or "network" (all of them did).
        path: the file, None for random. layers: how many layers came from it. classes: of the file, where
            they are others. heads: the layers that were left random for that.
    """

    content: str
    path: Path | None = None
    layers: int = 0
    classes: int = 0
    heads: tuple[int, ...] = ()

    @property
    def trained(self) -> bool:
        """Whether every layer came from the file, so that there is something to lose."""
        return self.content == "network"

    def __str__(self) -> str:
        if self.content == "random":
            return "random weights"
        if self.content == "transfer":
            heads = ", ".join(map(str, self.heads))
            return (
                f"{self.path}, made for {self.classes} classes: layers {heads} (before the heads) stay random"
            )
        return f"{self.path}" + (
            f", which holds layers 0 to {self.layers - 1}" if self.content == "backbone" else ""
        )


def prefix_length(model: nn.Module, path: Path) -> int:
    """How many layers of the model a `.weights` file of this length fills exactly (all of them: a whole
    network).

    Returns 0 for a file that is no `.weights` file or ends in the middle of a layer.
    """
    try:
        return weights.matching_cutoff(model, path) or 0
    except WeightsError:
        return 0


def load_start(
    model: nn.Module,
    pretrained: str | None,
    folder: Path = Path("weights"),
    told: Callable[[str], None] = lambda sentence: None,
) -> Start:
    """Loads `pretrained`; without one, the file of `folder` that fills most of the model; else leaves it
    random.

    Args:
        told: called with a sentence for each file of `folder` that does not fit.

    Raises:
        WeightsError, CheckpointError, FileError: the file given does not fit.
    """
    if pretrained is not None:
        return load_file(model, Path(pretrained))
    found = (
        sorted(
            (p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")), key=lambda p: p.name
        )
        if folder.is_dir()
        else []
    )  # hidden files are temporaries that a kill left behind
    lengths = {p: _fits(model, p) for p in found}
    best = max(lengths, key=lengths.get, default=None)
    if best is not None and lengths[best]:
        return load_file(model, best)
    for path in found:
        told(f"{path} does not fit {model.cfg.path} and is not used")
    return Start("random")


def _fits(model: nn.Module, path: Path) -> int:
    """How many layers of the model a file of the folder would fill: that of another number of classes all but
    one, so that it comes behind a whole network.
    """
    layers = prefix_length(model, path)
    if layers:
        return layers
    try:
        if transfer.classes_of(model, path) is not None:
            return len(model.module_list) - 1
        if path.suffix == ".pth":
            weights.load_weights(model, path)
            return len(model.module_list)
    except DarkslimError:
        pass
    return 0


def load_file(model: nn.Module, path: Path) -> Start:
    """Loads a checkpoint, a `.weights` file or a backbone file."""
    layers = prefix_length(model, path)
    if 0 < layers < len(model.module_list):
        weights.load_weights(model, path, cutoff=layers)
        return Start("backbone", path, layers)
    if (classes := transfer.classes_of(model, path)) is not None:
        heads = transfer.load_but_heads(model, path, classes)
        return Start("transfer", path, len(model.module_list) - len(heads), classes, tuple(heads))
    weights.load_weights(model, path)
    return Start("network", path, len(model.module_list))


def written(asked: str | None) -> list[Path]:
    """The files that `--checkpoint` names."""
    if asked is None:
        return []
    path = Path(asked)
    path = path.with_suffix(".pth") if path.suffix == ".weights" else path
    return [path, path.with_suffix(".weights"), path.with_name(f"{path.stem}.last{path.suffix}")]


def target_path(asked: str | None, start: Start, given: bool, sparse: bool, reads: list[Path]) -> Path:
    """Where the kept weights go: `asked`, or a name that follows from where the run starts.

    Args:
        given: the start was named on the command line. sparse: sparsity training.
        reads: files that the run reads.

    Raises:
        RequestError: the run would overwrite what it reads.
    """
    if asked is not None:
        path = written(asked)[0]
    elif given and start.content == "network":
        path = Path("checkpoints") / f"{start.path.stem}_{'sparse' if sparse else 'finetuned'}.pth"
    else:
        path = Path("checkpoints/yolov3_ckpt.pth")
    for read, out in itertools.product(reads, (path, path.with_suffix(".weights"))):
        if out.exists() and read.exists() and out.samefile(read) or out.absolute() == read.absolute():
            raise RequestError("--checkpoint", f"{out} is read by this run", "another file", "name a new one")
    return path
