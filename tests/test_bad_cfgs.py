"""Broken and hostile cfg, .data and .names files, through the commands.

Each gives exit 2 and exactly one line on stderr with file and line, no traceback, and nothing on disk
created or changed. What Darknet or another reader would misread but can be read is accepted with a warning.
Most run the command in this process; a few run it as a user does.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
from pathlib import Path

import pytest
from commands import call, check, snapshot, spawn, write

NET = """\
[net]
width=64
height=64
channels=3

[convolutional]
batch_normalize=1
filters=10
size=3
stride=2
pad=1
activation=leaky

[convolutional]
batch_normalize=1
filters=10
size=1
stride=1
pad=1
activation=mish

[shortcut]
from=-2
activation=linear

[convolutional]
batch_normalize=1
filters=12
size=5
stride=2
pad=1
activation=relu

[convolutional]
filters=12
size=1
stride=1
pad=1
activation=linear

[yolo]
mask=2,3
anchors=10,13,16,30,33,23,30,61
classes=1
num=4

[route]
layers=3

[upsample]
stride=2

[route]
layers=-1,2

[convolutional]
filters=6
size=1
stride=1
pad=1
activation=linear

[yolo]
mask=1
anchors=10,13,16,30,33,23,30,61
classes=1
num=4
"""


def edit(old: str, new: str, occurrence: int = 1) -> str:
    """NET with the n-th `old` replaced."""
    parts = NET.split(old)
    assert len(parts) > occurrence, old
    return old.join(parts[:occurrence]) + new + old.join(parts[occurrence:])


def line_of(text: str, needle: str, occurrence: int = 1) -> int:
    """Number of the line with the n-th `needle`."""
    at = -1
    for _ in range(occurrence):
        at = text.index(needle, at + 1)
    return text.count("\n", 0, at) + 1


def cut(key_line: str) -> str:
    return NET.replace(key_line, "", 1)


FAR = "[convolutional]\nfilters=1\nsize=3\nstride=2147483647\npad=1\nactivation=linear\n"
HEAD = (
    "[convolutional]\nfilters=6\nsize=1\nstride=1\nactivation=linear\n[yolo]\nmask=0\nanchors=9,9\n"
    "num=1\nclasses=1\n"
)
# name: content, the text whose line the message must name ("" for none; (text, n) for the n-th), words of the
# message
BAD: dict[str, tuple[str | bytes, str | tuple[str, int], str]] = {
    "1-empty": ("", "", "net"),
    "1-blank-lines": ("\n\n \t\n", "", "net"),
    "1-only-comments": ("# a network\n; to come\n", "", "net"),
    "2-net-missing": (NET.split("\n\n", 1)[1], "[convolutional]", "[net]"),
    "2-net-not-first": ("[yolo]\nnum=1\n" + NET, "[yolo]", "[net]"),
    "2-net-twice": (NET + "\n[net]\nwidth=64\n", ("[net]", 2), "[net]"),
    "2-no-layers": ("[net]\nwidth=64\nheight=64\nchannels=3\n", "", "detect"),
    "2-no-width": (cut("width=64\n"), "[net]", "width"),
    "3-key-first": ("width=64\n" + NET, "width=64", "section"),
    "4-html": ("<!DOCTYPE html>\n<html><body>404: Not Found</body></html>\n", "", "HTML"),
    "4-html-after-blanks": ("\n\n  <html lang=en>\n", "", "HTML"),
    "5-filters-abc": (edit("filters=12", "filters=abc"), "filters=abc", "filters=abc"),
    "5-filters-empty": (edit("filters=12", "filters="), "filters=\n", "filters"),
    "5-filters-fraction": (edit("filters=12", "filters=12.5"), "filters=12.5", "whole number"),
    "5-filters-hex": (edit("filters=12", "filters=0x10"), "filters=0x10", "whole number"),
    "5-filters-underscore": (edit("filters=12", "filters=1_2"), "filters=1_2", "whole number"),
    "5-filters-exponent": (
        edit("filters=12", "filters=1.2e1"),
        "filters=1.2e1",
        "whole number",
    ),  # Darknet reads 1
    "5-filters-other-digits": (
        edit("filters=12", "filters=\uff11\uff12").encode(),
        "filters=\uff11",
        "whole number",
    ),
    "5-layers-words": (edit("layers=-1,2", "layers=-1,two"), "layers=-1,two", "layers"),
    "6-no-equals": (edit("filters=12", "filters 12"), "filters 12", "="),
    "6-no-key": (edit("filters=12", "=12"), "=12\n", "key"),
    "6-open-bracket": (edit("[upsample]", "[upsample"), "[upsample\n", "section"),
    "6-escape-codes-in-a-section": (edit("[upsample]", "[up\x1b[2Jsample]"), "[up", "upsample"),
    "6-empty-section": (edit("[upsample]", "[]"), "[]", "section"),
    "8-unknown-section": (edit("[upsample]", "[upsmaple]"), "[upsmaple]", "upsample"),
    "8-case-of-section": (edit("[upsample]", "[Upsample]"), "[Upsample]", "upsample"),
    "8-unsupported-section": (edit("[upsample]", "[Gaussian_yolo]"), "[Gaussian_yolo]", "not supported"),
    "9-filters-0": (edit("filters=12", "filters=0"), "filters=0", "at least 1"),
    "9-filters-negative": (edit("filters=12", "filters=-12"), "filters=-12", "at least 1"),
    "10-filters-1e9": (edit("filters=12", "filters=1000000000"), "", "GiB"),
    "10-width-1e6": (
        edit("width=64", "width=1000000").replace("height=64", "height=1000000"),
        "width=1000000",
        "GiB",
    ),
    "10-channels-1e9": (edit("channels=3", "channels=1000000000"), "", "GiB"),
    "10-upsample-1e6": (edit("stride=2", "stride=1000000", 3), "", "GiB"),
    "10-size-1e9": (edit("size=5", "size=1000000001"), "", ""),
    "10-beyond-64-bits": (
        edit("filters=12", "filters=99999999999999999999"),
        "filters=99999999999999999999",
        "filters",
    ),
    "11-a-million-sections": (
        "[net]\nwidth=64\nheight=64\nchannels=3\n" + "[dropout]\n" * 100_000,
        "",
        "sections",
    ),
    "11-a-million-lines": (NET + "\n" * 1_000_000, "", "lines"),
    "11-too-many-keys": (NET + "".join(f"k{i}=1\n" for i in range(20_000)), "", ""),
    "11-too-often-one-key": (NET + "max=1\n" * 20_000, "", ""),
    "11-a-long-line": (NET + "max=" + "9" * 17_000_000 + "\n", "", "bytes"),
    "11-a-long-number": (edit("filters=12", "filters=" + "9" * 5_000), "filters=9", "filters"),
    "12-stride-0": (edit("stride=2", "stride=0"), "stride=0", "at least 1"),
    "12-strides-beyond-any-image": (NET.split("[convolutional]")[0] + FAR * 600 + HEAD, "", "stride"),
    "12-size-0": (edit("size=5", "size=0"), "size=0", "at least 1"),
    "12-groups-and-filters": (edit("size=5", "groups=5\nsize=5"), "groups=5", "divide"),
    "12-groups-and-inputs": (edit("size=5", "groups=4\nsize=5"), "groups=4", "divide"),
    "12-groups-0": (edit("size=5", "groups=0\nsize=5"), "groups=0", "at least 1"),
    "12-upsample-0": (edit("[upsample]\nstride=2", "[upsample]\nstride=0"), "stride=0", "at least 1"),
    "13-route-to-itself": (edit("layers=3", "layers=6"), "layers=6", "not before"),
    "13-route-to-a-later-layer": (edit("layers=3", "layers=9"), "layers=9", "not before"),
    "14-route-before-0": (edit("layers=-1,2", "layers=-1,-20"), "layers=-1,-20", "before layer 0"),
    "14-route-empty": (edit("layers=-1,2", "layers="), "layers=\n", "layers"),
    "14-route-without-layers": (cut("layers=3\n"), ("[route]", 1), "layers"),
    "15-route-of-other-sizes": (edit("layers=-1,2", "layers=-1,3"), "layers=-1,3", "32 x 32"),
    "16-shortcut-before-0": (edit("from=-2", "from=-9"), "from=-9", "before layer 0"),
    "16-shortcut-to-later": (edit("from=-2", "from=7"), "from=7", "not before"),
    "16-shortcut-to-itself": (edit("from=-2", "from=2"), "from=2", "not before"),
    "17-shortcut-of-other-sizes": (edit("stride=1", "stride=2"), "from=-2", "32 x 32"),
    "18-mask-outside": (edit("mask=2,3", "mask=2,4"), "mask=2,4", "0 to 3"),
    "18-mask-negative": (edit("mask=2,3", "mask=-1,3"), "mask=-1,3", "0 to 3"),
    "18-mask-twice": (edit("mask=2,3", "mask=3,3"), "mask=3,3", "twice"),
    "19-anchors-odd": (
        edit("anchors=10,13,16,30,33,23,30,61", "anchors=10,13,16"),
        "anchors=10,13,16\n",
        "pairs",
    ),
    "19-anchors-missing": (cut("anchors=10,13,16,30,33,23,30,61\n"), "[yolo]", "anchors"),
    "19-anchors-too-few": (edit("anchors=10,13,16,30,33,23,30,61", "anchors=10,13"), "mask", "num=4"),
    "19-anchors-zero": (edit("anchors=10,13", "anchors=10,0"), "anchors=10,0", "above zero"),
    "19-anchors-negative": (edit("anchors=10,13", "anchors=10,-13"), "anchors=10,-13", "above zero"),
    "20-head-filters": (edit("filters=6", "filters=7"), "filters=7", "filters=6"),
    "20-head-classes": (edit("classes=1", "classes=3"), ("filters=12", 2), "filters=16"),
    "21-size-and-stride": (edit("width=64", "width=62"), "", "stride 4"),
    "21-where-the-shapes-agree": (
        NET.split("[route]")[0].replace("width=64", "width=62"),
        "width=62",
        "use 60 or 64",
    ),
    "21-too-small": (edit("width=64", "width=1").replace("height=64", "height=1"), "", ""),
    "22-nan": (edit("filters=12", "filters=nan"), "filters=nan", "whole number"),
    "22-inf": (edit("anchors=10,13", "anchors=10,inf"), "anchors=10,inf", "finite"),
    "22-1e400": (edit("anchors=10,13", "anchors=10,1e400"), "anchors=10,1e400", "finite"),
    "22-nan-in-net": (edit("channels=3", "channels=3\nlearning_rate=nan"), "learning_rate=nan", "finite"),
    "25-utf-16": (NET.encode("utf-16"), "", "UTF-16"),
    "25-nul": (edit("size=5", "size=5\0").encode(), "size=5", "NUL"),
    "25-latin-1": (edit("[upsample]", "caf\xe9=1\n[upsample]").encode("latin-1"), "caf", "UTF-8"),
    "25-latin-1-header": (edit("[upsample]", "[upsampl\xe9]").encode("latin-1"), "[upsampl", "UTF-8"),
    "25-weights-file": (bytes([0, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0]) + bytes(64), "", "NUL"),
    "25-checkpoint": (b"PK\x03\x04" + bytes(64), "", ".pth"),
    "27-unknown-activation": (edit("activation=mish", "activation=mihs"), "activation=mihs", "mish"),
    "27-activation-of-a-shortcut": (
        edit("from=-2\nactivation=linear", "from=-2\nactivation=lienar"),
        "activation=lienar",
        "linear",
    ),
    "27-refused-variant": (edit("size=5", "antialiasing=1\nsize=5"), "antialiasing=1", "not supported"),
}
SLOW_TO_READ = {name for name in BAD if name.startswith("11-")}


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder to run in, with data that nobody should come to read."""
    (tmp_path / "data").mkdir()
    (tmp_path / "hand.names").write_text("hand\n")
    (tmp_path / "hand.data").write_text(
        "classes=1\ntrain=data/train.txt\nvalid=data/valid.txt\nnames=hand.names\nbackup=out\n"
    )
    (tmp_path / "net.cfg").write_text(NET)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arguments(name: str, cfg, data="hand.data") -> list[str]:
    words = ["--model_def", str(cfg), "--data_config", str(data), "--device", "cpu"]
    return words + (
        ["--no_eval", "--model", "model.pth", "--cfg_out", "out.cfg", "--model_out", "out.pth"]
        if name == "test_prune"
        else []
    )


def expected_place(path, text: str | bytes, needle) -> str:
    needle, occurrence = needle if isinstance(needle, tuple) else (needle, 1)
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return f"{path}:{line_of(text, needle, occurrence)} ".rstrip(" ") if needle else str(path)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_cfg_stops_the_pruning_command(name, place, capfd):
    content, needle, words = BAD[name]
    write(place / "bad.cfg", content)
    before = snapshot(place)
    code, lines, seconds = call(capfd, "test_prune", arguments("test_prune", "bad.cfg"))
    check(code, lines, expected_place("bad.cfg", content, needle), words)
    if needle or re.match(r"(10|21)-", name):
        assert re.match(r"error: bad\.cfg:\d+[ :]", lines[0]), f"file and line: {lines[0]}"
    assert snapshot(place) == before
    assert seconds < 10, "a hostile file is refused quickly"


@pytest.mark.parametrize("name", [n for n in BAD if n not in SLOW_TO_READ][::4])
@pytest.mark.parametrize("other", ["train", "test"])
def test_the_other_commands_say_the_same(name, other, place, capfd):
    content, needle, words = BAD[name]
    write(place / "bad.cfg", content)
    before = snapshot(place)
    code, lines, _ = call(capfd, other, arguments(other, "bad.cfg"))
    check(code, lines, expected_place("bad.cfg", content, needle), words)
    assert snapshot(place) == before


@pytest.mark.parametrize(
    ("name", "script"),
    [("5-filters-abc", "test_prune"), ("17-shortcut-of-other-sizes", "train"), ("4-html", "test")],
)
def test_as_a_user_runs_it(name, script, place):
    content, needle, words = BAD[name]
    write(place / "bad.cfg", content)
    before = snapshot(place)
    done = spawn(script, arguments(script, "bad.cfg"), place)
    check(done.returncode, done.stderr.splitlines(), expected_place("bad.cfg", content, needle), words)
    assert snapshot(place) == before


def test_debug_shows_the_traceback(place, capfd):
    write(place / "bad.cfg", BAD["5-filters-abc"][0])
    before = snapshot(place)
    code, lines, _ = call(capfd, "test_prune", [*arguments("test_prune", "bad.cfg"), "--debug"])
    assert code == 2 and lines[0].startswith("Traceback") and lines[-1].startswith("error: bad.cfg:28")
    assert snapshot(place) == before


def test_10_nothing_is_allocated_for_an_absurd_size(place, capfd):
    """With room for 1 GiB more than now, four networks of hundreds of GiB are still refused with their
    line.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 2**30, hard))
    try:
        for name in BAD:
            if name.startswith("10-"):
                write(place / "bad.cfg", BAD[name][0])
                code, lines, _ = call(capfd, "test_prune", arguments("test_prune", "bad.cfg"))
                check(code, lines, "bad.cfg:", BAD[name][2])
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_11_a_sparse_file_of_100_gb_is_not_read(place, capfd):
    with open(place / "bad.cfg", "wb") as f:
        f.truncate(100 * 2**30)
    code, lines, seconds = call(capfd, "test_prune", arguments("test_prune", "bad.cfg"))
    check(code, lines, "bad.cfg: ", "bytes long")
    assert seconds < 2


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "device", "loop", "long name"])
def test_what_is_no_file(kind, place, capfd):
    path = place / "bad.cfg"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "long name":
        path = place / ("x" * 300 + ".cfg")
    before = snapshot(place)
    code, lines, _ = call(capfd, "test_prune", arguments("test_prune", path))
    check(code, lines, str(path), "cfg" if kind != "folder" else "a folder")
    assert snapshot(place) == before


# ------------------------------------------------------------------------------------------- accepted, with a
# warning


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint of NET whose gammas span a range, to prune."""
    import torch

    from darkslim.network.cfg import parse_cfg
    from darkslim.network.darknet import Darknet
    from darkslim.network.weights import save_weights

    torch.manual_seed(1)
    model = Darknet(parse_cfg(NET, "net.cfg")).eval()
    for name, value in model.named_parameters():
        if "batch_norm" in name and name.endswith("weight"):
            value.data.copy_(torch.linspace(0.001, 1, len(value)))
    path = tmp_path_factory.mktemp("trained") / "model.weights"
    save_weights(model, path)
    return path


# content, the line of the warning ("" if there is none), words of the warning
ODD: dict[str, tuple[str | bytes, str, str]] = {
    "7-duplicate-key": (edit("filters=12", "filters=12\nfilters=99"), "filters=99", "filters=12"),
    "8-unknown-key": (edit("size=5", "filter=64\nsize=5"), "filter=64", "filters"),
    "23-crlf": (NET.replace("\n", "\r\n").encode(), "", ""),
    "24-bom": (b"\xef\xbb\xbf" + NET.encode(), "[net]", "byte order mark"),
    "26-inline-comment": (edit("filters=12", "filters=12 # wide"), "filters=12 # wide", "comment"),
    "26-inline-semicolon": (
        edit("activation=relu", "activation=relu ; plain"),
        "activation=relu ; plain",
        "comment",
    ),
    "26-comment-behind-a-header": (edit("[upsample]", "[upsample] # twice"), "[upsample] # twice", "comment"),
    "26-tabs-and-blanks": (edit("filters=12", " filters\t=\t1 2 "), "", ""),
    "26-no-last-line-end": (NET.rstrip("\n"), "", ""),
    "aliases": (NET.replace("[net]", "[network]").replace("[convolutional]", "[conv]"), "", ""),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_cfg_is_pruned_all_the_same(name, place, capfd, trained):
    content, needle, words = ODD[name]
    write(place / "odd.cfg", content)
    flags = [
        "--no_eval",
        "--model",
        str(trained),
        "--percent",
        "0.5",
        "--cfg_out",
        "out.cfg",
        "--model_out",
        "out.pth",
    ]
    before = (place / "odd.cfg").read_bytes()
    code, lines, _ = call(capfd, "test_prune", ["--model_def", "odd.cfg", "--device", "cpu", *flags])
    assert code == 0, lines
    about = [line for line in lines if "odd.cfg:" in line]
    if needle:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        assert (
            len(about) == 1
            and about[0].startswith(f"warning: odd.cfg:{line_of(text, needle)}")
            and words in about[0]
        ), lines
    else:
        assert not about, lines
    assert (place / "odd.cfg").read_bytes() == before, "the user's file is never edited"
    written = (place / "out.cfg").read_bytes()
    assert (
        not written.startswith(b"\xef\xbb\xbf")
        and b" =" not in written
        and b"# wide" not in written
        and b"filters=99" not in written
    )
    for line in written.decode().splitlines():
        assert re.fullmatch(r"#.*|\[\w+\]|[\w]+=[^\s#;]*|", line), line


# --------------------------------------------------------------------------------------------------- .data
# and .names


@pytest.mark.parametrize(
    ("number", "text", "line", "words"),
    [
        (
            "28-backup-outside",
            "classes=1\ntrain=a\nvalid=b\nnames=hand.names\nbackup=../elsewhere\n",
            5,
            "out of the current folder",
        ),
        (
            "28-backup-hidden-climb",
            "classes=1\nbackup=out/../../elsewhere\ntrain=a\nvalid=b\n",
            2,
            "out of the current folder",
        ),
        ("29-names-too-few", "classes=2\ntrain=a\nvalid=b\nnames=hand.names\n", None, "2"),
        ("no-classes", "train=a\nvalid=b\nnames=hand.names\n", None, "classes"),
        ("classes-word", "classes=one\ntrain=a\nvalid=b\n", 1, "classes=one"),
        ("classes-0", "classes=0\ntrain=a\nvalid=b\n", 1, "classes=0"),
        ("no-equals", "classes=1\ntrain data\n", 2, "="),
        ("names-missing", "classes=1\ntrain=a\nvalid=b\nnames=nowhere.names\n", 4, "nowhere.names"),
        ("html", "<html>\n", None, "HTML"),
    ],
    ids=lambda v: v if isinstance(v, str) and v.replace("-", "").isalnum() and len(v) < 30 else "",
)
@pytest.mark.parametrize("script", ["train", "test"])
def test_a_bad_data_file(number, text, line, words, script, place, capfd):
    (place / "bad.data").write_text(text)
    before = snapshot(place)
    code, lines, _ = call(capfd, script, arguments(script, "net.cfg", "bad.data"))
    where = f"bad.data:{line}" if line else "hand.names" if number.startswith("29") else "bad.data"
    check(code, lines, where, words)
    assert snapshot(place) == before and not (place.parent / "elsewhere").exists()


def test_29_a_cfg_with_other_classes_than_the_data(place, capfd, trained):
    (place / "two.names").write_text("left\nright\n")
    (place / "two.data").write_text(
        "classes=2\ntrain=data/train.txt\nvalid=data/valid.txt\nnames=two.names\n"
    )
    before = snapshot(place)
    for script, more in (("train", []), ("test", ["--weights_path", str(trained)])):
        code, lines, _ = call(capfd, script, [*arguments(script, "net.cfg", "two.data"), *more])
        check(code, lines, "net.cfg:", "classes=2")
    assert snapshot(place) == before


# ------------------------------------------------------------------------------------------- shell characters
# in names

NASTY = "$(touch pwned); `touch pwned` & 'x' \"y\" *?.cfg"


def test_30_shell_characters_in_a_path_are_just_characters(place, trained):
    (place / NASTY).write_text(NET)
    shutil.copy(trained, place / "w; touch pwned.weights")
    out = ["--cfg_out", "out $(touch pwned).cfg", "--model_out", "out `touch pwned`.pth"]
    done = spawn(
        "test_prune",
        ["--model_def", NASTY, "--no_eval", "--model", "w; touch pwned.weights", "--percent", "0.3", *out],
        place,
    )
    assert done.returncode == 0, done.stderr
    assert (place / "out $(touch pwned).cfg").is_file() and (place / "out `touch pwned`.pth").is_file()
    assert not list(place.rglob("pwned"))


def test_30_in_an_error(place, capfd):
    (place / NASTY).write_text(edit("filters=12", "filters=$(touch pwned)"))
    before = snapshot(place)
    code, lines, _ = call(capfd, "test_prune", arguments("test_prune", NASTY))
    check(code, lines, f"{NASTY}:", "filters=$(touchpwned)")
    assert snapshot(place) == before


def test_a_line_break_or_escape_in_a_value_cannot_forge_a_line(place, capfd):
    """One fault is one line, whatever control characters the file holds."""
    (place / "bad.cfg").write_bytes(
        edit("filters=12", "filters=1\x1b[2J\u2028\x85error:all is well").encode()
    )
    code, lines, _ = call(capfd, "test_prune", arguments("test_prune", "bad.cfg"))
    check(code, lines, "bad.cfg:", "filters=1")
    assert "\x1b" not in lines[0]
