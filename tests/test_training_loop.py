"""One optimizer step: accumulation, processes, penalty, precision, numbers that are none."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
import torch

from darkslim.base.errors import Interrupted, RequestError, TrainingError
from darkslim.network.cfg import parse_cfg
from darkslim.network.darknet import Darknet
from darkslim.network.gates import Gates
from darkslim.training.batches import micro_batches
from darkslim.training.distributed import World
from darkslim.training.ema import EMA
from darkslim.training.loop import Run, train, train_step
from darkslim.training.objective import Detection, Objective
from darkslim.training.optim import Schedule, make_optimizer
from darkslim.training.penalties import PENALTIES
from darkslim.training.precision import Precision
from darkslim.training.prunable import pressed, prunable_gammas

CPU = torch.device("cpu")
PRESS = {"gate": 25.0, "prox": 2.0}  # strengths that move something in twenty steps; others 0.5
TINY = """[net]
width=32
height=32
channels=3
[convolutional]
batch_normalize=1
filters=6
size=3
stride=2
pad=1
activation=leaky
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky
[convolutional]
filters=12
size=1
stride=1
pad=1
activation=linear
[yolo]
mask=0,1
anchors=8,8, 16,16
num=2
classes=1
"""


def tiny(seed: int = 0) -> Darknet:
    torch.manual_seed(seed)
    return Darknet(parse_cfg(TINY)).train()


def make_run(model: Darknet, s: float = 0.0, penalty: str = "l1", **parts) -> Run:
    kind = PENALTIES[penalty]
    if penalty == "gate":
        model.gates = Gates(model.graph).to(next(model.parameters()).dtype)
    gammas = pressed(model)
    return Run(
        model=model,
        objective=Objective(Detection(model.heads)),
        optimizer=make_optimizer(
            model, 0.01, 0.9, 5e-4, [] if kind.momentum else [g.parameter for g in gammas]
        ),
        schedule=Schedule(0.01, 20, burn_in=2),
        precision=Precision("off", CPU),
        constraints=[kind(gammas, s, kind.schedule)] if s else [],
        **parts,
    )


def copies(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of one image over and over: batch statistics are the same however it is cut."""
    g = torch.Generator().manual_seed(5)
    image, truth = torch.rand(1, 3, 32, 32, generator=g), torch.tensor([[0, 0, 0.4, 0.6, 0.3, 0.4]])
    targets = truth.repeat(count, 1)
    targets[:, 0] = torch.arange(count)
    return image.repeat(count, 1, 1, 1), targets


def gammas_after(steps: int, accumulate: int, s: float = 0.5) -> torch.Tensor:
    run = make_run(tiny(), s=s, accumulate=accumulate)
    for _ in range(steps):
        train_step(run, *copies(4))
    return torch.cat([g.parameter.detach() for g in prunable_gammas(run.model)])


def test_accumulation_does_not_change_the_gammas():
    one = gammas_after(6, 1)
    assert (one - gammas_after(6, 1, s=0)).abs().min() > 0.001  # the penalty has moved them
    for count in (2, 4):
        assert torch.allclose(gammas_after(6, count), one, atol=1e-6)


def different(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of images that have nothing in common, in float64."""
    g = torch.Generator().manual_seed(6)
    targets = torch.rand(count, 6, generator=g, dtype=torch.float64) * 0.5 + 0.2
    targets[:, 0], targets[:, 1] = torch.arange(count), 0
    images = torch.rand(count, 3, 32, 32, generator=g, dtype=torch.float64)
    return images * torch.arange(1, count + 1).view(-1, 1, 1, 1) / count, targets


def trained(steps: int, part=slice(None), rank: int = 0, **parts) -> torch.Tensor:
    """Every weight and statistic after some steps on the `different` images."""
    run = make_run(tiny(rank).double(), s=PRESS.get(parts.get("penalty"), 0.5), **parts)
    images, targets = different(4)
    targets = targets[part].clone()
    targets[:, 0] -= targets[0, 0].clone()
    for _ in range(steps):
        train_step(run, images[part], targets)
    return torch.cat([v.double().flatten() for v in run.model.state_dict().values()])


def test_two_processes_train_as_one_on_different_pictures(tmp_path, root):
    """torchrun over gloo, each process with half of the batch. The first then works for longer than exchanges
    between the processes may take, as it does while it evaluates.
    """
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        import importlib.util, sys, time, torch
        from datetime import timedelta
        sys.path.insert(0, {str(root)!r})
        path = {str(root / "tests" / "test_training_loop.py")!r}
        spec = importlib.util.spec_from_file_location("loop_test", path)
        t = importlib.util.module_from_spec(spec); spec.loader.exec_module(t)
        from darkslim.training import distributed
        torch.set_num_threads(1)
        torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=2))
        world = distributed.join(t.CPU)
        half = slice(2 * world.rank, 2 * world.rank + 2)
        found = {{p: t.trained(20, half, world.rank, penalty=p, world=world) for p in t.PENALTIES}}
        torch.save(found, sys.argv[1] + f"/{{world.rank}}.pt")
        time.sleep(0 if world.rank else 3)
        world.wait()
        world.close()
    """)
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--master_addr",
        "127.0.0.1",
        "--master_port",
        "0",
        "--rdzv_backend",
        "c10d",
        "--rdzv_endpoint",
        "127.0.0.1:0",
        str(script),
        str(tmp_path),
    ]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in (0, 1))
    free = trained(20)
    for name in PENALTIES:
        assert torch.equal(first[name], second[name])
        alone = trained(20, penalty=name)
        assert torch.allclose(first[name], alone, atol=1e-6, rtol=0), name
        assert name in ("l1", "gate", "group") or not torch.allclose(alone, free, atol=1e-3), "it presses"
    assert (first["gate"][-14:] == 0).any(), "and gates close"
    assert not torch.allclose(trained(20, accumulate=2), trained(20), atol=1e-3)  # halves of their own differ


def test_penalty_is_added_once_after_clipping():
    """The gamma's gradient after a step = the loss's gradient (clipped) + s sign(gamma), and the first
    velocity is that.
    """
    model = tiny()
    run = make_run(model, s=0.25, accumulate=4, clip=1e-3)
    gamma = run.constraints[0].gammas[0].parameter
    train_step(run, *copies(4))
    assert torch.allclose(gamma.grad, torch.full_like(gamma, 0.25), atol=2e-3)


def test_bf16_comes_close_to_float32():
    model, other = tiny(), tiny()
    exact, reduced = make_run(model), make_run(other)
    reduced.precision = Precision("bf16", CPU)
    a, _ = train_step(exact, *copies(4))
    b, _ = train_step(reduced, *copies(4))
    assert sum(b.values()) == pytest.approx(sum(a.values()), rel=0.03)
    assert all(p.dtype == torch.float32 for p in other.parameters())


def test_loss_that_is_no_number_names_the_batch_and_leaves_the_weights():
    run = make_run(tiny())
    before = [p.detach().clone() for p in run.model.parameters()]
    images, targets = copies(2)
    images[0, 0, 0, 0] = float("nan")
    with pytest.raises(TrainingError, match="epoch 3, batch 7: the loss is no number"):
        train_step(run, images, targets, where=lambda: "epoch 3, batch 7")
    assert all(torch.equal(a, b) for a, b in zip(before, run.model.parameters(), strict=True))


class Batches(list):
    start = 0

    def set_epoch(self, epoch, start=0):
        self.epoch, self.start = epoch, start

    def __iter__(self):
        return iter(list(super().__iter__())[self.start :])


class Disk:
    """A checkpointer that remembers instead of writing."""

    last = "memory"

    def __init__(self):
        self.kept, self.states = [], []

    def keep(self, model, extra):
        self.kept.append(extra)

    def save_state(self, model, state):
        self.states.append(({k: v.clone() for k, v in model.state_dict().items()}, torch_copy(state)))


def torch_copy(value):
    if isinstance(value, dict):
        return {k: torch_copy(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [torch_copy(v) for v in value]
    return value.clone() if torch.is_tensor(value) else value


class Score:
    precision = recall = 0.0

    def __init__(self, map50):
        self.map50 = map50


def test_best_and_last_are_kept():
    scores = iter([0.2, 0.5, 0.4])
    disk = Disk()
    run = make_run(tiny())
    train(run, Batches([copies(2)]), 3, checkpointer=disk, stop=False, evaluate=lambda m: Score(next(scores)))
    assert [k["map50"] for k in disk.kept] == [0.2, 0.5]
    assert [row["epoch"] for row in run.progress.history] == [1, 2, 3] and run.progress.step == 3
    disk = Disk()
    train(
        make_run(tiny()),
        Batches([copies(2)]),
        3,
        checkpointer=disk,
        stop=False,
        evaluate=lambda m: Score(0.1),
        keep="last",
        evaluation_interval=0,
        checkpoint_interval=2,
    )
    assert [k["epoch"] for k in disk.kept] == [2, 3] and disk.kept[-1]["map50"] == 0.1
    assert [state["progress"]["epoch"] for _, state in disk.states] == [1, 2, 3], (
        "before each evaluation that is due, and at the end"
    )


@pytest.mark.parametrize("keep", ["best", "last"])
def test_trained_weights_are_the_best_until_an_epoch_is_better(keep):
    """Epoch 0 is judged where something is kept for being the best; a run that goes on does not judge it
    again.
    """
    scores, judged, disk, run = iter([0.3, 0.2, 0.4, 0.1]), [], Disk(), make_run(tiny())
    begun = torch_copy(run.model.state_dict())

    def evaluate(model):
        judged.append(torch_copy(model.state_dict()))
        return Score(next(scores))

    parts = {"stop": False, "evaluate": evaluate, "keep": keep, "trained": True, "checkpointer": disk}
    data = Batches([copies(2)])
    train(run, data, 2, **parts)
    if keep == "last":
        assert len(judged) == 2 and "start_map50" not in run.progress.notes
        return
    assert all(torch.equal(a, b) for a, b in zip(begun.values(), judged[0].values(), strict=True))
    assert disk.kept == [{"epoch": 0, "map50": 0.3}, {"epoch": 2, "map50": 0.4}]
    assert run.progress.notes["start_map50"] == 0.3
    train(run, data, 3, **parts)
    assert len(judged) == 4 and disk.kept[-1]["epoch"] == 2


class StopAfter:
    name = "SIGINT"

    def __init__(self, steps):
        self.left = steps

    def __bool__(self):
        self.left -= 1
        return self.left <= 0


def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped():
    data = Batches([copies(2), copies(4), copies(3)])
    whole = make_run(tiny())
    train(whole, data, 2, checkpointer=Disk(), stop=False)
    disk, model = Disk(), tiny()
    with pytest.raises(Interrupted):
        train(make_run(model), data, 2, checkpointer=disk, stop=StopAfter(5))
    weights, state = disk.states[-1]
    assert tuple(state["progress"][k] for k in ("epoch", "batch", "step")) == (1, 2, 5)
    again = tiny(seed=9)
    again.load_state_dict(weights)
    run = make_run(again)
    run.load(state)
    train(run, data, 2, checkpointer=Disk(), stop=False)
    for a, b in zip(whole.model.state_dict().values(), run.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert run.progress.history[-1]["loss"] == pytest.approx(whole.progress.history[-1]["loss"])


def test_average_follows_the_weights():
    model = tiny()
    ema = EMA(model, 0.999)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
        start = [p.clone() for p in ema.model.parameters()]
        ema.update(model)
    # the first decay is (1 + 1) / (10 + 1)
    for a, b in zip(start, ema.model.parameters(), strict=True):
        assert torch.allclose(b, a + 9 / 11, atol=1e-6)
    again = EMA(tiny(3), 0.999)
    again.load(ema.state())
    assert again.updates == 1
    for _ in range(3000):
        again.updates += 1
    assert again.momentary_decay() == pytest.approx(0.9970, abs=1e-4)


def test_shares():
    assert World(0, 2).share(16, 4) == 8
    with pytest.raises(RequestError, match="do not divide"):
        World(0, 2).share(15)


def test_micro_batches_renumber_the_targets():
    images, targets = copies(5)
    parts = list(micro_batches(images, targets, 2))
    assert [len(p) for p, _ in parts] == [3, 2]
    assert parts[1][1][:, 0].tolist() == [0, 1]
