"""The story of a slim run: begin, step by step, judge, hand back. What a stage does is in slim_stages.py."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

from ..base import devices, files, records
from ..network import profile, weights
from ..network.darknet import Darknet
from ..network.graph import Graph, input_size
from ..pruning import verify
from ..report import slim_report
from .cut_settings import AUTO
from .engine_times import time_under
from .slim_stages import Network, SlimStages


class SlimRun:
    """One run, from the dense network to the one that is handed back.

    Args:
        dense: the graph of the network that the run begins with.
        share: how much of the target is to be left, 0 to 1; None for a time, or without a target.
    """

    def __init__(self, stages: SlimStages, dense: Graph, share: float | None):
        self.stages, self.settings, self.folder = stages, stages.settings, stages.folder
        self.counted, self.graph, self.share = profile.count(dense), dense, share

    def all(self) -> dict:
        """Every stage that is still to be done, and the report."""
        s, say = self.settings, self.stages.observer.say
        network, dense = self.begin()
        start, steps, chosen = network, [], 0
        for number in range(1, s.iterative_steps + 1):
            network, row = self.step(number, network, steps, start)
            steps.append(row)
            say(slim_report.line(row, s.iterative_steps))
            if row["map50_recovered"] < row["map50_pruned"]:
                say(
                    f"step {number} lost mAP50 by its finetuning: a smaller -lr, or more --finetune_epochs; "
                    f"{self.folder / f'step{number}' / 'pruned.pth'} is as it was cut"
                )
            lost = None if s.max_map_drop is None else dense["choose_map50"] - row["choose_map50_recovered"]
            if lost is not None and lost > s.max_map_drop:
                back = f"step {chosen} is handed back" if chosen else "nothing is cut"
                say(f"step {number} loses {lost:.4f} of mAP50, more than {s.max_map_drop:g}: {back}")
                break
            chosen = number
        return self.finish(start, dense, steps, chosen)

    def begin(self) -> tuple[Network, dict]:
        """The dense network: trained, or as it was given and measured."""
        s = self.settings
        if s.weights is not None:
            network = Network(s.model_def, s.weights)
            dense = self.stages.measure("dense", network)
        else:
            network = Network(s.model_def, str(self.folder / "dense.pth"))
            said = f"dense training, {s.epochs} epochs" if s.epochs else "dense training"
            dense = self.stages.train("dense", said, s.model_def, None, s.epochs, seed=0)
        if s.target is not None and s.target[0] == "latency" and self.share is None:
            self.share = min(1.0, s.target[1] / self.stages.latency(self.graph))
        return network, {**dense, "choose_map50": self.stages.choose("dense_choose", network)}

    def step(self, number: int, network: Network, steps: list[dict], dense: Network) -> tuple[Network, dict]:
        """One step: press, cut, finetune, judge."""
        s, stages, before = self.settings, self.stages, self.stages.seconds
        name, said = f"step{number}", f"step {number} of {s.iterative_steps}"
        press, tune = (
            share_of(total, number, s.iterative_steps) for total in (s.sparse_epochs, s.finetune_epochs)
        )
        sparse = None
        if press:
            sparse = stages.train(
                f"{name}/sparse",
                f"{said}: sparsity training, {press} epochs",
                network.cfg,
                network.weights,
                press,
                seed=2 * number - 1,
                sr=True,
            )
            network = Network(network.cfg, sparse["checkpoint"])
        cut = stages.cut(number, f"{said}: cut", network, self.amount(number, steps))
        tuned = stages.train(
            f"{name}/tuned",
            f"{said}: finetuning, {tune} epochs",
            cut["cfg"],
            cut["checkpoint"],
            tune,
            seed=2 * number,
            teacher=stages.teacher(dense),
        )
        network = Network(cut["cfg"], tuned["checkpoint"])
        chosen = stages.choose(f"{name}/choose", network)
        return network, {
            "step": number,
            "percent": cut["percent"],
            "params": cut["params_after"],
            "macs": cut["macs_after"],
            "map50_sparse": sparse and sparse["map50"],
            "map50_pruned": cut["map50_after"],
            "map50_recovered": tuned["map50"],
            "choose_map50_recovered": chosen,
            "max_abs_diff": cut["max_abs_diff"],
            "proof_error": cut["proof_error"],
            "latency_ratio": cut["latency_after"] / cut["latency_before"],
            "target": cut["target"],
            "dose": sparse and sparse["dose"],
            "epochs": press + tune,
            "seconds": stages.seconds - before,
            "cfg": network.cfg,
            "checkpoint": network.weights,
            "weights": str(Path(network.weights).with_suffix(".weights")),
        }

    def amount(self, number: int, steps: list[dict]) -> dict:
        """How much a step cuts, as settings of `prune`: what is then left is the power i/n of what all steps
        leave.
        """
        s, power = self.settings, number / self.settings.iterative_steps
        if s.target is None and s.rate == AUTO:
            return {"percent": AUTO}
        if s.target is None:
            return {"percent": 1 - (1 - s.rate) ** (1 / s.iterative_steps)}
        kind, value, absolute = s.target
        if kind != "latency":
            return {f"target_{kind}": (self.share**power * getattr(self.counted, kind), True)}
        if absolute and number == s.iterative_steps:
            return {"target_latency": (value, True)}
        left = 1.0
        for row in steps:
            left *= row["latency_ratio"]
        return {"target_latency": (min(1.0, self.share**power / left), False)}

    # ------------------------------------------------------------------------------------------------------
    # the end

    def finish(self, start: Network, dense: dict, steps: list[dict], chosen: int) -> dict:
        """Writes the network that is handed back, proven, and the picture; what they are reported as."""
        s, row = self.settings, steps[chosen - 1] if chosen else None
        final = self.hand_back(row) if row else start
        if not chosen:
            warnings.warn(
                f"no step keeps mAP50 within {s.max_map_drop:g}: the network stays as it was; take more "
                "--iterative-steps, a smaller --rate, or finetune longer",
                stacklevel=2,
            )
        handed = Path(final.weights).with_suffix(".weights") if row or s.weights is None else s.weights
        result = {
            "steps": steps,
            "chosen": chosen,
            "dense_map50": dense["map50"],
            "sparse_map50": last(steps[:chosen], "map50_sparse"),
            "pruned_map50": row and row["map50_pruned"],
            "final_map50": row["map50_recovered"] if row else dense["map50"],
            "choose_on": self.stages.choosers,
            "dense_choose_map50": dense["choose_map50"],
            "test_dense_map50": self.stages.test("dense_test", start),
            "test_final_map50": self.stages.test("test", final),
            "params_before": self.counted.params,
            "params_after": row["params"] if row else self.counted.params,
            "macs_before": self.counted.macs,
            "macs_after": row["macs"] if row else self.counted.macs,
            **self.measured(final),
            "max_abs_diff": max(r["max_abs_diff"] for r in steps),
            "dose": [r["dose"] for r in steps if r["dose"] is not None],
            "cfg": final.cfg,
            "checkpoint": final.weights,
            "weights": handed,
            "seconds": self.stages.seconds,
            "recipe": s.recipe,
            "seed": s.seed,
            "target": s.target,
            "max_map_drop": s.max_map_drop,
            "iterative_steps": s.iterative_steps,
            "picture": self.folder / "slim.png",
        }
        title = f"{Path(s.model_def).name}, {s.recipe}"
        files.save(result["picture"], slim_report.figure(records.jsonable(result), title))
        return result

    def hand_back(self, row: dict) -> Network:
        """The chosen network at the top of the folder: cfg, .pth and .weights, read back and compared."""
        cfg, checkpoint = self.folder / Path(row["cfg"]).name, self.folder / "slim.pth"
        model = weights.load_model(row["cfg"], row["checkpoint"])
        verify.save_proven(
            model,
            cfg,
            checkpoint,
            checkpoint.with_suffix(".weights"),
            extra={"slimmed_from": self.settings.model_def},
        )
        return Network(str(cfg), str(checkpoint))

    def measured(self, final: Network) -> dict:
        """Latency (batch 1, in turn) and bytes of the dense network and of the one that is handed back."""
        s, device = self.settings, devices.device(self.settings.device)
        models = [Darknet(cfg).eval() for cfg in (s.model_def, final.cfg)]
        timings = time_under(models, s.engine, input_size(models[0].graph, s.img_size), device)
        found = {}
        for when, model, timing in zip(("before", "after"), models, timings, strict=True):
            found[f"latency_{when}"], found[f"latency_spread_{when}"] = timing.seconds, timing.spread
            found[f"bytes_{when}"] = weights.model_bytes(model)
        return found


def share_of(total: int, number: int, steps: int) -> int:
    """The epochs of one step: `total` shared out evenly, none lost."""
    return total * number // steps - total * (number - 1) // steps


def last(rows: Iterable[dict], key: str):
    """The last value of a key that is not None; None if there is none."""
    return next((row[key] for row in reversed(list(rows)) if row[key] is not None), None)
