"""Libraries that only some formats and engines need."""

from __future__ import annotations

import importlib

from .errors import RequestError

# those whose package has another name
PACKAGES = {"cv2": "opencv-python-headless", "onnxruntime.quantization": "onnxruntime"}


def library(name: str):
    """An optional library.

    Raises:
        RequestError: it is not installed, with how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        package = PACKAGES.get(name, name)
        raise RequestError(package, "is not installed", remedy=f"pip install {package}") from None
