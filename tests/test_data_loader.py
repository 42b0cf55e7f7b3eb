"""ListDataset and its loader: the same pictures for any number of workers and ranks, errors in bounded
time.
"""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest
import torch
from PIL import Image

from darkslim.base.errors import DatasetError, RequestError, TrainingError
from darkslim.data.augment import Augment
from darkslim.data.balance import repeat_factors, repeated
from darkslim.data.dataset import ListDataset, collate, to_input
from darkslim.data.loader import EpochBatches, MultiScale, make_loader


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("images", "labels"):
        os.mkdir(name)
    rng = np.random.default_rng(0)
    for i in range(10):
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).save(f"images/{i}.png")
        rows = [f"{i % 3} {rng.uniform(0.3, 0.7)} {rng.uniform(0.3, 0.7)} .2 .3\n" for _ in range(i % 4)]
        (tmp_path / f"labels/{i}.txt").write_text("".join(rows))
    (tmp_path / "list.txt").write_text("".join(f"images/{i}.png\n" for i in range(10)))
    return tmp_path


def dataset(**kwargs) -> ListDataset:
    return ListDataset("list.txt", 3, (32, 32), **kwargs)


def everything(loader, epoch=0):
    loader.set_epoch(epoch)
    return [(images.clone(), targets.clone()) for images, targets in loader]


def same(a, b) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(a, b, strict=True)
    )


def test_an_item_is_the_resized_picture_and_its_boxes(folder):
    image, targets = dataset()[3]
    expected = Image.open("images/3.png").resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), np.asarray(expected))
    rows = np.loadtxt("labels/3.txt")
    np.testing.assert_allclose(targets.numpy(), np.concatenate([np.zeros((3, 1)), rows], 1), rtol=1e-6)
    assert image.dtype == torch.uint8 and targets.dtype == torch.float32


def test_letterboxed_boxes(folder):
    # 64 x 48 on 32 x 32: 32 x 24 pixels with 4 above and below
    image, targets = dataset(letterbox=True)[1]
    x, y, w, h = np.loadtxt("labels/1.txt")[1:]
    np.testing.assert_allclose(targets[0].numpy(), [0, 1, x, (y * 24 + 4) / 32, w, h * 24 / 32], rtol=1e-5)
    assert (image[:, :4] == 128).all() and (image[:, 28:] == 128).all()


def test_grey_networks_and_other_channels(folder):
    image, _ = dataset(channels=1, augment=Augment())[0]
    assert image.shape == (1, 32, 32)
    assert next(iter(make_loader(dataset(channels=1), 4)))[0].shape == (4, 1, 32, 32)
    with pytest.raises(DatasetError, match="the network wants 4 channels; 3 .RGB. or 1"):
        dataset(channels=4)


def test_augmented_boxes_stay_on_what_they_mark(folder):
    pixels = np.full((200, 300), 30, np.uint8)
    pixels[60:130, 90:200] = 220
    Image.fromarray(pixels).convert("RGB").save("images/0.png")
    (folder / "labels/0.txt").write_text(f"0 {145 / 300} {95 / 200} {110 / 300} {70 / 200}\n")
    data = ListDataset(
        "list.txt", 3, (208, 208), Augment(hue=0, saturation=1, exposure=1, jitter=0.3, flip=1, vflip=0.5)
    )
    for epoch in range(40):
        image, targets = data[(epoch, 0)]
        ys, xs = np.nonzero(image[0].numpy() > 175)
        x, y, w, h = targets[0, 2:].numpy() * 208
        np.testing.assert_allclose(
            [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1],
            [x - w / 2, y - h / 2, x + w / 2, y + h / 2],
            atol=1.6,
        )


def test_collate_numbers_the_pictures(folder):
    data = dataset()
    images, targets = collate([data[i] for i in (1, 0, 3)])
    assert images.shape == (3, 3, 32, 32) and images.is_contiguous(memory_format=torch.channels_last)
    assert targets[:, 0].tolist() == [0, 2, 2, 2]
    for i, j in enumerate((1, 0, 3)):
        assert torch.equal(images[i], data[j][0])
    ready = to_input(images)
    assert ready.dtype == torch.float32 and torch.equal(ready, images.float() / 255)
    assert ready.is_contiguous(memory_format=torch.channels_last)
    assert collate([data[0]])[1].shape == (0, 6)


def test_workers_do_not_change_anything(folder):
    data = dataset(augment=Augment(), seed=5)
    runs = []
    for workers in (0, 1, 2):
        loader = make_loader(data, 3, shuffle=True, workers=workers, seed=7)
        runs.append([everything(loader, epoch) for epoch in (0, 1, 0)])
    for run in runs:
        assert (
            same(run[0], runs[0][0])
            and same(run[1], runs[0][1])
            and same(run[0], run[2])
            and not same(run[0], run[1])
        )


def test_augmentation_differs_by_epoch_picture_and_seed(folder):
    data = dataset(augment=Augment())
    first = data[(0, 1)][0]
    assert torch.equal(first, data[1][0]) and torch.equal(first, data[(0, 1)][0])
    assert not torch.equal(first, data[(1, 1)][0])
    assert not torch.equal(first, dataset(augment=Augment(), seed=1)[(0, 1)][0])


@pytest.mark.parametrize(
    "count, world, batch, drop_last",
    [(10, 1, 4, False), (10, 3, 2, False), (10, 3, 3, True), (2, 4, 1, False)],
)
def test_ranks_share_an_epoch(count, world, batch, drop_last):
    ranks = [EpochBatches(count, batch, True, 3, drop_last, rank, world) for rank in range(world)]
    for sampler in ranks:
        sampler.set_epoch(2)
    batches = [list(sampler) for sampler in ranks]
    assert len({len(b) for b in batches}) == 1 and len(batches[0]) == len(ranks[0])
    seen = [index for rank in batches for b in rank for epoch, index, size in b]
    assert all(epoch == 2 and size is None for rank in batches for b in rank for epoch, _, size in b)
    if not drop_last:
        assert set(seen) == set(range(count)) and len(seen) == world * -(-count // world)
    else:
        assert len(set(seen)) == len(seen) and all(len(b) == batch for rank in batches for b in rank)


def test_order_without_shuffling_is_the_lists():
    assert [i for b in EpochBatches(5, 2, False) for _, i, _ in b] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(count=5, batch_size=0), "--batch_size: 0; at least 1"),
        (dict(count=5, batch_size=6, drop_last=True), "6 is more than the 5 images"),
        (dict(count=5, batch_size=3, drop_last=True, world=2, rank=2), "2 of 2 processes"),
    ],
)
def test_requests_that_cannot_be(arguments, message):
    with pytest.raises(RequestError, match=message):
        EpochBatches(**arguments)


def test_multiscale_is_darknets_and_the_same_on_all_ranks(folder):
    sizes = [MultiScale((416, 608)).at(0, b) for b in range(2000)]
    assert all(len(set(sizes[i : i + 10])) == 1 for i in range(0, 2000, 10))
    heights, widths = zip(*sizes, strict=True)
    assert (
        min(heights) == round(416 / 1.4 / 32 + 1) * 32 == 320
        and max(heights) == round(416 * 1.4 / 32 + 1) * 32 == 608
    )
    assert max(widths) in (864, 896) and all(w % 32 == 0 for w in widths)
    batches = [
        list(EpochBatches(40, 1, seed=2, rank=rank, world=2, multiscale=MultiScale((32, 32), step=8)))
        for rank in (0, 1)
    ]
    assert [b[0][2] for b in batches[0]] == [b[0][2] for b in batches[1]]
    loader = make_loader(
        dataset(augment=Augment()),
        2,
        shuffle=True,
        workers=1,
        multiscale=MultiScale((32, 64), every=1, step=8),
    )
    shapes = [tuple(images.shape[2:]) for images, _ in loader]
    assert len(set(shapes)) > 1 and shapes == [
        MultiScale((32, 64), every=1, step=8).at(0, b) for b in range(5)
    ]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_changed_since_the_check(folder, workers):
    loader = make_loader(dataset(), 5, workers=workers)
    os.remove("images/7.png")
    with pytest.raises(DatasetError, match="images/7.png: no such image; check the path"):
        list(loader)
    Image.new("RGB", (9, 9)).save("images/7.png")
    with pytest.raises(DatasetError, match="images/7.png: is 9 x 9 pixels, but was 64 x 48 when checked"):
        list(loader)


class Slow(ListDataset):
    """Pictures that take long."""

    def __getitem__(self, item):
        time.sleep(2)
        return super().__getitem__(item)


def test_89_a_killed_worker_is_an_error_in_bounded_time(folder):
    loader = make_loader(Slow("list.txt", 3, (32, 32)), 5, workers=1)
    batches = iter(loader)
    start = time.monotonic()
    previous = signal.signal(
        signal.SIGALRM, lambda *_: [os.kill(w.pid, signal.SIGKILL) for w in loader._iterator._workers]
    )
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        with pytest.raises(TrainingError, match="a worker process died"):
            next(batches)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert time.monotonic() - start < 20


def test_a_worker_that_hangs_is_given_up(folder):
    with pytest.raises(TrainingError, match="no batch came within 1 seconds"):
        list(make_loader(Slow("list.txt", 3, (32, 32)), 1, workers=1, timeout=1))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_can_begin_at_a_later_batch(folder, workers):
    with make_loader(dataset(), 3, shuffle=True, workers=workers, seed=4) as loader:
        whole = everything(loader, 2)
        loader.set_epoch(2, 2)
        assert same([(images.clone(), targets.clone()) for images, targets in loader], whole[2:])
        assert len(loader) == len(whole) == 4, "its length is that of the epoch"
        loader.set_epoch(2, 4)
        assert not list(loader)
        assert same(everything(loader, 2), whole)


def test_a_closed_loader_leaves_no_process_and_can_be_used_again(folder):
    loader = make_loader(dataset(), 3, workers=2)
    first = everything(loader)
    workers = list(loader._iterator._workers)
    assert all(worker.is_alive() for worker in workers)
    loader.close()
    assert not any(worker.is_alive() for worker in workers)
    loader.close()
    assert same(everything(loader), first)
    loader.close()


def test_pictures_of_rare_classes_come_more_often():
    offsets = np.arange(101)  # a box a picture: 96 of class 0, 4 of class 1
    classes = np.array([0] * 96 + [1] * 4, np.float32)
    factors = repeat_factors(classes, offsets, 0.16)
    np.testing.assert_allclose(factors, [1.0] * 96 + [2.0] * 4)
    assert (repeat_factors(classes, offsets, 0.04) == 1).all()
    empty = repeat_factors(np.array([1.0]), np.array([0, 0, 1, 1]), 1.0)  # pictures without boxes stay
    np.testing.assert_allclose(empty, [1, np.sqrt(3), 1])
    seen = np.zeros(100)
    for epoch in range(400):
        order = EpochBatches(100, 10, seed=1, factors=factors)
        order.set_epoch(epoch)
        assert len(order.order()) == 100
        seen += np.bincount(order.order(), minlength=100)
    assert abs(seen[96:].mean() / seen[:96].mean() - 2) < 0.1
    fraction = [repeated(np.array([1.5, 1.0]), np.random.default_rng(i)) for i in range(400)]
    assert 0.55 < np.mean([list(f).count(0) / 2 for f in fraction]) < 0.65  # (1/2 + 2/3) / 2 of the places
