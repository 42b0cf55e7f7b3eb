"""One picture: opened safely, converted by fixed rules, placed on the network input.

The rules:
- Pixels and boxes are those of the *stored* picture. An EXIF orientation is ignored, as Darknet ignores it;
  the check of a data set says how many pictures have one.
- RGBA, grey, palette, CMYK and the like become RGB (or grey, for a network with one channel); transparency
  is dropped.
- 16-bit grey becomes 8 bits by v * 255 / 65535. 32-bit integers and floats have no known range and are
  an error.
- Animations and multi-page files: the first picture.
- A picture is stretched to the network input, or letterboxed on grey where the cfg says `letter_box=1`, with
  antialiasing unless the arithmetic of another program is asked for (resize.py).
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from ..base import files
from ..base.errors import DatasetError
from .limits import MAX_PIXELS
from .resize import bilinear

# only these readers are let loose on files of unknown origin; naming them also loads those that Pillow loads
# late
FORMATS = tuple(
    reader.format
    for reader in (
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        BmpImagePlugin.BmpImageFile,
        GifImagePlugin.GifImageFile,
        TiffImagePlugin.TiffImageFile,
        WebPImagePlugin.WebPImageFile,
        PpmImagePlugin.PpmImageFile,
    )
)
GREY = 128  # Darknet fills with 0.5
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    OverflowError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
ORIENTATION = 0x0112  # the EXIF tag
Rect = tuple[float, float, float, float]


def open_image(path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Opens a picture and reads no more than its header.

    Args:
        max_pixels: what it may have.

    Raises:
        DatasetError: missing, not a regular file, empty, no picture, too many pixels.
    """
    if files.check_regular(path, "image", DatasetError).st_size == 0:
        raise DatasetError(path, "is an empty file", "an image")
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels  # Pillow's own guard would come before ours
    try:
        image = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError:
        raise _too_large(path, max_pixels) from None
    except Image.UnidentifiedImageError:
        with open(path, "rb") as f:
            kind = files.sniff(f.read(512))
        found = kind if kind and kind != "an image" else "no image that can be read"
        raise DatasetError(path, f"is {found}", f"one of {', '.join(FORMATS)}") from None
    except BROKEN as e:
        raise DatasetError(path, f"this image cannot be read ({_reason(e)})") from None
    if image.width * image.height > max_pixels:
        image.close()
        raise _too_large(path, max_pixels)
    return image


def _too_large(path, max_pixels: int) -> DatasetError:
    remedy = "make it smaller, or allow more with --max_pixels"
    return DatasetError(path, f"has more than {max_pixels:,} pixels", remedy=remedy)


def _reason(e: BaseException) -> str:
    return str(e).strip()[:100] or type(e).__name__


def read_image(
    path, channels: int = 3, at_least: tuple[float, float] | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[Image.Image, tuple[int, int]]:
    """A decoded picture of mode RGB (3 channels) or L (1 channel).

    Args:
        at_least: (width, height) that is enough; a large JPEG is then decoded at 1/2, 1/4 or 1/8, which is
            much faster.

    Returns:
        The picture, maybe smaller than stored, and the (width, height) that is stored.

    Raises:
        DatasetError: as `open_image`, and truncated or broken data, 32-bit pixels.
    """
    with open_image(path, max_pixels) as image:
        size = image.size
        if at_least is not None:
            image.draft("RGB" if channels == 3 else "L", (int(at_least[0]) + 1, int(at_least[1]) + 1))
        try:
            image.load()
            return _convert(image, path, "RGB" if channels == 3 else "L"), size
        except BROKEN as e:
            raise DatasetError(
                path, f"this image is broken ({_reason(e)})", remedy="replace it or take it off the list"
            ) from None


def check_image(path, max_pixels: int = MAX_PIXELS) -> tuple[int, int, int]:
    """Decodes the whole picture, at the smallest scale that its format allows.

    Returns:
        width, height, EXIF orientation (1: upright or unknown).
    """
    with open_image(path, max_pixels) as image:
        try:
            orientation = image.getexif().get(ORIENTATION, 1)
        except BROKEN:
            orientation = 1
    _, (width, height) = read_image(path, 3, (1, 1), max_pixels)
    return width, height, orientation if orientation in range(2, 9) else 1


def _convert(image: Image.Image, path, mode: str) -> Image.Image:
    if image.mode.startswith("I;16") or (
        image.mode == "I" and image.format in ("PNG", "PPM")
    ):  # Pillow opens 16-bit files as either
        pixels = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((pixels * 255 + 32767) // 65535).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise DatasetError(path, "has 32-bit pixels, whose range is not known", "8 or 16 bits", "convert it")
    if "transparency" in image.info and image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    return image if image.mode == mode else image.convert(mode)


def fit(image_size: tuple[int, int], size: tuple[int, int], letterbox: bool) -> Rect:
    """The part of a picture that fills the network input, without augmentation.

    Args:
        image_size: (width, height) of the picture.
        size: (height, width) of the network input.

    Returns:
        left, top, right, bottom in pixels of the picture. The whole picture when it is stretched; more than
        the picture when it is letterboxed, with Darknet's whole-pixel sizes and offsets (letterbox_image in
        its image.c).
    """
    (w, h), (net_h, net_w) = image_size, size
    if not letterbox:
        return 0.0, 0.0, float(w), float(h)
    if net_w * h < net_h * w:
        new_w, new_h = net_w, max(1, h * net_w // w)
    else:
        new_w, new_h = max(1, w * net_h // h), net_h
    left, top = -((net_w - new_w) // 2) * w / new_w, -((net_h - new_h) // 2) * h / new_h
    return left, top, left + net_w * w / new_w, top + net_h * h / new_h


def place(
    image: Image.Image,
    rect: Rect,
    size: tuple[int, int],
    stored: tuple[int, int] | None = None,
    resize: str = "antialias",
) -> Image.Image:
    """The part `rect` of a picture, resized to the network input; what lies outside of the picture is grey.

    Bilinear with half-pixel centres, over an area when shrinking, unless `resize` names another way. One
    resize; a paste only when there is something to fill.

    Args:
        rect: left, top, right, bottom in pixels of the stored picture; may reach beyond it.
        size: (height, width) of the result.
        stored: (width, height) that `rect` refers to, when `image` was decoded smaller.
        resize: one of resize.RESIZES.
    """
    (net_h, net_w), (w, h) = size, stored or image.size
    left, top, right, bottom = rect
    if left >= w or top >= h or right <= 0 or bottom <= 0:  # a corner of a mosaic may show nothing of it
        return _grey(image.mode, net_w, net_h)
    sx, sy = net_w / (right - left), net_h / (bottom - top)
    x0, y0 = max(0, round(-left * sx)), max(0, round(-top * sy))
    x1, y1 = min(net_w, round((w - left) * sx)), min(net_h, round((h - top) * sy))
    x1, y1 = max(x1, min(x0 + 1, net_w)), max(y1, min(y0 + 1, net_h))
    x0, y0 = min(x0, x1 - 1), min(y0, y1 - 1)
    kx, ky = image.width / w, image.height / h
    box = (
        max(0.0, (left + x0 / sx) * kx),
        max(0.0, (top + y0 / sy) * ky),
        min(float(image.width), (left + x1 / sx) * kx),
        min(float(image.height), (top + y1 / sy) * ky),
    )
    if resize == "antialias":
        inner = image.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    else:
        pixels = bilinear(to_array(image), box, (y1 - y0, x1 - x0), resize)
        inner = Image.fromarray(pixels if image.mode == "RGB" else pixels[:, :, 0])
    if inner.size == (net_w, net_h):
        return inner
    canvas = _grey(image.mode, net_w, net_h)
    canvas.paste(inner, (x0, y0))
    return canvas


def _grey(mode: str, width: int, height: int) -> Image.Image:
    return Image.new(mode, (width, height), GREY if mode == "L" else (GREY,) * 3)


def place_boxes(rows: np.ndarray, rect: Rect, image_size: tuple[int, int]) -> np.ndarray:
    """Boxes relative to the picture -> relative to the network input, not clipped.

    Args:
        rows: (n, 5) class, x, y, w, h relative to the picture.
        image_size: (width, height) of the picture.
    """
    (w, h), (left, top, right, bottom) = image_size, rect
    result = rows.copy()
    result[:, 1] = (rows[:, 1] * w - left) / (right - left)
    result[:, 2] = (rows[:, 2] * h - top) / (bottom - top)
    result[:, 3] = rows[:, 3] * w / (right - left)
    result[:, 4] = rows[:, 4] * h / (bottom - top)
    return result


def unplace_boxes(boxes: np.ndarray, rect: Rect, size: tuple[int, int]) -> np.ndarray:
    """Inverse of `place_boxes` for corners: network input pixels -> pixels of the picture.

    Args:
        boxes: (n, 4) x1, y1, x2, y2 in pixels of the network input.
        size: (height, width) of the network input.
    """
    left, top, right, bottom = rect
    scale = np.array([(right - left) / size[1], (bottom - top) / size[0]] * 2, boxes.dtype)
    return boxes * scale + np.array([left, top] * 2, boxes.dtype)


def to_array(image: Image.Image) -> np.ndarray:
    """(H, W, C) uint8, C contiguous and writable."""
    pixels = np.array(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def prepare(
    path, size: tuple[int, int], letterbox: bool = False, channels: int = 3, resize: str = "antialias"
) -> tuple[np.ndarray, Rect, tuple[int, int]]:
    """What a network is shown of a picture when nothing is augmented.

    Returns:
        (H, W, C) uint8; the rectangle for `unplace_boxes`; the (width, height) that is stored.
    """
    image, stored = read_image(path, channels)
    rect = fit(stored, size, letterbox)
    return to_array(place(image, rect, size, stored, resize)), rect, stored
