"""ListDataset: pictures and boxes of a list file as the network wants them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from ..base.errors import DatasetError
from .augment import Augment, AugmentParams, distort, flip_boxes, flip_image, jittered
from .check import Report, check_dataset
from .images import Rect, fit, place, place_boxes, read_image, to_array
from .labels import read_labels
from .listing import label_path, read_list
from .mosaic import Tile, draw_tiles, move_boxes, whole

MOSAIC = 1  # the stream of random numbers that a picture's mosaics have

Item = int | tuple[int, int] | tuple[int, int, tuple[int, int] | None]


@dataclass(frozen=True)
class Failure:
    """An error on its way from a worker: exceptions with several arguments do not survive the journey through
    torch.
    """

    parts: tuple[str, str, str, str]


class ListDataset(Dataset):
    """The pictures of a list file.

    An item is asked for by its index, or by (epoch, index) or (epoch, index, (height, width)), which is how
    the loader tells workers the epoch and the size. What is drawn for an item depends on (seed, epoch, index)
    alone, so that the number of workers and ranks changes nothing.

    Args:
        list_path: one image path a line; relative paths start from the current folder.
        classes: number of classes.
        img_size: (height, width) of the network input.
        augment: how pictures are changed; None for evaluation.
        letterbox: keep the aspect and fill with grey, instead of stretching.
        channels: 3 (RGB) or 1 (grey).
        resize: one of resize.RESIZES.
        difficult: a list whose labels hold the boxes that `ignored` gives, matched by the pictures' names.
        seed: of the augmentation.
        report: the outcome of `check_dataset`, if that was run already; otherwise it is run here.
        check: further arguments for `check_dataset`.

    Raises:
        DatasetError: as `check_dataset`.
    """

    def __init__(
        self,
        list_path,
        classes: int,
        img_size: tuple[int, int] = (416, 416),
        augment: Augment | None = None,
        letterbox: bool = False,
        channels: int = 3,
        resize: str = "antialias",
        difficult=None,
        seed: int = 0,
        report: Report | None = None,
        **check,
    ):
        if channels not in (1, 3):
            raise DatasetError(list_path, f"the network wants {channels} channels", "3 (RGB) or 1 (grey)")
        self.report = report or check_dataset(list_path, classes, **check)
        self.classes, self.channels, self.letterbox, self.seed = classes, channels, letterbox, seed
        self.resize = resize
        self.img_size, self.augment = (int(img_size[0]), int(img_size[1])), augment
        self.aside = (
            {Path(p).stem: label_path(p) for p in read_list(difficult)} if difficult is not None else None
        )
        self.images = np.array(self.report.images, dtype=object)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: Item) -> tuple[torch.Tensor, torch.Tensor]:
        """One picture and its boxes.

        Returns:
            uint8 (C, H, W), a view of memory in the order H, W, C (channels_last);
            float32 (n, 6): 0, class, centre x, centre y, width, height relative to the network input.

        Raises:
            DatasetError: the picture was changed or removed since the check.
        """
        epoch, index, size = _parse(item)
        pixels, rows = self.load(index, epoch, size or self.img_size)
        targets = np.zeros((len(rows), 6), np.float32)
        targets[:, 1:] = rows
        return torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(targets)

    def __getitems__(self, items: list[Item]) -> list:
        """What the loader asks for: items, or the `Failure` that an item met."""
        result = []
        for item in items:
            try:
                result.append(self[item])
            except DatasetError as e:
                result.append(Failure((e.place, e.found, e.expected, e.remedy)))
        return result

    def load(
        self, index: int, epoch: int = 0, size: tuple[int, int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As an item, in numpy: (H, W, C) uint8 and (n, 5) class, x, y, w, h."""
        size = size or self.img_size
        if self.augment is None:
            return self._piece(index, AugmentParams(), size, whole(size))
        params = self.augment.draw(np.random.default_rng([self.seed, epoch, index]))
        if self.augment.has_mosaics(epoch):
            luck = np.random.default_rng([self.seed, epoch, index, MOSAIC])
            if luck.random() < self.augment.mosaic:
                return self._mosaic(index, params, size, luck)
        pixels, rows = self._piece(index, params, size, whole(size))
        return pixels, self.augment.clip_boxes(rows)

    def _mosaic(
        self, index: int, params: AugmentParams, size: tuple[int, int], luck: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Four pictures in one, picture `index` in a random corner."""
        others = luck.integers(len(self), size=3)
        pieces = [(index, params), *((int(i), self.augment.draw(luck)) for i in others)]
        tiles, (height, width) = draw_tiles(luck, size), size
        canvas, found = np.empty((height, width, self.channels), np.uint8), []
        for tile, corner in zip(tiles, luck.permutation(4), strict=True):
            pixels, rows = self._piece(*pieces[corner], size, tile)
            canvas[tile.top : tile.bottom, tile.left : tile.right] = pixels
            sides = tile.left / width, tile.top / height, tile.right / width, tile.bottom / height
            found.append(self.augment.clip_boxes(move_boxes(rows, tile, size), *sides))
        return canvas, np.concatenate(found)

    def _piece(
        self, index: int, params: AugmentParams, size: tuple[int, int], tile: Tile
    ) -> tuple[np.ndarray, np.ndarray]:
        """What a tile shows of a picture, (h, w, C), and the boxes of the whole picture, relative to the
        network input.
        """
        stored = tuple(int(v) for v in self.report.sizes[index])
        rect = jittered(fit(stored, size, self.letterbox), stored, params.sides)
        needed = size[1] * stored[0] / (rect[2] - rect[0]), size[0] * stored[1] / (rect[3] - rect[1])
        enough = needed if self.resize == "antialias" else None  # the others look at single pixels
        image, now = read_image(self.images[index], self.channels, enough, self.report.max_pixels)
        if now != stored:
            raise DatasetError(
                self.images[index],
                f"is {now[0]} x {now[1]} pixels, but was {stored[0]} x {stored[1]} when checked",
                remedy="start again, so that the data set is checked again",
            )
        shown = place(image, seen_through(rect, size, tile, params), tile.size, stored, self.resize)
        pixels = to_array(flip_image(distort(shown, params), params))
        return pixels, flip_boxes(place_boxes(self.report.labels(index), rect, stored), params)

    def ignored(self) -> list[np.ndarray] | None:
        """(k, 5) class, x, y, w, h, relative to the network input, of every picture: the objects that count
        neither as found nor as missed. None where the data name none.

        Raises:
            DatasetError: a label file that cannot be used.
        """
        if self.aside is None:
            return None
        result = []
        for index, image in enumerate(self.images):
            path, rows = self.aside.get(Path(image).stem), np.zeros((0, 5), np.float32)
            if path is not None and Path(path).exists():
                labels = read_labels(path, self.classes)
                for line, text in labels.problems[:1]:
                    raise DatasetError(f"{path}:{line}", text)
                rows = labels.rows
            stored = tuple(int(v) for v in self.report.sizes[index])
            result.append(place_boxes(rows, self.rect(index), stored))
        return result

    def rect(self, index: int, size: tuple[int, int] | None = None) -> tuple[float, float, float, float]:
        """The rectangle of picture `index` that the network sees without augmentation, for
        `images.unplace_boxes`.
        """
        return fit(tuple(int(v) for v in self.report.sizes[index]), size or self.img_size, self.letterbox)


def _parse(item: Item) -> tuple[int, int, tuple[int, int] | None]:
    if isinstance(item, (int, np.integer)):
        return 0, int(item), None
    return (*item, None) if len(item) == 2 else item


def seen_through(rect: Rect, size: tuple[int, int], tile: Tile, params: AugmentParams) -> Rect:
    """The part of the rectangle `rect`, which fills the input, that the window of a tile shows.

    Args:
        params: the picture is flipped afterwards, so the window is looked for on the other side.
    """
    (height, width), (high, wide) = size, tile.size
    if (high, wide) == size:
        return rect
    x = width - tile.x - wide if params.flip else tile.x
    y = height - tile.y - high if params.vflip else tile.y
    across, down = (rect[2] - rect[0]) / width, (rect[3] - rect[1]) / height
    left, top = rect[0] + x * across, rect[1] + y * down
    return left, top, left + wide * across, top + high * down


def collate(batch: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Items -> one batch.

    Returns:
        uint8 (B, C, H, W) in channels_last memory; float32 (N, 6) with the picture's place in the batch in
        column 0.
    """
    images = torch.stack([image.permute(1, 2, 0) for image, _ in batch]).permute(0, 3, 1, 2)
    targets = torch.cat([targets for _, targets in batch])
    targets[:, 0] = torch.repeat_interleave(
        torch.arange(len(batch)), torch.tensor([len(t) for _, t in batch])
    )
    return images, targets


def to_input(images: torch.Tensor, device="cpu", dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """uint8 pictures -> network input in 0..1; the channels_last memory stays."""
    return images.to(device, non_blocking=True).to(dtype).div_(255)
