"""A network run by ncnn."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from ..base import files
from ..base.errors import FileError
from ..base.libraries import library
from .carried import Carried
from .ncnn_file import NcnnFiles
from .raw_engine import RawEngine


class Ncnn(RawEngine):
    """A .param file, its .bin and .json beside it; or their contents.

    Raises:
        RequestError: ncnn is not installed. FileError: it cannot read the files.
    """

    name = "ncnn"

    def __init__(self, source, threads: int = 0):
        ncnn = library("ncnn")
        if isinstance(source, NcnnFiles):
            with tempfile.TemporaryDirectory(prefix="darkslim") as folder:  # read once, then in memory
                path = Path(folder, "net.param")
                path.write_text(source.param)
                path.with_suffix(".bin").write_bytes(source.bin)
                path.with_suffix(".json").write_text(source.about)
                self._open(ncnn, path, "the exported network", threads)
        else:
            self._open(ncnn, Path(source), source, threads)

    def _open(self, ncnn, path: Path, place, threads: int) -> None:
        for end in (".param", ".bin", ".json"):
            if not path.with_suffix(end).is_file():
                raise FileError(
                    path.with_suffix(end), "no such file", "the .param, .bin and .json of export.py"
                )
        try:
            texts = json.loads(files.read_bytes(path.with_suffix(".json"), "description", 16 * files.MIB))
        except (ValueError, RecursionError) as e:
            raise FileError(path.with_suffix(".json"), f"is no JSON ({str(e)[:100]})") from None
        carried = Carried.of(texts if isinstance(texts, dict) else {}, place)
        super().__init__(carried.cfg, carried.size)
        self.carried, self.ncnn, self.net = carried, ncnn, ncnn.Net()
        self.net.opt.num_threads = threads or torch.get_num_threads()
        for part in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
            setattr(self.net.opt, part, False)  # float32, as everything here
        if self.net.load_param(str(path)) or self.net.load_model(str(path.with_suffix(".bin"))):
            raise FileError(path, "ncnn cannot read it", "a .param with its .bin, as export.py writes them")

    def maps(self, x: np.ndarray) -> list[np.ndarray]:
        run = self.net.create_extractor()
        picture = np.ascontiguousarray(x[0])
        run.input("in0", self.ncnn.Mat(picture))
        found = []
        for i in range(len(self.heads)):
            failed, made = run.extract(f"out{i}")
            if failed:
                raise FileError("ncnn", f"gives no output {i}", "a network that export.py wrote")
            found.append(np.array(made))
        return found
