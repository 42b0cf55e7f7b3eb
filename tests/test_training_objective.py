"""What a step is made of: named terms, constraints on steps that are taken, and the state of every part."""

from __future__ import annotations

import pytest
import torch
from test_training_loop import copies, make_run, tiny

from darkslim.base.errors import CheckpointError
from darkslim.training.ema import EMA
from darkslim.training.loop import Run, train_step
from darkslim.training.memory import freed_memory_kept
from darkslim.training.objective import Batch, Detection, Objective


class Weight:
    """A second term: the mean of what the heads say, times a factor; it sees the pictures, too."""

    names = ("weight",)

    def __call__(self, raw, batch: Batch):
        value = 0.1 * sum(r.mean() for r in raw) * len(batch.images) / batch.whole
        return value, {"weight": value.detach()}


def test_terms_add_up_and_keep_their_names():
    model = tiny()
    images, targets = copies(2)
    batch = Batch(images, targets, 2)
    raw = model.raw_heads(images)
    both = Objective(Detection(model.heads), Weight())
    total, parts = both(raw, batch)
    assert both.names == ("box", "obj", "cls", "weight") == tuple(parts)
    assert float(total) == pytest.approx(sum(float(p) for p in parts.values()), rel=1e-6) and batch.size == (
        32,
        32,
    )
    with pytest.raises(ValueError, match="parts of one name"):
        Objective(Detection(model.heads), Detection(model.heads))


def test_the_loop_reports_every_part():
    run = make_run(tiny())
    run.objective = Objective(Detection(run.model.heads), Weight())
    losses, _ = train_step(run, *copies(4))
    assert tuple(losses) == ("box", "obj", "cls", "weight") and losses["weight"] != 0


class Spy:
    """A constraint that counts its calls and moves one weight by a whole."""

    s, channels = 1.0, 1

    def __init__(self, name="spy"):
        self.name, self.calls, self.seen = name, [], 0

    def before_step(self, progress):
        self.calls.append(("before", progress.step))

    def after_step(self, progress, lr):
        self.calls.append(("after", progress.step))
        self.seen += 1

    def dose(self, rates, momentum):
        return None

    def state(self):
        return {"seen": self.seen}

    def load(self, state):
        self.seen = state["seen"]


def test_constraints_are_called_once_a_step_however_it_is_cut():
    for pieces in (1, 4):
        spies = Spy("one"), Spy("two")
        run = make_run(tiny(), accumulate=pieces)
        run.constraints = spies
        for _ in range(3):
            train_step(run, *copies(4))
        for spy in spies:
            assert spy.calls == [(when, step) for step in range(3) for when in ("before", "after")]
    with pytest.raises(ValueError, match="constraints of one name"):
        Run(**{**vars(make_run(tiny())), "constraints": [Spy(), Spy()]})


class Scaler:
    """Stands for torch's scaler on a GPU: gradients that overflowed make it skip the step."""

    def __init__(self):
        self.stepped = self.updated = 0

    def scale(self, loss):
        return loss

    def unscale_(self, optimizer):
        pass

    def step(self, optimizer):
        self.stepped += 1
        optimizer.step()

    def update(self):
        self.updated += 1


def test_nothing_acts_on_a_step_that_is_skipped():
    """float16 gradients that overflow: weights, penalty, constraint and average stay; the scale and the
    schedule go on.
    """
    run, spy = make_run(tiny(), s=0.5), Spy()
    run.constraints = [*run.constraints, spy]
    run.ema = EMA(run.model, 0.9)
    run.precision.kind, run.precision.scaler = "fp16", Scaler()
    before = {k: v.clone() for k, v in run.model.named_parameters()}
    first = next(run.model.parameters())
    hook = first.register_hook(lambda grad: torch.full_like(grad, float("inf")))
    train_step(run, *copies(4))
    assert all(torch.equal(v, before[k]) for k, v in run.model.named_parameters())
    assert not spy.calls and run.ema.updates == 0 and run.precision.scaler.stepped == 0
    assert run.precision.scaler.updated == 1 and run.progress.step == 1
    hook.remove()
    train_step(run, *copies(4))
    assert [when for when, _ in spy.calls] == ["before", "after"] and run.ema.updates == 1
    assert not torch.equal(first, before[next(iter(before))])


def full_state() -> tuple[Run, dict]:
    run = make_run(tiny(), s=0.5)
    run.constraints = [*run.constraints, Spy()]
    run.ema = EMA(run.model, 0.9)
    for _ in range(2):
        train_step(run, *copies(2))
    return run, run.state()


def fresh() -> Run:
    run = make_run(tiny(3), s=0.5)
    run.constraints = [*run.constraints, Spy()]
    run.ema = EMA(run.model, 0.9)
    return run


def test_every_part_has_its_own_state():
    _, state = full_state()
    run = fresh()
    run.load(state)
    assert run.progress.step == 2 and run.ema.updates == 2 and run.constraints[1].seen == 2
    assert run.progress.steps == 20 and run.progress.share == 0.1
    assert len(run.optimizer.state) == len(list(run.model.parameters()))


@pytest.mark.parametrize("part", ["progress", "optimizer", "ema", "constraints", "rng"])
@pytest.mark.parametrize("damage", ["missing", "none", "number", "empty"])
def test_a_damaged_state_is_refused_in_one_line(part, damage):
    _, state = full_state()
    if damage == "missing":
        del state[part]
    else:
        state[part] = {"none": None, "number": 7, "empty": {}}[damage]
    with pytest.raises(CheckpointError) as caught:
        fresh().load(state, "x.last.pth")
    assert str(caught.value).startswith("x.last.pth: its training state cannot be used") and "\n" not in str(
        caught.value
    )


def test_an_average_shares_no_hooks_with_its_model():
    model, calls = tiny(), []
    ema = EMA(model, 0.9)
    model.register_forward_hook(lambda *a: calls.append("model"))
    model.module_list[0].register_forward_hook(lambda *a: calls.append("layer"))
    ema.model(copies(1)[0])
    assert not calls and ema.model.graph is model.graph


def test_memory_is_kept_only_inside():
    with freed_memory_kept(wanted=False) as listened:
        assert not listened
    with freed_memory_kept() as listened:
        assert listened in (True, False)
