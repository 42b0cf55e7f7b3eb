"""Results as strict JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path


def jsonable(value):
    """`value` with numpy and torch scalars, tuples, paths and non-finite floats made fit for JSON."""
    if isinstance(value, dict):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def to_json(value) -> str:
    """`value` as indented, strict JSON text."""
    return json.dumps(jsonable(value), indent=2, allow_nan=False) + "\n"
