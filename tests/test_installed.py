"""`pip install .`: the package, the public faces, the cfgs and the command, away from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from commands import ROOT

from darkslim.commands import console_script

PARTS = ("darkslim", "config", "models.py", "prune_utils.py", "pyproject.toml", "requirements.txt")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that the project was installed to, without its requirements, which are there already."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    for name in PARTS:
        path, ignore = ROOT / name, shutil.ignore_patterns("__pycache__", "prune_*.cfg")
        shutil.copytree(path, source / name, ignore=ignore) if path.is_dir() else shutil.copy(path, source)
    words = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words, str(source)], capture_output=True, text=True, cwd=source
    )
    assert done.returncode == 0, done.stderr
    return target


def python(installed, cwd, *words) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    return subprocess.run([sys.executable, *words], cwd=cwd, env=env, capture_output=True, text=True)


def test_every_file_of_the_package_comes_along(installed):
    def names(folder):
        return {
            str(p.relative_to(folder))
            for p in folder.rglob("*")
            if p.is_file() and p.suffix != ".pyc" and not (p.suffix == ".cfg" and p.name.startswith("prune_"))
        }

    assert names(installed / "darkslim/config") == names(ROOT / "config")
    shipped = {n for n in names(installed / "darkslim") if not n.startswith("config")}
    assert shipped == names(ROOT / "darkslim")


def test_the_command_and_the_faces_elsewhere(installed, tmp_path):
    script = (
        "import darkslim, models, prune_utils; from darkslim.pipelines import recipes\n"
        "print(recipes.find('slimming'), darkslim.__file__)\n"
        "print(models.Darknet(models.read_cfg(recipes.PACKAGE / 'config/yolov3-tiny-hand.cfg')).cfg.width)"
    )
    done = python(installed, tmp_path, "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(str(installed)) == 2 and done.stdout.split()[-1] == "416"
    command = installed / "bin/darkslim"
    done = python(installed, tmp_path, str(command), "test", "--model_def", "none.cfg")
    assert done.returncode == 2 and done.stderr.startswith("error: config/oxfordhand.data: no such"), (
        done.stderr
    )
    done = python(installed, tmp_path, str(command))
    assert done.returncode == 0 and f"cfgs: {installed}/darkslim/config" in done.stdout, done.stdout


def test_words_of_the_command(capsys):
    assert console_script.main(["--help"]) == 0 and "darkslim slim" in capsys.readouterr().out
    assert console_script.main(["prune"]) == 2
    assert capsys.readouterr().err == (
        "error: prune is no command; found train, test, test_prune, slim, detect, export, compress, "
        "converter\n"
    )
    with pytest.raises(SystemExit) as stopped:
        console_script.main(["slim", "--help"])
    assert stopped.value.code == 0 and capsys.readouterr().out.startswith("usage: darkslim slim")
    for name in console_script.COMMANDS:
        assert (ROOT / f"{name}.py").is_file()
