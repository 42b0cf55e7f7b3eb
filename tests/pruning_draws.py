"""One random network, one random request, everything that must hold: shared by the tests and by
benchmarks/networks.py.
"""

from __future__ import annotations

import random
import warnings

import torch
from random_cfgs import random_network

from darkslim.base.errors import RequestError
from darkslim.network import profile
from darkslim.network.cfg import parse_cfg
from darkslim.network.channels import STRATEGIES, Channels
from darkslim.network.darknet import Darknet
from darkslim.network.graph import Graph
from darkslim.pruning import blocks
from darkslim.pruning.budget import Target
from darkslim.pruning.importance import Context
from darkslim.pruning.plan import PrunePlan, plan
from darkslim.pruning.policy import SCORE_NAMES
from darkslim.pruning.surgery import apply
from darkslim.pruning.verify import prove


def drawn(seed: int, model: Darknet) -> dict:
    """A request for `plan`: every strategy, score, ratio, floor and rounding comes up, and now and then a
    budget.
    """
    rng = random.Random(seed)
    request = {
        "percent": rng.choice((0.0, 0.3, 0.6, 0.9, 1.0)),
        "round_to": rng.choice((1, 1, 2, 4, 8)),
        "layer_keep": rng.choice((0.0, 0.01, 0.1, 0.3)),
        "strategy": rng.choice(STRATEGIES),
        "score": rng.choice(SCORE_NAMES),
        "context": Context(seed, [batch_of(model, seed)]),
    }
    if rng.random() < 0.15:
        request["target"] = Target(rng.choice(("params", "macs")), rng.uniform(0.2, 0.9))
    return request


def batch_of(model: Darknet, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two random pictures with three boxes, for scores that look at gradients."""
    g = torch.Generator().manual_seed(seed)
    boxes = torch.cat(
        (torch.tensor([[0.0], [0.0], [1.0]]), torch.zeros(3, 1), 0.3 + 0.4 * torch.rand(3, 4, generator=g)), 1
    )
    return torch.rand(2, *model.graph.input_shape, generator=g), boxes


def check(seed: int) -> dict | None:
    """Cuts random network `seed` as its request says and checks all that is promised; what came of it, None
    where nothing can be cut.

    Raises:
        AssertionError: with the seed.
    """
    model = random_network(seed, rare=seed % 3 > 0)
    removed = 0
    if seed % 4 == 0:
        removed = min(len(blocks.find(model)[0]), 1 + seed % 3)
        model = remove(model, removed, seed)
    request = drawn(seed, model)
    try:
        p = plan(model, **request)
    except RequestError as e:
        assert "nothing can be pruned" in str(e), f"seed {seed}"
        return None
    before = {k: v.clone() for k, v in model.state_dict().items()}
    compact = apply(model, p)
    try:
        proof = prove(model, p, compact, seed=seed)
    except Exception as e:
        raise AssertionError(f"seed {seed} {request}: {e}") from e
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()), (
        f"seed {seed}: the model was changed"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        counted = profile.count(Graph(parse_cfg(compact.cfg.to_bytes())))
    assert counted.params == sum(t.numel() for t in compact.parameters()), f"seed {seed}"
    assert counted.macs == real_macs(compact), f"seed {seed}"
    if p.target is not None:
        assert p.reached == {"params": counted.params, "macs": counted.macs}[p.target.kind], f"seed {seed}"
    rounded(p, model, compact, seed)
    return {
        "seed": seed,
        "strategy": p.strategy,
        "score": p.score,
        "error": proof.error,
        "cut": p.cut,
        "prunable": p.prunable,
        "blocks": removed,
        "target": p.target and abs(p.reached / p.wanted - 1),
    }


def remove(model: Darknet, count: int, seed: int) -> Darknet:
    """The network without its weakest blocks, proven."""
    removal = blocks.remove(model, count)
    try:
        blocks.prove_removal(model, removal, seed=seed)
    except Exception as e:
        raise AssertionError(f"seed {seed}, {count} blocks: {e}") from e
    return removal.model


def rounded(p: PrunePlan, model: Darknet, compact: Darknet, seed: int) -> None:
    """Every width that could change is a multiple of `round_to`, or whole; every floor holds."""
    prunable = Channels(model.graph).prunable_channels(p.strategy)
    for layer, keep in p.keep.items():
        width, full = compact.graph.nodes[layer].shape[0], model.graph.nodes[layer].shape[0]
        assert width == full or not prunable[layer].any() or width % p.round_to == 0, (
            f"seed {seed} layer {layer}"
        )
        assert keep.all() or keep.sum() >= max(1, p.layer_keep * full - 1e-9), f"seed {seed} layer {layer}"


def real_macs(model: Darknet) -> int:
    """Multiply-adds of one picture, counted from the tensors that flow."""
    total, handles = [], []
    for conv in model.convolutions().values():
        handles.append(
            conv.register_forward_hook(lambda m, i, out: total.append(out[0].numel() * m.weight[0].numel()))
        )
    with torch.inference_mode():
        model.raw_heads(torch.rand(1, *model.graph.input_shape))
    for handle in handles:
        handle.remove()
    return sum(total)
