"""The tables of the results pages that tell what training and cutting keep: each a function of what the
benchmarks wrote, with no sentence that the numbers do not say themselves.
"""

from __future__ import annotations

from tables import Table, command, giga, million, source

GLANCED = {"accuracy_bccd": "blood cells", "accuracy_demo": "drawn hands"}


def accuracy(read: dict) -> Table:
    """Every stage over seeds, network by network."""
    rows, how = (
        [["network", "stage", "seeds", "mAP50", "ahead of control", "as cut", "parameters", "MACs"]],
        [],
    )
    for key in sorted(key for key in read if key.startswith("accuracy_")):
        r, name = read[key], key.removeprefix("accuracy_")
        for x in r["summary"]:
            cut = f"{x['as_cut']:.3f} +- {x['as_cut_spread']:.3f}" if "as_cut" in x else ""
            size = [million(x["params_after"]), giga(x["macs_after"])] if "macs_after" in x else ["", ""]
            score = f"{x['map50']:.4f} +- {x['map50_spread']:.4f}"
            ahead = f"{x['ahead']:+.4f} +- {x['ahead_spread']:.4f}" if "ahead" in x else ""
            rows.append([name, x["stage"], str(x["seeds"]), score, ahead, cut, *size])
        how.append(
            f"{source(r, key, command(r))}; {len(r['seeds'])} seed(s){where(r)}; {r['epochs']} epochs dense, "
            f"{r['sparse_epochs']} of sparsity training (`-sr --s auto`), {r['finetune_epochs']} of "
            "finetuning; the control is the network of sparse auto, from random weights, for all of these "
            "epochs; ahead of it: seed by seed"
        )
    how.append(
        "mean +- half the range over seeds, on a list that chose nothing; the number behind a stage is the "
        "share of the MACs that is left; oneshot and scores: from the dense network, reconstructed, without "
        "any training; recalibrated, reconstructed: from the sparse one, by its gammas; sparse auto: from "
        "the sparse one, reconstructed, by the score that does best on training pictures; finetuned, taught: "
        "what was reconstructed, trained without and with the dense network as teacher"
    )
    return Table("Accuracy over seeds", tuple(how), rows)


def where(r: dict) -> str:
    """Which seeds ran on which processor, where it was more than one."""
    found: dict[str, list[str]] = {}
    for seed in map(str, r["seeds"]):
        found.setdefault(r.get("machines", {}).get(seed, {}).get("cpu", ""), []).append(seed)
    said = [f"{', '.join(seeds)} on {cpu}" for cpu, seeds in found.items()]
    return f" ({'; '.join(said)})" if len(found) > 1 else ""


def glance(read: dict, share: float = 0.15) -> Table:
    """What a deep cut keeps, by what chose its channels: mAP50, and the parameters that are left."""
    wanted = {
        "dense": "trained, whole",
        "sparse": "gammas pressed (`-sr`), whole",
        f"reconstructed {share:g}": "cut by the gammas, the rest solved again",
        f"sparse auto {share:g}": "cut where the rest can make up for it, and solved again",
        f"auto finetuned {share:g}": "the same, finetuned",
        f"control {share:g}": "that network from random weights, trained as long",
    }
    shown = {key: read[key] for key in ("accuracy_bccd", "accuracy_demo") if key in read}
    found = [{x["stage"]: x for x in r["summary"]} for r in shown.values()]
    rows = [["", *(f"{GLANCED[key]}, seeds: {len(r['seeds'])}" for key, r in shown.items())]]
    for stage, words in wanted.items():
        cells = [_glanced(one.get(stage), one["dense"]["seeds"]) for one in found]
        if any(cells):
            rows.append([words, *cells])
    return Table("", (), rows)


def _glanced(x: dict | None, seeds: int) -> str:
    """mAP50, parameters where they are told, and the number of seeds where it is another."""
    if x is None:
        return ""
    size = f", {million(x['params_after'])}" if "params_after" in x else ""
    return f"{x['map50']:.4f}{size}" + ("" if x["seeds"] == seeds else f" (seeds: {x['seeds']})")


def strategies(r: dict) -> Table:
    rows = [["network", "MACs left", "strategy", "exact", "interior", "none"]]
    for network, base in r["before"].items():
        rows.append([f"{network}: {base['map50']:.4f}, {giga(base['macs'])}", "", "", "", "", ""])
        mine = [x for x in r["rows"] if x["network"] == network]
        for target in sorted({x["target"] for x in mine}, reverse=True):
            rows += _by_strategy(target, [x for x in mine if x["target"] == target])
    how = (
        source(r, "strategies", "python benchmarks/strategies.py"),
        f"test mAP50 before any finetuning, one run, seed {r['seed']}: a comparison on the test "
        f"pictures, from "
        "which nothing was chosen",
        f"two numbers a cell: as folded / with batch norms re-estimated on {r['recalibrated_on']} training "
        "pictures",
        "one row for all strategies where they cut the same (networks without shortcuts)",
    )
    return Table("Strategies and folding at equal MACs", how, rows)


def _by_strategy(target: float, mine: list[dict]) -> list[list[str]]:
    """One row a strategy, or one for all where they are the same."""
    cells: dict[str, dict[str, str]] = {}
    for x in mine:
        cells.setdefault(x["strategy"], {})[x["fold"]] = f"{x['map50']:.3f} / {x['map50_recalibrated']:.3f}"
    lines = {
        strategy: [folds[name] for name in ("exact", "interior", "none")] for strategy, folds in cells.items()
    }
    if len({tuple(line) for line in lines.values()}) == 1:
        return [["", f"{target:.0%}", "all four", *next(iter(lines.values()))]]
    return [["", f"{target:.0%}", strategy, *line] for strategy, line in lines.items()]


def scores(r: dict) -> Table:
    names = list(dict.fromkeys(x["score"] for x in r["scores"]))
    rows = [["`group`, `exact`", *names]]
    for network in r["before"]:
        by = {x["score"]: x for x in r["scores"] if x["network"] == network}
        rows.append(
            [
                f"{network}, {next(iter(by.values()))['target']:.0%}",
                *(f"{by[n]['map50']:.3f} / {by[n]['map50_recalibrated']:.3f}" for n in names),
            ]
        )
    how = (
        source(r, "strategies", "python benchmarks/strategies.py"),
        "as above; the networks were trained with the gamma penalty, which favours `gamma`",
    )
    return Table("Scores at equal MACs", how, rows)


def recipes(r: dict) -> Table:
    rows = [["recipe", "MACs left", "mAP50 pruned", "recovered", "parameters", "seconds"]]
    for x in r["summary"]:
        rows.append(
            [
                f"`{x['recipe']}`",
                f"{x['target']:.0%}",
                f"{x['pruned']:.3f} +- {x['pruned_spread']:.3f}",
                f"{x['recovered']:.3f} +- {x['recovered_spread']:.3f}",
                f"{x['params'] / 1e3:,.0f} k",
                f"{x['seconds']:.0f}",
            ]
        )
    dense = ", ".join(f"{value:.4f}" for value in r["dense"].values())
    how = (
        source(r, "recipes", "python benchmarks/recipes.py"),
        f"drawn hands, the demo's network, {len(r['seeds'])} seeds, mean +- half the range of test mAP50; "
        "pruned: after the last cut, before its finetuning",
        f"every seed has one dense network ({r['epochs_dense']} epochs, mAP50 {dense}), from which each "
        f"recipe "
        f"spends {r['epochs_after']} more epochs, of sparsity training and finetuning together",
    )
    return Table("Recipes of slim.py at equal MACs and equal epochs", how, rows)


def demo(r: dict) -> Table:
    stages = ("dense", "sparse", "pruned", "finetuned")
    rows = [
        ["", *stages],
        ["mAP50", *(f"{r[f'{s}_map50']:.4f}" for s in stages)],
        ["parameters", f"{r['params_before']:,}", "", f"{r['params_after']:,}", _less(r, "params")],
        ["MACs", f"{r['macs_before'] / 1e6:.0f} M", "", f"{r['macs_after'] / 1e6:.0f} M", _less(r, "macs")],
        [
            "latency, batch 1",
            f"{1e3 * r['latency_before']:.1f} ms",
            "",
            f"{1e3 * r['latency_after']:.1f} ms",
            f"{r['latency_before'] / r['latency_after']:.2f} times as fast",
        ],
    ]
    how = (
        source(r, "demo", "make demo"),
        f"a half-width yolov3-tiny on drawn hands, {r['seconds']:.0f} s of work, seed {r['seed']}",
        "its settings were found on such pictures, and each stage trains on: a check of the road, no "
        "evidence of "
        "accuracy",
    )
    return Table("The demo", how, rows)


def _less(r: dict, key: str) -> str:
    return f"-{1 - r[f'{key}_after'] / r[f'{key}_before']:.1%}"


def loss_rules(r: dict) -> Table:
    said = {
        "neither": "neither",
        "ignore": "ignore only with class probability above .25",
        "share": "truths of one cell share its box",
        "both": "both, as Darknet (what the loss does)",
    }
    rows = [["rule", "mAP50 on val"]]
    rows += [[said[name], f"{x['map50']:.4f} +- {x['spread']:.4f}"] for name, x in r["summary"].items()]
    how = (
        source(r, "loss_rules", "python benchmarks/loss_rules.py"),
        f"yolov3-tiny on BCCD at {r['img_size']}, {r['epochs']} epochs on the list train, "
        f"{len({x['seed'] for x in r['rows']})} seeds, mean +- half the range",
    )
    return Table("Two rules of the loss", how, rows)


def finetune_rate(r: dict) -> Table:
    """Short and longer finetunings of cut networks at shares of the cfg's learning rate."""
    shares = list(dict.fromkeys(x["share"] for x in r["summary"]))
    found = {(x["cut"], x["epochs"], x["share"]): x for x in r["summary"]}
    rows = [
        ["cut", "steps", "seeds", *(s if s == "default" else f"{float(s):g} x the cfg's" for s in shares)]
    ]
    for cut, epochs in dict.fromkeys((x["cut"], x["epochs"]) for x in r["summary"]):
        mine = [found.get((cut, epochs, share)) for share in shares]
        one = next(x for x in mine if x)
        cells = [f"{x['map50']:.4f} +- {x['map50_spread']:.4f}" if x else "" for x in mine]
        rows.append([cut, f"{one['steps']:,}", str(one["seeds"]), *cells])
    how = (
        source(r, "finetune_rate", command(r)),
        "drawn hands, the demo's network cut to 15% of its multiply-adds as in accuracy_demo.json (pressed: "
        "`sparse auto 0.15`, not pressed: `oneshot 0.15`), finetuned; the last weights, on a list that chose "
        "nothing; default: what train.py takes without -lr",
    )
    return Table("At which rate a cut network is finetuned", how, rows)
