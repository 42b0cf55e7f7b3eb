"""How near detect.py comes to what its engine can do: pictures a second on disk against batches in memory.

    python benchmarks/detect_speed.py --model_def CFG --weights W --json docs/results/detect_speed.json

Objects are found in 500 pictures of the built-in generator, with nothing written, with labels, with pictures
drawn; before and after each run the same engine is given batches of 8 in memory, which is its limit.
Decoding and drawing need the same cores as the network: `share` is of that limit.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import torch
from stages import Stages

from darkslim import commands, evaluation
from darkslim.base.observer import Observer
from darkslim.network import weights
from darkslim.pipelines import DetectSettings, detect
from darkslim.pipelines.running import running
from darkslim.report import machine

WAYS = {"nothing": {"save": None}, "labels": {"no_pictures": True, "save_labels": "darknet"}, "pictures": {}}


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--model_def", default="config/yolov3-tiny-hand.cfg", help="the network")
    p.add_argument("--weights", default=None, help="its weights; none: random ones")
    p.add_argument("--engine", nargs="+", default=["torch-folded", "openvino"], help="what runs it")
    p.add_argument("--pictures", type=commands.count(8), default=500, help="how many")
    p.add_argument("--batch_size", type=commands.count(1), default=8, help="pictures at once")
    p.add_argument("--n_cpu", type=commands.count(0), default=1, help="processes that decode")
    p.add_argument("--work", default="runs/detect_speed", help="folder of the pictures")
    return p


def limit(args, engine: str) -> list[float]:
    """Seconds of batches in memory in the engine, decoding of boxes and suppression included."""
    model = weights.load_model(args.model_def, args.weights).eval()
    size = model.graph.input_shape[1:]
    network = running(model, engine, size, torch.device("cpu"))
    x, times = torch.rand(args.batch_size, model.cfg.channels, *size), []
    with torch.inference_mode():
        for _ in range(12):
            began = time.perf_counter()
            evaluation.detections(network(x), 0.25, 0.45)
            times.append(time.perf_counter() - began)
    return times[2:]


def main(args) -> dict:
    work = Path(args.work)
    stages = Stages(work, args.seed)
    made = ["converter.py", "--generate", args.pictures, "--input", work / "raw", "--output", work / "data"]
    stages.run("pictures", *made)
    if args.weights is None:
        torch.manual_seed(args.seed)
        model = weights.load_model(args.model_def, None)
        args.weights = str(work / "random.weights")
        weights.save_weights(model, args.weights)
    images = sorted(str(path.resolve()) for path in (work / "data" / "images").rglob("*.*g"))
    (work / "list.txt").write_text("".join(f"{path}\n" for path in images[: args.pictures]))
    rows = []
    for engine in args.engine:
        for way, written in WAYS.items():
            times = limit(args, engine)
            settings = DetectSettings(
                source=str(work / "list.txt"),
                model_def=args.model_def,
                weights_path=args.weights,
                engine=engine,
                batch_size=args.batch_size,
                n_cpu=args.n_cpu,
                device="cpu",
                **{"save": str(work / "out"), **written},
            )
            done = detect(settings, Observer())
            times += limit(args, engine)  # before and after: machines drift
            speed, most = done["images"] / done["seconds"], args.batch_size / statistics.median(times)
            rows.append(
                {"engine": engine, "written": way, "a_second": speed, "limit": most, "share": speed / most}
            )
            print(f"{engine:14} {way:9} {speed:7.1f} pictures a second of {most:7.1f}: {speed / most:.0%}")
    ran = {"commands": stages.commands, "sources": stages.sources}
    return {"rows": rows, "pictures": len(images), **ran, "machine": machine.describe()}


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
