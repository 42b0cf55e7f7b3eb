"""What the commands advise: right for the case at hand, and never what was done already."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
import torch
from commands import ROOT, TINY, make_bench, perform, tiny_model, write

from darkslim.network.cfg import parse_cfg, read_cfg
from darkslim.network.channels import Channels
from darkslim.network.darknet import Darknet
from darkslim.network.graph import Graph
from darkslim.network.weights import save_weights
from darkslim.pruning import advice
from darkslim.pruning.plan import plan
from darkslim.training import not_followed


@pytest.fixture
def bench(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    return make_bench(tmp_path, capfd)


def model_of(gammas: np.ndarray) -> Darknet:
    text = TINY.replace("filters=6", f"filters={len(gammas)}")
    model = tiny_model(text)
    bn = next(iter(model.batch_norms().values()))
    bn.weight.data.copy_(torch.from_numpy(gammas))
    return model


def test_never_weakly_and_well_sparsified():
    rng = np.random.default_rng(0)
    never = rng.uniform(0.7, 1.3, 400)
    weak = np.concatenate([rng.uniform(0.2, 1.3, 390), rng.uniform(0, 0.01, 10)])
    well = np.concatenate([rng.uniform(0.2, 1.3, 150), rng.uniform(0, 0.001, 250)])
    said = [advice.warnings_for(plan(model_of(g), 0.8)) for g in (never, weak, well)]
    assert "never trained for sparsity" in said[0][0] and "run train.py with -sr first" in said[0][0]
    assert "too weak for this cut" in said[1][0] and "-sr first" not in said[1][0]
    assert "larger --s" in said[1][0]
    assert "goes deeper" in said[2][0] and not advice.warnings_for(plan(model_of(well), 0.5))


def test_layers_that_let_nothing_through_are_named():
    decision = plan(model_of(np.linspace(0.1, 1, 400)), 0.5)

    def said(*widths: tuple[int, int], threshold=0.3):
        keep = {layer: np.arange(had) < left for layer, (left, had) in enumerate(widths)}
        changed = dataclasses.replace(decision, keep=keep, threshold=threshold)
        return [text for text in advice.warnings_for(changed, measured=True) if "channels that stay" in text]

    assert not said((8, 512), (2, 32), (5, 8), (1, 16))
    (text,) = said((30, 64), (6, 512), (3, 128))
    assert "6 of 512 (layer 1), 3 of 128 (layer 2); hardly" in text and "--score repair" in text
    (text,) = said(*[(1, 64)] * 5)
    assert "1 of 64 (layer 2) and 2 more layers; hardly" in text
    assert not said((6, 512), threshold=0.0), "closed gates let nothing through already"


RESIDUAL = (
    """[net]
width=32
height=32
channels=3

"""
    + "".join(
        f"[convolutional]\nbatch_normalize=1\nfilters={f}\nsize=1\nstride=1\nactivation=leaky\n\n{more}"
        for f, more in ((8, ""), (4, ""), (8, "[shortcut]\nfrom=-3\nactivation=linear\n\n"))
    )
    + TINY[TINY.rindex("[convolutional]") :]
)


def test_blocks_whose_gammas_say_that_they_matter(bench):
    write(bench.folder / "net.cfg", RESIDUAL)
    for gamma, warned in ((1.0, True), (0.01, False)):
        model = tiny_model(RESIDUAL)
        for layer, bn in model.batch_norms().items():
            bn.weight.data.fill_(gamma if layer == 2 else 1.0)
        save_weights(model, "net.weights")
        code, lines = bench.run("test_prune", "--shortcuts", 1, "--percent", 0)
        assert (
            code == 0
            and bool([x for x in lines if "1 of the residual blocks removed still matter" in x]) is warned
        )


def test_normal_on_a_network_of_depthwise_convolutions():
    channels = Channels(Graph(read_cfg(ROOT / "config/enet-coco.cfg")))
    assert "--strategy slim may" in (advice.of_strategy(channels, "normal") or "--strategy slim may")
    depthwise = "".join(
        "[convolutional]\nbatch_normalize=1\nfilters=16\nsize=3\npad=1\ngroups=16\nactivation=leaky\n\n"
        "[convolutional]\nbatch_normalize=1\nfilters=16\nsize=1\nactivation=leaky\n\n"
        for _ in range(6)
    )
    text = (
        RESIDUAL[: RESIDUAL.index("[conv")]
        + depthwise.replace("groups=16", "groups=1", 1)
        + TINY[TINY.rindex("[convolutional]") :]
    )
    channels = Channels(Graph(parse_cfg(text, "net.cfg")))
    normal, slim = (
        sum(int(k.sum()) for k in channels.prunable_channels(s).values()) for s in ("normal", "slim")
    )
    said = advice.of_strategy(channels, "normal")
    assert (said is not None) == (normal < slim / 4)
    assert advice.of_strategy(channels, "slim") is None
    plain = Channels(Graph(parse_cfg(TINY, "net.cfg")))
    assert advice.of_strategy(plain, "normal") is None


def test_the_next_command(bench):
    flags = ["-sr", "--s", 1, "--strategy", "slim"]
    said = perform(bench.capfd, "train", bench.words("train", flags))[1].out
    line = next(x for x in said.splitlines() if x.startswith("cut: "))
    expected = (
        "python test_prune.py --model_def net.cfg --model checkpoints/yolov3_ckpt.pth --data_config two.data"
    )
    assert re.fullmatch(re.escape(f"cut:        {expected}") + r"( --percent 0\.\d)? --strategy slim", line)
    bench.always["test_prune"] = line.split()[3:] + ["--no_eval", "--percent", "0.3"]
    said = perform(bench.capfd, "test_prune", bench.words("test_prune", []))[1].out
    line = next(x for x in said.splitlines() if x.startswith("finetune: "))
    bench.always["train"] = [
        *line.split()[3:],
        "--data_config",
        "two.data",
        "--epochs",
        "1",
        "--batch_size",
        "2",
    ]
    assert bench.run("train")[0] == 0
    teacher = next(x for x in said.splitlines() if "as its teacher: " in x).split("as its teacher: ")[1]
    code, told = perform(bench.capfd, "train", [*bench.words("train", []), *teacher.split()])
    assert code == 0 and "teacher" in told.out + told.err


def test_region_heads_are_not_sent_to_train(bench):
    text = TINY[: TINY.rindex("[yolo]")].replace("filters=7", "filters=35") + (
        "[region]\nanchors=1,1,2,2,3,3,4,4,5,5\nnum=5\nclasses=2\ncoords=4\nsoftmax=1\n"
    )
    write(bench.folder / "net.cfg", text)
    save_weights(tiny_model(text), "net.weights")
    said = perform(bench.capfd, "test_prune", bench.words("test_prune", ["--percent", "0.3"]))[1].out
    assert "finetune:   in Darknet: [region] heads cannot be trained here" in said and "train.py" not in said


@pytest.mark.parametrize(
    "s, said", [(1e-6, "cannot press gammas to zero; use --s"), (1e5, "those that matter as well; use --s")]
)
def test_doses_that_are_too_small_or_far_too_large(bench, s, said):
    code, lines = bench.run("train", "-sr", "--s", s)
    assert code == 0 or "no number" in lines[-1]
    advised = next(x for x in lines if said in x).split("use --s ")[1].split()[0]
    assert not [x for x in bench.run("train", "-sr", "--s", advised)[1] if "dose" in x]


def test_another_size_than_trained(bench):
    assert bench.run("train", "--checkpoint", "a.pth", "--img_size", 64)[0] == 0
    _, lines = bench.run("test", "--weights_path", "a.pth")
    assert [x for x in lines if "a.pth: trained at 64x64 and measured at 32x32; --img_size 64" in x]
    assert bench.run("test", "--weights_path", "a.pth", "--img_size", 64)[1] == []


def test_keys_that_training_does_not_follow(bench):
    text = TINY.replace("channels=3", "channels=3\nmosaic=1\ncutmix=1\nmixup=0\nadam=1\npolicy=sgdr")
    text = text.replace("classes=2", "classes=2\nrandom=1\nnms_kind=diounms")
    text = text.replace("activation=linear", "activation=linear\nstopbackward=9")
    write(bench.folder / "net.cfg", text)
    said = perform(bench.capfd, "train", bench.words("train", []))[1].out
    lines = [x for x in said.splitlines() if "does not follow" in x]
    assert len(lines) == 1
    for words in (
        "adam=1",
        "cutmix=1",
        "policy=sgdr (here: --schedule)",
        "stopbackward=9 (here: --freeze)",
        "nms_kind=diounms",
    ):
        assert words in lines[0]
    assert "random=1 (here: --multiscale_training)" in lines[0] and "mixup" not in lines[0]
    assert "mosaic" not in lines[0]  # --mosaic follows it
    assert not not_followed.sentences(parse_cfg(TINY, "net.cfg"))


def test_the_docs_name_every_key():
    page = (ROOT / "docs/training.md").read_text()
    table = page[page.index("Not followed") :]
    for key in {**not_followed.NET, **not_followed.LAYER}:
        assert f"`{key}`" in table or f" {key}`" in table or f"`{key} " in table, key


def test_no_detector_is_said_first(bench):
    text = TINY[: TINY.rindex("[yolo]")] + "[avgpool]\n\n[softmax]\ngroups=1\n\n[cost]\ntype=sse\n"
    write(bench.folder / "net.cfg", text)
    for name in ("train", "test", "test_prune"):
        bench.refused(name, "net.cfg", "has no detection layer: it is no detector")


def test_missing_labels_are_named(bench):
    (bench.folder / "labels/1.txt").unlink()
    _, lines = bench.run("test")
    assert (
        "1 images have no label file" in lines[0]
        and "labels/1.txt" in lines[0]
        and "images/1.png" in lines[0]
    )
