"""The project around the package: what the README promises exists, and no file knows the machine that it was
written on.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests/golden"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = ("train", "test", "test_prune", "slim", "converter")
DISTRIBUTION = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "faster_coco_eval": "faster-coco-eval",
    "yaml": "pyyaml",
}


def project_files() -> list[Path]:
    """Every file that is tracked, or would be."""
    try:
        done = subprocess.run(
            ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [
        ROOT / os.fsdecode(name)
        for name in done.stdout.split(b"\0")
        if name and (ROOT / os.fsdecode(name)).is_file()
    ]


def command_module(name: str):
    return importlib.import_module(f"darkslim.commands.{name}_command")


def command_lines() -> list[tuple[str, str, list[str]]]:
    """(page, script, words behind it) of every `python X.py ...` in the pages' code blocks; `\\` joins
    lines.
    """
    found = []
    for page in PAGES:
        for block in re.findall(r"```\w*\n(.*?)```", page.read_text(), re.S):
            for line in block.replace("\\\n", " ").splitlines():
                match = re.match(r"\s*(?:\S*/)?(?:python|torchrun)\S*(?: --\S+)* (\S+\.py)\b([^#]*)", line)
                if match:
                    found.append((page.name, match[1], match[2].split()))
    return found


def third_party(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
    local = {p.stem for p in ROOT.glob("*.py")} | {
        "darkslim",
        "tests",
        "benchmarks",
        *(p.stem for p in path.parent.glob("*.py")),
        *(p.stem for p in (ROOT / "tests").glob("*.py")),
    }
    return names - set(sys.stdlib_module_names) - local


def requirements(name: str = "requirements.txt") -> dict[str, str]:
    lines = [line.strip() for line in (ROOT / name).read_text().splitlines()]
    pins = [
        re.fullmatch(r"([A-Za-z0-9_.-]+)==(\d[\w.]*)", line)
        for line in lines
        if line and not line.startswith(("#", "-r "))
    ]
    assert all(pins), f"every requirement is pinned exactly, and nothing else stands there: {lines}"
    return {pin[1].lower(): pin[2] for pin in pins}


def test_no_machine_path_and_no_registry():
    pattern = re.compile(
        r"(?<![\w.~])/(?:tmp|root|home|work|farm)/|(?:index|find)-(?:url|links)|https?://[\w.-]*pypi[\w.-]*/simple"
    )
    faults = []
    for path in project_files():
        data = path.read_bytes()
        if b"\0" in data:
            continue
        for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
            if pattern.search(line) and path != Path(__file__).resolve():
                faults.append(f"{path.relative_to(ROOT)}:{number} {line.strip()[:100]}")
    assert not faults, "\n".join(faults)


def test_no_large_or_generated_file():
    """But the random weights that the golden vectors were computed from."""
    suspects = [
        p
        for p in project_files()
        if p.stat().st_size > 2_000_000
        or (p.suffix in (".pth", ".weights", ".pyc", ".tmp", ".pkl") and GOLDEN not in p.resolve().parents)
    ]
    assert not suspects


def test_requirements_are_pinned_and_complete():
    run, test, fuzz = (requirements(f"requirements{name}.txt") for name in ("", "-test", "-fuzz"))
    assert "torch" in run and "torchvision" not in run and not set(run) & set(test)
    assert "-r requirements.txt" in (ROOT / "requirements-test.txt").read_text()
    for needs, pins in ((in_use, set(run)), (in_tests, set(run) | set(test) | set(fuzz))):
        used = set().union(*(third_party(p) for p in project_files() if p.suffix == ".py" and needs(p)))
        missing = {DISTRIBUTION.get(name, name).lower() for name in used} - pins
        assert not missing, f"imported but not in the requirements: {sorted(missing)}"


def in_use(path: Path) -> bool:
    """What a user runs needs no more than requirements.txt."""
    return path.resolve().relative_to(ROOT).parts[0] not in ("tests", "benchmarks")


def in_tests(path: Path) -> bool:
    return not in_use(path)


def test_make_has_the_targets_and_ci_runs_the_test_command():
    makefile = (ROOT / "Makefile").read_text()
    for target in ("venv", "demo", "test", "lint", "bench", "fuzz", "faults"):
        assert re.search(rf"^{target}:", makefile, re.M), target
    for script in re.findall(r"\S+\.py", makefile):
        assert (ROOT / script).is_file(), script
    ci = ROOT / ".ci" / "run"
    assert os.access(ci, os.X_OK)
    lines = ci.read_text().splitlines()
    assert lines[0].startswith("#!") and "set -euo pipefail" in lines and lines[-1] == "make test"


def test_readme_names_the_two_commands():
    blocks = "".join(re.findall(r"```\w*\n(.*?)```", (ROOT / "README.md").read_text(), re.S))
    assert "make demo" in blocks and "make test" in blocks


def test_pages_use_commands_and_flags_that_exist():
    parsers, faults = {}, []
    lines = command_lines()
    assert {script for _, script, _ in lines} >= {"train.py", "test_prune.py", "converter.py"}
    for page, script, words in lines:
        if not (ROOT / script).is_file():
            faults.append(f"{page}: {script} does not exist")
            continue
        if "/" in script:
            continue
        job = words[0] if words and not words[0].startswith("-") else ""
        if (script, job) not in parsers:
            parser = command_module(script.removesuffix(".py")).parser()
            jobs = next((a.choices for a in parser._actions if a.dest == "job"), {})
            if jobs and job not in jobs:
                faults.append(f"{page}: {script} has no job {job!r}")
                continue
            parsers[script, job] = set(jobs.get(job, parser)._option_string_actions)
        flags = {w.partition("=")[0] for w in words if re.match(r"--?[A-Za-z]", w)}
        faults += [f"{page}: {script} has no {flag}" for flag in sorted(flags - parsers[script, job])]
    assert not faults, "\n".join(faults)


def test_links_and_pictures_exist():
    faults = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                faults.append(f"{page.name} -> {target}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_common_flags(name):
    flags = set(command_module(name).parser()._option_string_actions)
    assert flags >= {"--help", "--seed", "--device", "--debug", "--json"}


def test_pytest_never_collects_the_command_test_prune(tmp_path):
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert settings["testpaths"] == ["tests"] and "--import-mode=importlib" in settings["addopts"]
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    for name in ("test.py", "test_prune.py"):
        (tmp_path / name).write_text("raise RuntimeError('collected')\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_one.py").write_text("def test_one():\n    pass\n")
    for where in ([], ["."]):
        words = [sys.executable, "-m", "pytest", "--collect-only", *where]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0 and "test_one.py" in done.stdout and "test_prune" not in done.stdout, (
            done.stdout
        )


def test_the_results_of_the_readme_are_those_of_the_json_files(root):
    import importlib.util
    import sys

    sys.path.insert(0, str(root / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location("benchmarks_readme", root / "benchmarks/readme.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(root / "benchmarks"))
    assert module.section(root / "docs/results") in (root / "README.md").read_text(), (
        "run python benchmarks/readme.py"
    )
    assert module.full(root / "docs/results") == (root / "docs/RESULTS.md").read_text(), (
        "run python benchmarks/readme.py"
    )
