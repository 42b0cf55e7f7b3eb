"""Layers that are not trained, by flag and by the cfg."""

from __future__ import annotations

import pytest
import torch
from test_resume import bench, settings  # noqa: F401

from darkslim.base.errors import RequestError
from darkslim.network.cfg import parse_cfg
from darkslim.network.darknet import Darknet
from darkslim.pipelines import train
from darkslim.training.freezing import last_frozen
from darkslim.training.prunable import prunable_gammas


def weights(path: str) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["model"]


def moved(before: dict, after: dict) -> set[int]:
    """The layers of which a parameter is another."""
    still = ("running", "num_batches")
    return {
        int(k.split(".")[1])
        for k in before
        if not any(s in k for s in still) and not before[k].equal(after[k])
    }


@pytest.mark.parametrize("by", ["flag", "cfg"])
def test_frozen_layers_keep_their_parameters(bench, by):  # noqa: F811
    train(settings("start"))
    changes = {"pretrained_weights": "start.pth", "sr": True, "s": 1.0}
    if by == "flag":
        changes["freeze"] = 2
    else:
        text = open("net.cfg").read()
        second = text.index("[convolutional]", text.index("[convolutional]", 10) + 5)
        with open("net.cfg", "w") as file:
            file.write(text[:second] + text[second:].replace("activation", "stopbackward=1\nactivation", 1))
    train(settings("tuned", **changes))
    before, after = weights("start.pth"), weights("tuned.pth")
    assert moved(before, after) == {2, 4}, "the third convolution, and the one behind the dropout"
    name = "module_list.0.batch_norm_0.running_mean"
    assert not before[name].equal(after[name]), "statistics follow the pictures"
    free = {**changes, "freeze": 0} if by == "flag" else {}
    if free:
        train(settings("free", **free))
        assert moved(before, weights("free.pth")) == {0, 1, 2, 4}


def test_something_must_be_left_to_train(bench):  # noqa: F811
    model = Darknet("net.cfg")
    assert last_frozen(model, 0) == 0 and last_frozen(model, 3) == 3
    with pytest.raises(RequestError, match="--freeze: 5 frozen layers of 6"):
        last_frozen(model, 5)
    text = open("net.cfg").read()
    at = text.rindex("[yolo]")
    stops = Darknet(parse_cfg(text[:at] + text[at:].replace("mask=0", "stopbackward=1\nmask=0")))
    with pytest.raises(RequestError, match="6 frozen layers of 6"):
        last_frozen(stops, 0)
    assert last_frozen(Darknet(parse_cfg(text.replace("filters=8", "stopbackward=40\nfilters=8"))), 0) == 0


def test_frozen_gammas_are_not_pressed(bench):  # noqa: F811
    model = Darknet("net.cfg")
    assert [g.layer for g in prunable_gammas(model)] == [0, 1, 2]
    model.module_list[0].requires_grad_(False)
    assert [g.layer for g in prunable_gammas(model)] == [1, 2]
