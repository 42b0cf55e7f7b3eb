"""What the tests of commands share: running one as its user would, and seeing that nothing on disk changed.

Most tests call a command in their own process, through the same door as a user: words in, exit code and
stderr out. That spares starting torch each time.
"""

from __future__ import annotations

import functools
import importlib
import json
import subprocess
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import forked
import numpy as np
from PIL import Image

from darkslim import commands

ROOT = Path(__file__).resolve().parent.parent
WHOLE = 1 << 20  # files up to this are compared by their content, others by size and time

# two convolutions and one head: 32 x 32 pixels, 8 x 8 cells, two classes
TINY = """\
[net]
width=32
height=32
channels=3

[convolutional]
batch_normalize=1
filters=6
size=3
stride=4
pad=1
activation=leaky

[convolutional]
filters=7
size=1
stride=1
pad=1
activation=linear

[yolo]
mask=0
anchors=9,9
num=1
classes=2
"""


@functools.cache
def load(name: str):
    """The module of a command, with `parser` and `main`."""
    return importlib.import_module(f"darkslim.commands.{name}_command")


def snapshot(folder: Path) -> dict[str, tuple]:
    """Everything in a folder, with type, size, time of change and content; folders by name only."""
    found = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        content = path.read_bytes() if path.is_file() and info.st_size <= WHOLE else None
        found[str(path.relative_to(folder))] = (
            () if path.is_dir() else (info.st_mode, info.st_size, info.st_mtime_ns, content)
        )
    return found


def call(capfd, name: str, words: list[str]) -> tuple[int, list[str], float]:
    """(exit code, lines on stderr, seconds of work) of a command run in this process."""
    start = time.process_time()
    code, said = perform(capfd, name, words)
    return code, said.err.splitlines(), time.process_time() - start


def perform(capfd, name: str, words: list[str]):
    """(exit code, what was captured: .out and .err) of a command run in this process."""
    module, before = load(name), warnings.showwarning
    capfd.readouterr()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")  # each text once, as in a process of its own
            code = commands.run(module.main, module.parser(), [str(word) for word in words])
    except SystemExit as e:  # argparse
        code = e.code
    finally:
        warnings.showwarning = before
    return code, capfd.readouterr()


def spawn(name: str, words: list[str], cwd: Path) -> subprocess.CompletedProcess:
    """The command as a process of its own."""
    return forked.run(name, [str(word) for word in words], cwd)


def check(code: int, lines: list[str], where: str, words: str = "", limit: int = 500) -> None:
    """One fault is exit 2 and one line, which names the place first."""
    assert code == 2, lines
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"error: {where}"), lines[0]
    assert words in lines[0], lines[0]
    assert len(lines[0]) < limit, len(lines[0])


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def picture(path: Path, size: tuple[int, int] = (32, 32), mode: str = "RGB", **options) -> None:
    """A picture of noise; `size` is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(sum(size)).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)


def tiny_model(text: str = TINY, seed: int = 0):
    """A network with weights of a trained one's kind: gammas from 0.05 to 1, variances near one."""
    import torch

    from darkslim.network.cfg import parse_cfg
    from darkslim.network.darknet import Darknet

    torch.manual_seed(seed)
    model = Darknet(parse_cfg(text, "net.cfg")).eval()
    for bn in model.batch_norms().values():
        bn.weight.data.copy_(torch.linspace(0.05, 1, len(bn.weight)))
        bn.running_mean.normal_()
        bn.running_var.uniform_(0.5, 2)
    return model


@dataclass
class Bench:
    """A folder with a tiny network and three pictures, and the commands run in it.

    Attributes:
        folder: the current folder.
        capfd: pytest's fixture.
        always: flags that each command is given.
    """

    folder: Path
    capfd: object
    always: dict[str, list[str]] = field(
        default_factory=lambda: {
            "train": [
                "--model_def",
                "net.cfg",
                "--data_config",
                "two.data",
                "--batch_size",
                "2",
                "--epochs",
                "1",
                "--amp",
                "off",
            ],
            "test": ["--model_def", "net.cfg", "--data_config", "two.data", "--weights_path", "net.weights"],
            "test_prune": [
                "--model_def",
                "net.cfg",
                "--no_eval",
                "--model",
                "net.weights",
                "--cfg_out",
                "out.cfg",
                "--model_out",
                "out.pth",
            ],
        }
    )

    def words(self, name: str, flags) -> list[str]:
        common = ["--device", "cpu"] if "--device" not in flags else []
        return [*self.always[name], "--n_cpu", "0", *common, *map(str, flags)]

    def run(self, name: str, *flags) -> tuple[int, list[str]]:
        """(exit code, lines on stderr)."""
        return call(self.capfd, name, self.words(name, flags))[:2]

    def refused(self, name: str, where: str, words: str, *flags, limit: int = 700) -> str:
        """The one line that the command refuses with; nothing on disk may have changed."""
        before = snapshot(self.folder)
        code, lines = self.run(name, *flags)
        check(code, lines, where, words, limit)
        assert snapshot(self.folder) == before
        return lines[0]

    def report(self, name: str, *flags) -> tuple[dict, list[str]]:
        """What `--json` wrote, and the lines on stderr, of a command that succeeds."""
        code, lines = self.run(name, "--json", "report.json", *flags)
        assert code == 0, lines
        return json.loads((self.folder / "report.json").read_text()), lines


def make_bench(folder: Path, capfd) -> Bench:
    """net.cfg, net.weights, and the data set two.data with three pictures of one box each, two of class 0 and
    one of class 1.
    """
    from darkslim.network.weights import save_weights

    write(folder / "net.cfg", TINY)
    save_weights(tiny_model(), folder / "net.weights")
    for i in range(3):
        picture(folder / "images" / f"{i}.png")
        write(folder / "labels" / f"{i}.txt", f"{i % 2} 0.5 0.5 0.25 0.25\n")
    for name in ("train.txt", "valid.txt"):
        write(folder / name, "".join(f"images/{i}.png\n" for i in range(3)))
    write(folder / "two.names", "red\ngreen\n")
    write(folder / "two.data", "classes=2\ntrain=train.txt\nvalid=valid.txt\nnames=two.names\n")
    return Bench(folder, capfd)
