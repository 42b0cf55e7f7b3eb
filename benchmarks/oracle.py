"""How far the network is from what Darknet itself computes, and what the configs count.

    python benchmarks/oracle.py --json docs/results/oracle.json

For each golden folder: the largest difference of any layer relative to that layer's largest value, and
whether cfg and weights come back byte for byte. For each cfg of config/: parameters and MACs from the text
alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from stages import ROOT

from darkslim import commands
from darkslim.network.cfg import read_cfg
from darkslim.network.graph import Graph
from darkslim.network.profile import count
from darkslim.network.weights import load_model, weights_bytes


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--golden", default=str(ROOT / "tests/golden"), help="folder of the golden networks")
    return p


def main(args) -> dict:
    golden = {
        folder.parent.name: compare(folder.parent) for folder in sorted(Path(args.golden).glob("*/net.cfg"))
    }
    for name, row in golden.items():
        print(
            f"{name:20} worst layer {row['worst_layer']:.1e}  cfg {row['cfg_bytes_equal']}  weights "
            f"{row['weights_bytes_equal']}"
        )
    counts = {}
    for path in sorted((ROOT / "config").glob("*.cfg")):
        graph = Graph(read_cfg(path))
        counted = count(graph)
        counts[path.name] = {
            "parameters": counted.params,
            "macs": counted.macs,
            "input": list(graph.input_shape),
        }
        print(f"{path.name:24} {counted.params:>12,} parameters {counted.macs / 1e9:8.3f} GMACs")
    return {"golden": golden, "configs": counts}


def compare(folder: Path) -> dict:
    """Differences of one golden network."""
    model = load_model(folder / "net.cfg", folder / "net.weights")
    stored = np.load(folder / "golden.npz")
    with torch.inference_mode():
        outputs = model.layer_outputs(torch.from_numpy(stored["input"])[None])
    worst = 0.0
    for name in (k for k in stored if k.startswith("layer_")):
        ours, theirs = outputs[int(name[6:9])][0].numpy(), stored[name]
        known = ~np.isnan(theirs)  # the C program's logistic overflows far below zero
        worst = max(worst, float(np.abs(ours - theirs)[known].max() / np.abs(theirs[known]).max()))
    return {
        "worst_layer": worst,
        "layers": len(outputs),
        "cfg_bytes_equal": model.cfg.to_bytes() == (folder / "net.cfg").read_bytes(),
        "weights_bytes_equal": weights_bytes(model, model.seen) == (folder / "net.weights").read_bytes(),
    }


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
