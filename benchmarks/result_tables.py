"""The tables of the results pages that tell of exactness, repairs, files and promises: each a function of
what the benchmarks wrote, with no sentence that the numbers do not say themselves.
"""

from __future__ import annotations

from tables import Table, command, giga, million, source

PACKED = {
    "zeros 90%, solved": "with 90% of its weights 0",
    "4 bits, solved": "packed with 4 bits",
    "zeros 90%, solved, 5 bits, solved": "with both (5 bits)",
    "slim, zeros 60%, 5 bits, solved": "cut to 15%, with 60% of what is left 0 and 5 bits",
}


def packed_glance(r: dict) -> str:
    """What became of the file, in a sentence."""
    rows = {x["name"]: x for x in r["rows"]}
    parts = [
        f"{x['bytes_after'] / 1e6:.1f} MB {words} ({r['bytes'] / x['bytes_after']:.0f} times smaller, mAP50 "
        f"{x['map50_after']:.4f})"
        for name, words in PACKED.items()
        if (x := rows.get(name))
    ]
    return (
        f"The file of the whole network, {r['bytes'] / 1e6:.1f} MB, becomes without any training "
        f"([docs/compression.md](docs/compression.md)): {', '.join(parts)}."
    )


def families(r: dict) -> Table:
    rows = [
        ["cfg", "classes, protected", "cut", "parameters", "MACs", "exact", "interior", "none", "s", "OpenCV"]
    ]
    for x in r["rows"]:
        d, first = x["differences"], x["percent"] == r["rows"][0]["percent"]
        rows.append(
            [
                f"`{x['cfg']}`" if first else "",
                f"{x['classes']:,}, {x['protected']:,}" if first else "",
                f"{x['percent']:.0%}",
                f"{x['params_before'] / 1e6:.2f} -> {million(x['params_after'])}",
                f"{x['macs_before'] / 1e9:.2f} -> {x['macs_after'] / 1e9:.2f} G",
                *(f"{d[name]:.0e}" for name in ("exact", "interior", "none")),
                f"{x['seconds']:.1f}",
                "not readable" if x["opencv"] is None else f"{x['opencv']:.0e}",
            ]
        )
    how = (
        source(r, "families", "python benchmarks/families.py"),
        f"strategy `{r['strategy']}`, random gammas and betas of both signs",
        "exact, interior, none: how far the compact network is from the masked one, of the largest "
        "value, by way "
        "of folding; s: seconds for graph, plan and surgery",
        "OpenCV: how far it is from the masked network when it reads the files with batch norms folded in",
    )
    return Table("Full-size networks", how, rows)


def promises(read: dict) -> Table:
    """What was counted: claim, figure, command and file."""
    rows = [["what", "figure", "command, JSON"]]

    def add(name: str, command: str, what: str, figure: str) -> None:
        rows.append([what, figure, f"`{command}`, [{name}](results/{name}.json)"])

    if n := read.get("networks"):
        add(
            "networks",
            "python benchmarks/networks.py",
            f"random networks with random requests ({n['really_cut']:,} really cut, "
            f"{n['with_blocks_removed']:,} "
            f"with blocks removed, {n['with_budget']:,} with a budget): compact equals masked, borders "
            f"included",
            f"{len(n['failures'])} failures in {n['networks']:,}; worst difference "
            f"{n['worst_error']:.0e} of the "
            "largest value",
        )
    if b := read.get("budgets"):
        worst = max(abs(x["off"]) for x in b["rows"])
        add(
            "budgets",
            "python benchmarks/budgets.py",
            f"random budgets met within {b['within']:.0%}",
            f"{b['met']} of {len(b['rows'])}; worst {worst:.1%} off",
        )
    if o := read.get("oracle"):
        worst = max(x["worst_layer"] for x in o["golden"].values())
        add(
            "oracle",
            "python benchmarks/oracle.py",
            "small networks, one a family, against Darknet's own C program: worst layer",
            f"{worst:.1e} of its largest value, {len(o['golden'])} networks",
        )
    if k := read.get("kills"):
        add(
            "kills",
            "python benchmarks/kills.py",
            f"`slim.py` killed at a drawn moment ({len(k['stages_hit'])} different stages) and given "
            f"the same line "
            "again: weights of the uninterrupted run, bit for bit",
            f"{k['equal']} of {len(k['trials'])}",
        )
    for x in read.get("scaling", {}).get("rows", ()):
        add(
            "scaling",
            "python benchmarks/scaling.py",
            f"yolov3 at {x['width']:g} times its widths ({x['params'] / 1e6:,.0f} M parameters): graph "
            f"+ plan, "
            "surgery",
            f"{x['graph'] + x['plan']:.2f} s, {x['surgery']:.2f} s",
        )
    return Table("Promises, counted", ("each row: the command that counted it and its JSON",), rows)


def counting(r: dict) -> Table:
    rows = [["network", "measured", "mAP50", "change"]]
    rows += [[x["network"], x["way"], f"{x['map50']:.4f}", f"{x['change']:+.4f}"] for x in r["rows"]]
    how = (
        source(r, "counting", "python benchmarks/counting.py"),
        "published detectors, 128 pictures of COCO, confidence 0.005: how much the arithmetic around a "
        "network moves its mAP",
    )
    return Table("What counting does", how, rows)


def published(r: dict) -> Table:
    rows = [["stage", "score", "mAP50", "parameters", "MACs", "compact from masked", "OpenCV from ours"]]
    for x in r["rows"]:
        rows.append(
            [
                x["stage"],
                x["score"],
                f"{x['map50']:.4f}",
                million(x["params"]) if x["params"] else "",
                giga(x["macs"]) if x["macs"] else "",
                f"{x['exact']:.0e}" if x["exact"] is not None else "",
                f"{x['opencv']:.0e}" if x["opencv"] is not None else "",
            ]
        )
    how = (
        source(r, "published", "python benchmarks/published.py"),
        "yolo-fastest-1.1-xl, published, never trained for sparsity; cut by strategy `slim`, by its gammas "
        "and recalibrated, or by score `repair` and reconstructed, each on 8 batches; then finetuned for "
        f"{r['epochs']} epochs on 128 pictures with the network before the cut as its teacher; mAP50 on 128 "
        "others",
    )
    return Table("A published detector", how, rows)


def repairs(read: dict) -> Table:
    """Cuts of networks that were never trained for sparsity: repaired, and finetuned where asked for."""
    names = sorted(key for key in read if key.startswith("repairs_"))
    keys = {"cut": "cut", "recalibrate": "recalibrated", "reconstruct": "reconstructed"}
    if any(read[name].get("finetune_epochs") for name in names):
        keys["finetuned"] = "finetuned"
    rows, how = [["network", "MACs left", "score", *keys.values(), "parameters"]], []
    for name in names:
        r = read[name]
        empty = [""] * (len(keys) - 1)
        rows.append([r["network"], "100%", "dense", f"{r['dense']:.4f}", *empty, million(r["params"])])
        for x in r["rows"]:
            score = x["score"] if x["fold"] == "exact" else f"{x['score']}, {x['fold']} folding"
            cells = [f"{x[key]:.4f}" if key in x else "" for key in keys]
            rows.append(["", f"{x['macs'] / r['macs']:.0%}", score, *cells, million(x["params"])])
        how.append(
            f"{source(r, name, 'python benchmarks/repairs.py')}; strategy `{r['strategy']}`, repaired on "
            f"{r['pictures']} training pictures"
            + (f", finetuned for {r['finetune_epochs']} epochs, taught" if r.get("finetune_epochs") else "")
        )
    how.append(
        "mAP50 on a list that chose nothing; no sparsity training; finetuned: what stands before it, by the "
        "network before the cut as teacher; the BCCD network is trained as by the stage dense of "
        "benchmarks/accuracy.py, one seed"
    )
    return Table("Cut and repaired, without sparsity training", tuple(how), rows)


def reconstruction(r: dict) -> Table:
    rows = [["network", "parameters", "seconds", "memory", "error of a layer, cut", "reconstructed"]]
    for x in r["rows"]:
        sizes = f"{million(x['params'])} -> {million(x['params_after'])}"
        errors = [f"{x[key]:.3f}" for key in ("error_before", "error_after")]
        rows.append([x["network"], sizes, f"{x['seconds']:.0f}", f"{x['memory'] / 1e9:.1f} GB", *errors])
    how = (
        source(r, "reconstruction", command(r)),
        f"random weights, {r['percent']:.0%} of the channels cut by l1, {r['rows'][0]['pictures']} pictures "
        "of noise; memory: the peak of the whole process; error: mean square over the variance, mean over "
        "layers",
    )
    return Table("What reconstruction costs", how, rows)


def compression(read: dict) -> Table:
    """Sparse weights and packed files of trained networks: bytes and mAP."""
    rows, how = [["network", "stage", "zeros", "bytes", "smaller", "mAP50"]], []
    for name in sorted(key for key in read if key.startswith("compression_")):
        r = read[name]
        rows.append([r["network"], "float32", "", f"{r['bytes']:,.0f}", "1.0x", f"{r['dense']:.4f}"])
        for x in r["rows"]:
            smaller = f"{r['bytes'] / x['bytes_after']:.1f}x"
            score = f"{x['map50_after']:.4f}" + (
                f" +- {x['map50_spread']:.4f}" if r.get("seeds", 1) > 1 else ""
            )
            cells = [x["name"], f"{x['zeros']:.1%}", f"{x['bytes_after']:,.0f}", smaller, score]
            rows.append(["", *cells])
        trained = f"trained for {r['epochs']} epochs" if r["epochs"] else "no training"
        if r.get("deep_epochs", r["epochs"]) != r["epochs"]:
            trained += f" ({r['deep_epochs']} at the largest share and in surgery)"
        how.append(
            f"{source(r, name, 'python benchmarks/compression.py')}; {trained}, solved on {r['pictures']} "
            "training pictures"
        )
    how.append(
        "bytes of sparse weights are those without the zeros, float32 and a distance for each other one; "
        "packed files are as they lie on the disk; solved: --reconstruct; mAP50 on a list that chose nothing"
    )
    return Table("Smaller files", tuple(how), rows)


def packing(r: dict) -> Table:
    rows = [["network", "weights", "float32", "packed", "pack", "unpack", "memory to pack", "to unpack"]]
    for x in r["rows"]:
        mega = [f"{x[key] / 1e6:.1f} MB" for key in ("bytes_before", "bytes_after")]
        seconds = [f"{x[key]:.1f} s" for key in ("seconds_pack", "seconds_unpack")]
        memory = [f"{x[key] / x['bytes_before']:.1f} x float32" for key in ("memory_pack", "memory_unpack")]
        rows.append([x["network"], f"{x['weights']:,}", *mega, *seconds, *memory])
    how = (
        source(r, "packing", "python benchmarks/packing.py"),
        f"random weights, {r['zeros']:.0%} of each layer's set to 0, {r['bits']} bits, coder {r['coder']}; "
        "memory is the peak of the whole process, Python and torch with it",
        f"largest excess of a packed file over its entropy: "
        f"{max(x['bytes_after'] / x['entropy'] - 1 for x in r['rows']):.2%}",
    )
    return Table("Packing large networks", how, rows)
