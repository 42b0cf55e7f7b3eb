"""Saving: all or nothing, and never a half file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from darkslim.base.errors import FileError
from darkslim.base.files import Save, read_bytes, save, save_all, sniff


def test_saves_bytes_text_and_functions(tmp_path):
    save(tmp_path / "deep" / "a", b"1")
    save(tmp_path / "b", "2")
    save(tmp_path / "c", lambda p: p.write_text("3"))
    assert [(tmp_path / n).read_text() for n in ("deep/a", "b", "c")] == ["1", "2", "3"]
    assert sorted(os.listdir(tmp_path)) == ["b", "c", "deep"]


def test_the_mode_is_that_of_an_ordinary_file(tmp_path):
    save(tmp_path / "a", b"1")
    (tmp_path / "b").write_bytes(b"1")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


@pytest.mark.parametrize("fails", ["write", "check", "group"])
def test_one_failure_leaves_all_as_it_was(tmp_path, fails):
    (tmp_path / "a").write_text("old")

    def refuse(*_):
        raise ValueError("no")

    second = Save(
        tmp_path / "b", refuse if fails == "write" else b"new", refuse if fails == "check" else None
    )
    files = [Save(tmp_path / "a", b"new"), second]
    with pytest.raises(ValueError):
        save_all(files, refuse if fails == "group" else None)
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "old"


def test_the_group_check_sees_the_files_on_disk(tmp_path):
    seen = {}
    files = [Save(tmp_path / "a", b"1"), Save(tmp_path / "b", b"22")]
    save_all(files, lambda t: seen.update({p.name: q.read_bytes() for p, q in t.items()}))
    assert seen == {"a": b"1", "b": b"22"}


def test_folders_and_impossible_places_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "x", tmp_path / "n\0l"):
        with pytest.raises(FileError):
            save(path, b"1")


def test_a_kill_while_saving_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    code = (
        "import os, signal, sys; from darkslim.base.files import save\n"
        "def w(p):\n p.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "save(sys.argv[1], w)"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=root)
    assert done.returncode == -9 and path.read_text() == "old"


def test_reading_refuses_what_is_no_file(tmp_path):
    with pytest.raises(FileError, match="at most 3"):
        (tmp_path / "a").write_bytes(b"1234")
        read_bytes(tmp_path / "a", "list", 3)
    with pytest.raises(FileError, match="is a folder; a list"):
        read_bytes(tmp_path, "list", 3)


@pytest.mark.parametrize(
    "head, kind",
    [
        (b"\n <html>", "HTML"),
        (b"PK\x03\x04", "zip"),
        (b"\x80\x02", "pickle"),
        (b"version https://git-lfs", "LFS"),
        (b"\xff\xd8\xff\xe0", "image"),
        (b"[net]", None),
    ],
)
def test_sniff(head, kind):
    assert sniff(head) is None if kind is None else kind in sniff(head)
