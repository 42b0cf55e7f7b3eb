"""The tables of the results pages that tell of time."""

from __future__ import annotations

from tables import Table, command, giga, million, source

NAMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "opencv": "OpenCV"}


def speed(read: dict) -> Table:
    rows = [["what", "ratio", "JSON"]]
    if t := read.get("train_step"):
        link = "[train_step](results/train_step.json)"
        rows.append(
            [
                "training step, yolov3-tiny, 8 images at 416, against plain fp32 NCHW eager",
                f"{t['speedup']:.2f} times as fast",
                link,
            ]
        )
        rows.append(
            [
                f"loader with {t['loader_workers']} workers, against what that step consumes",
                f"{t['loader_over_step']:.1f} times",
                link,
            ]
        )
    if e := read.get("evaluate"):
        rows.append(
            [
                f"NMS + matching + AP, {e['images']} images of {e['candidates']} candidates, against a "
                f"loop over "
                "boxes, equal results",
                f"{e['ratio']:.1f} times as fast",
                "[evaluate](results/evaluate.json)",
            ]
        )
    if u := (e or {}).get("untrained"):
        rows.append(
            [
                f"NMS of {u['candidates']:,} candidates in one picture ({1e3 * u['seconds_ours']:.0f} ms), "
                "against a loop over boxes, equal results",
                f"{u['ratio']:.0f} times as fast",
                "[evaluate](results/evaluate.json)",
            ]
        )
    return Table("Speed of the tool", ("`make bench`; ratios within one run",), rows)


def cut_speed(r: dict) -> Table:
    head = ["network", "engine", "batch", "ms", "+-", "of peak", "MACs, times fewer", "time, times less"]
    rows = [[*head, "kept", "from eager"]]
    whole = r["peak"].get("int8", 0) > 1.3 * r["peak"]["float32"]  # products of integers as such
    ratios = {(x["network"], x["engine"], x["batch"]): x for x in r["ratios"]}
    for x in r["rows"]:
        if "seconds" not in x:
            continue
        known = "share" in x and (whole or not x["engine"].endswith("int8"))
        share = f"{x['share']:.0%}" if known else ""
        row = [
            x["network"],
            x["engine"],
            str(x["batch"]),
            f"{1e3 * x['seconds']:.1f}",
            f"{x['spread']:.0%}",
            share,
        ]
        ratio = ratios.get((x["network"], x["engine"], x["batch"]))
        cells = [f"{ratio[k]:.2f}" for k in ("macs_ratio", "time_ratio", "kept")] if ratio else [""] * 3
        rows.append([*row, *cells, f"{ratio['from_eager']:.1f} x" if ratio else ""])
    peak = ", ".join(f"{kind} {value / 1e9:.0f} G" for kind, value in r["peak"].items())
    how = (
        source(r, "speed", command(r)),
        "yolov3 with random weights, cut by strategy `slim` to 9.5 and 3.5 G multiply-adds, widths in "
        "multiples of " + ", ".join(f"{name}: {value}" for name, value in r["round_to"].items()),
        "one run: the engines of a network in turn, one network after another; `kept` is the ratio of times "
        "over that of multiply-adds; `from eager` counts from the dense network in PyTorch as it trains",
        f"peak: operations a second of large matrix products, {peak}; a share above 1 says that the engine "
        "multiplies otherwise than they do (Winograd)"
        + ("" if whole else "; the 8-bit product did not run in integers, so that no share of it is told"),
    )
    return Table("How much of a cut arrives as time", how, rows)


def deployed(r: dict) -> Table:
    head = ["network", "engine", "mAP50", "ms"]
    for at in next(x for x in r["rows"] if "seconds" in x)["with_nms"]:
        head += [f"with NMS at {at}", "its share", "times faster than PyTorch eager, dense"]
    rows = [head]
    scores = {(x["network"], x["precision"]): x["map50"] for x in r["precisions"]}
    for x in r["rows"]:
        if "seconds" not in x:
            continue
        kind = "float32"
        if x["engine"].endswith("int8"):
            kind = "int8 in OpenVINO" if x["engine"].startswith("openvino") else "int8"
        if x["engine"].endswith("bf16"):
            kind = "bfloat16 in OpenVINO" if x["engine"].startswith("openvino") else "not measured"
        score = f"{scores[x['network'], kind]:.4f}" if (x["network"], kind) in scores else ""
        row = [x["network"], x["engine"], score, f"{1e3 * x['seconds']:.1f}"]
        for at, took in x["with_nms"].items():
            row += [f"{1e3 * took:.1f}", f"{x['suppression'][at]:.1%}", f"{x['from_eager'][at]:.1f}"]
        rows.append(row)
    cuts = [
        f"{name}: {million(x['params'])} parameters, {giga(x['macs'])} multiply-adds"
        + (f", widths in multiples of {x['round_to']}" if "round_to" in x else "")
        for name, x in r["sizes"].items()
    ]
    how = (
        source(r, "deployed", command(r)),
        "yolov3-tiny on BCCD, test list; cut and reconstructed without any training after it",
        "; ".join(cuts),
        "mAP of float32 is that of the ONNX file, of 8 bits and bfloat16 that of the file in that engine; "
        "batch 1, on real pictures; decoding and NMS at the threshold of mAP and at that of detect.py",
    )
    return Table("From training to the device", how, rows)


def eight_bits(r: dict) -> Table:
    names = ("float32", "int8", "int8 in OpenVINO")
    rows = [["network", "", "float32", "8 bits in ONNX Runtime", "in OpenVINO", "layers in float32"]]
    found = {(x["network"], x["precision"]): x for x in r["precisions"]}
    for name in r["sizes"]:
        trained = (", trained for int8", ", trained for it")
        for said, ends in (("as it is", ("", "")), ("trained for 8 bits", trained)):
            cells = [found.get((name, n + ends[n != "float32"])) for n in names]
            if all(cells):
                kept = ", ".join(map(str, cells[1]["kept_float"]))
                rows.append([name, said, *(f"{x['map50']:.4f}" for x in cells), kept])
    how = (source(r, "deployed", command(r)), "mAP50 on the test list; calibrated on 128 training pictures")
    return Table("8 bits", how, rows)


def on_the_device(r: dict, at: str = "0.25") -> Table:
    """For the README: what a cut brings where it is deployed, with boxes above `at` as detect.py wants."""
    times = {(x["network"], x["engine"]): x["with_nms"][at] for x in r["rows"] if "seconds" in x}
    scores = {(x["network"], x["precision"]): x["map50"] for x in r["precisions"]}
    plain = [e for n, e in times if n == "dense" and e not in ("torch",) and not e.endswith(("int8", "bf16"))]
    best = min(plain, key=lambda e: sum(times[n, e] for n in r["sizes"]))
    named = NAMES.get(best, best)
    columns = {"torch": "PyTorch", "torch-folded": "norms folded", best: named}
    columns |= {"openvino-bf16": "bfloat16, OpenVINO", "openvino-int8": "8 bits, OpenVINO"}
    columns = {engine: said for engine, said in columns.items() if ("dense", engine) in times}
    rows = [["MACs left", "parameters", "mAP50", *columns.values(), "mAP50 in 8 bits"]]
    for name, x in r["sizes"].items():
        ms = [_ms(times[name, engine]) for engine in columns]
        score = f"{scores[name, 'float32']:.4f}"
        cells = ["100%" if name == "dense" else name, million(x["params"]), score, *ms]
        rows.append([*cells, f"{scores[name, 'int8 in OpenVINO']:.4f}"])
    return Table("", (), rows)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.{0 if seconds >= 0.02 else 1}f} ms"


def knapsack(r: dict) -> Table:
    rows = [
        [
            "time asked for",
            "ranked by",
            "importance kept",
            "mAP50 cut",
            "reconstructed",
            "MACs",
            "time measured",
        ]
    ]
    for x in r["knapsack"]:
        for name, said in (("threshold", "score"), ("knapsack", "score for its cost (`--knapsack`)")):
            y = x[name]
            scores = [f"{y[key]:.4f}" for key in ("map50_folded", "map50_after")]
            cells = [f"{x['share']:.0%}", said, f"{y['importance_kept']:.1%}", *scores]
            rows.append([*cells, giga(y["macs_after"]), f"{y['time_ratio']:.0%}"])
    how = (
        source(r, "deployed", command(r)),
        "yolov3-tiny on BCCD, test list, score taylor, no training after the cut; times are as measured: "
        "where they differ, the two are not cuts to one time",
    )
    return Table("Budgets of time: thresholds and the knapsack", how, rows)


def where_time_goes(r: dict) -> Table:
    rows = [["network", "engine", "convolutions", "the rest"]]
    for x in r["rows"]:
        other = [(k, s) for k, s in x["shares"].items() if "conv" not in k.lower() and s >= 0.01]
        said = ", ".join(f"{kind} {share:.0%}" for kind, share in other[:5])
        rows.append([x["network"], x["engine"], f"{x['convolutions']:.0%}", said])
    how = (
        source(r, "where_time_goes", command(r)),
        "each engine by its own clock, batch 1; what is fused into convolutions counts as these; in 8 bits "
        "`Subgraph`, `QLinearLeakyRelu` and their like turn maps into steps",
    )
    return Table("Where the time goes", how, rows)


def detect_speed(r: dict) -> Table:
    rows = [["engine", "written", "pictures a second", "limit of the engine", "share"]]
    for x in r["rows"]:
        speeds = [f"{x[key]:.1f}" for key in ("a_second", "limit")]
        rows.append([x["engine"], x["written"], *speeds, f"{x['share']:.0%}"])
    how = (
        source(r, "detect_speed", command(r)),
        f"detect.py on {r['pictures']} generated pictures, batches of 8; the limit: batches in memory",
    )
    return Table("detect.py", how, rows)
