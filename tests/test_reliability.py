"""The table of docs/reliability.md is what its script writes out of the committed results."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest


@pytest.fixture(scope="module")
def script(root):
    sys.path.insert(0, str(root / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location("reliability", root / "benchmarks/reliability.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(root / "benchmarks"))
    return module


def test_the_page_is_up_to_date(script, root):
    page = (root / "docs/reliability.md").read_text()
    assert script.section(root / "docs/results") in page, "run python benchmarks/reliability.py"


def test_every_promise_has_a_test(script, root):
    for promise, tests, _ in script.PROMISES:
        assert tests and all((root / "tests" / f"{name}.py").is_file() for name in tests), promise


def test_figures_follow_from_the_files(script, tmp_path):
    assert "no run yet" in script.section(tmp_path)
    kinds = ("SIGKILL", "SIGINT", "SIGTERM", "full disk")
    summary = {kind: {"trials": 7, "good": 6} for kind in kinds}
    (tmp_path / "faults.json").write_text(json.dumps({"summary": summary}))
    row = {"target": "cfg", "executions": 5000, "seconds": 9, "escapes": [{"what": "x", "input": "y"}]}
    (tmp_path / "fuzz.json").write_text(json.dumps({"rows": [row]}))
    (tmp_path / "fuzz_again.json").write_text(json.dumps({"rows": [{**row, "escapes": []}]}))
    page = script.section(tmp_path)
    assert "6 of 7 ([JSON]" in page and "12 of 14 ([JSON]" in page
    assert "5,000 files, 0 escapes" in page and "| 1 (x) | [fuzz]" in page
