"""`.data` and `.names` files."""

from __future__ import annotations

import pytest

from darkslim.base.errors import DataFileError
from darkslim.data.datafile import data_text, portable, read_data, read_names


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "n.names").write_text("cat\ndog\n")
    return tmp_path


def put(text, mode="w"):
    data = text if isinstance(text, bytes) else text.encode()
    with open("x.data", "wb") as f:
        f.write(data)
    return "x.data"


def test_reads_every_key_with_spaces_comments_bom_and_crlf(folder):
    text = (
        "\ufeff# a comment\r\nclasses = 2\r\ntrain = my pictures/tr\u00e4in.txt\r\n\r\n; "
        "more\r\nvalid=v.txt\r\n"
    )
    text += "names=n.names\r\nbackup=out\r\n"
    config = read_data(put(text))
    assert (config.classes, config.names) == (2, ["cat", "dog"])
    assert [str(p) for p in (config.train, config.valid, config.backup)] == [
        "my pictures/tr\u00e4in.txt",
        "v.txt",
        "out",
    ]


def test_what_is_written_reads_the_same(folder):
    config = read_data(put(data_text(2, "a/t.txt", "a/v.txt", "n.names", "ckpt")))
    assert (str(config.list_path("train")), str(config.list_path("valid")), str(config.backup)) == (
        "a/t.txt",
        "a/v.txt",
        "ckpt",
    )


def test_names_are_numbers_when_none_are_named(folder):
    assert read_data(put("classes=3\n")).names == ["0", "1", "2"]


def test_a_list_that_is_not_named(folder):
    with pytest.raises(DataFileError, match=r"x.data: has no train="):
        read_data(put("classes=3\n")).list_path("train")


@pytest.mark.parametrize(
    "text, message",
    [
        ("train=a\n", "x.data: has no classes="),
        ("classes=two\n", "x.data:1: classes=two; a whole number"),
        ("\nclasses=0\n", "x.data:2: classes=0"),
        ("classes=-1\n", "classes=-1"),
        ("classes=1e400\n", "classes=1e400"),
        ("classes=00000001803742637\n", "classes=00000001803742637; a whole number from 1 to 100,000"),
        ("classes=" + "9" * 5000 + "\n", "a whole number"),
        ("classes=\u0663\n", "a whole number"),
        ("classes=2\nnames=" + "n" * 300 + "\n", "x.data:2: names=nnn"),
        (
            "classes=2\nnames=absent.names\n",
            "x.data:2: names=absent.names: no such file; relative paths start from",
        ),
        ("classes=3\nnames=n.names\n", "n.names: has 2 names; classes=3"),
        ("classes=2\nnonsense\n", "x.data:2: 'nonsense' has no ="),
        ("classes=2\ntrain=\n", "x.data:2: 'train=' has no value"),
        ("classes=1\nbackup=../../out\n", "x.data:2: backup=../../out leads out"),
        ("classes=1\nbackup=..\\out\n", "leads out of the current folder"),
        ("classes=1\nbackup=a/../../out\n", "leads out of the current folder"),
        ("classes=1\nresults=/a/../b\n", "leads out of the current folder"),
        (b"c\0lasses=1", "x.data:1: has a NUL byte"),
        (b"\xff\xfec\0", "is UTF-16"),
        (b"classes=1\n\xe9", "x.data:2: is not UTF-8"),
        ("<!DOCTYPE html>", "an HTML or XML page"),
    ],
)
def test_errors_say_where_and_what(folder, text, message):
    with pytest.raises(DataFileError) as error:
        read_data(put(text))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_outputs_outside_are_allowed_on_request(folder):
    assert str(read_data(put("classes=1\nbackup=../out\n"), allow_outside=True).backup) == "../out"
    assert str(read_data(put("classes=1\nbackup=a/../b\n")).backup) == "a/../b"
    assert str(read_data(put("classes=1\nbackup=/data/b\n")).backup) == "/data/b"


def test_shell_characters_are_just_characters(folder):
    assert str(read_data(put("classes=1\ntrain=$(touch x);`y`&|>z\n")).train) == "$(touch x);`y`&|>z"


def test_repeated_and_unknown_keys_are_warned_about(folder):
    with pytest.warns(UserWarning) as warned:
        config = read_data(put("classes=1\nclasses=2\nvalide=a\n"))
    assert config.classes == 1
    assert [str(w.message) for w in warned] == [
        "x.data:2: classes stands already in line 1; the first one counts",
        "x.data:3: unknown key valide (did you mean valid?)",
    ]


def test_names(folder):
    (folder / "a.names").write_bytes("a b\r\n\u00fc\r\n\r\n".encode())
    assert read_names("a.names") == ["a b", "\u00fc"]
    (folder / "a.names").write_text("a\n\nb\n")
    with pytest.raises(DataFileError, match="a.names:2: is a blank line"):
        read_names("a.names")
    (folder / "a.names").write_text("a\na\n")
    with pytest.warns(UserWarning, match="more than one class: a"):
        read_names("a.names", 2)
    (folder / "a.names").write_text("\n\n")
    with pytest.raises(DataFileError, match="has no names"):
        read_names("a.names")
    for path in ("absent", "."):
        with pytest.raises(DataFileError):
            read_names(path)


def test_windows_separators_unless_a_file_has_that_name(folder):
    assert portable("a\\b\\c.txt") == "a/b/c.txt"
    (folder / "a\\b").write_text("")
    assert portable("a\\b") == "a\\b"
