"""The cfg text: nothing is lost, everything odd is said."""

import random
import time
import warnings

import pytest

from darkslim.base.errors import CfgError
from darkslim.network.cfg import parse_cfg, read_cfg, write_cfg
from darkslim.network.cfg_doubts import doubts
from darkslim.network.cfg_plain import plain
from darkslim.network.graph import Graph
from darkslim.network.schema import values

BASE = (
    "[net]\nwidth=32\nheight=32\nchannels=3\n\n# a "
    "comment\n[convolutional]\nfilters=4\nsize=3\nstride=1\npad=1\nactivation=leaky\n"
)


HEAD = "[convolutional]\nfilters=12\n\n[yolo]\nanchors=9,9, 5,5\nmask=0,1\nnum=2\nclasses=1\n"


def test_golden_cfgs_come_back_byte_for_byte(golden, tmp_path):
    cfgs = sorted(golden.glob("*/net.cfg"))
    assert len(cfgs) == 17
    for path in cfgs:
        write_cfg(read_cfg(path), tmp_path / "net.cfg")
        assert (tmp_path / "net.cfg").read_bytes() == path.read_bytes()


def test_odd_but_legal_text_comes_back_byte_for_byte():
    rng = random.Random(0)
    pieces = [
        "\n",
        "# x\n",
        ";y\n",
        "  \t\n",
        "size = 3\r\n",
        "\tfil ters= 8\n",
        "pad=1  # why\n",
        "odd\u00e9=\u4e2d\n",
        "size=5\n",
    ]
    for _ in range(200):
        text = "# top\n[net]\nwidth=1\n" + "".join(
            f"[ conv{'olutional' * rng.randint(0, 1)} ]\n" + "".join(rng.choices(pieces, k=6))
            for _ in range(rng.randint(0, 5))
        )
        text = text[: len(text) - rng.randint(0, 1)]  # with and without a last line end
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert parse_cfg(text).to_bytes() == text.encode()


def test_blanks_vanish_inside_tokens_and_the_first_equals_splits():
    cfg = parse_cfg("[net]\nwi dth = 4 16\nhe\tight=32\nchannels=3\ninputs=a=b\n")
    assert cfg.width == 416 and cfg.height == 32
    assert cfg.net.get("inputs") == "a=b"


def test_first_duplicate_counts_and_both_lines_are_named():
    with pytest.warns(UserWarning, match=r"x.cfg:5 \[net\]: width=64 repeats the key of line 2"):
        cfg = parse_cfg("[net]\nwidth=32\nheight=32\nchannels=3\nwidth=64\n", "x.cfg")
    assert cfg.width == 32


def test_aliases_are_understood():
    cfg = parse_cfg("[network]\nwidth=1\n[conv]\n[max]\n[avg]\n")
    assert [s.type for s in cfg.sections] == ["net", "convolutional", "maxpool", "avgpool"]


def test_setting_a_key_touches_its_line_only():
    cfg = parse_cfg(BASE.replace("\n", "\r\n"))
    cfg.layers[0].set("filters", 2)
    assert cfg.text == BASE.replace("filters=4", "filters=2").replace("\n", "\r\n")
    cfg.layers[0].set("groups", 2)
    assert cfg.text.endswith("activation=leaky\r\ngroups=2\r\n")


def test_dropping_a_key_takes_all_its_lines_and_no_other():
    with pytest.warns(UserWarning, match="repeats the key"):
        cfg = parse_cfg(BASE.replace("size=3\n", "size=3\n# about pads\npad=0\n"))
    cfg.layers[0].drop("pad")
    assert cfg.text == BASE.replace("size=3\n", "size=3\n# about pads\n").replace("pad=1\n", "")
    cfg.layers[0].drop("pad")
    assert cfg.layers[0].get("pad") is None and parse_cfg(cfg.text).text == cfg.text


def test_a_copy_is_independent():
    cfg = parse_cfg(BASE)
    twin = cfg.copy("other.cfg")
    twin.layers[0].set("filters", 1)
    assert cfg.text == BASE and twin.layers[0].place.startswith("other.cfg:7 [convolutional] layer 0")


def test_layers_are_taken_out_and_the_rest_is_numbered_anew():
    head = "# top\n[net]\nwidth=8\n\n"
    parts = [
        "# a\n[conv]\nfilters = 4\n\n",
        "[route]\n# inside\nlayers=-1\n; b\n\n",
        "[dropout]\n\n",
        "[maxpool]\nsize=2\n\n# end",
    ]
    cfg = parse_cfg(head + "".join(parts), "x.cfg")
    less = cfg.without({1, 2})
    assert less.text == head + parts[0] + "; b\n\n" + parts[3]
    assert [(s.type, s.index) for s in less.sections] == [("net", -1), ("convolutional", 0), ("maxpool", 1)]
    assert less.layers[1].place == "x.cfg:16 [maxpool] layer 1"  # where it stands in the file that was read
    assert cfg.text == head + "".join(parts) and [s.index for s in cfg.layers] == [0, 1, 2, 3]
    assert cfg.without({0}).text == head + "# a\n" + "".join(
        parts[1:]
    )  # what stands before a header is of the section before it
    assert cfg.without({3}).text == head + "".join(parts[:3]) + "# end"
    assert cfg.without(()).to_bytes() == cfg.to_bytes()
    assert cfg.without(range(4)).text == head + "# a\n; b\n\n# end"


def test_normalised_leaves_nothing_to_misread():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cfg = parse_cfg(
            "\ufeff# top\n[net]\nwidth = 32\nheight=32\nchannels=3\n[conv] # head\nfilters=4 # "
            "four\nfilters=5\n"
            "batch_normalize=0\n"
        )
        text = plain(cfg).text
    assert text == (
        "# top\n[net]\nwidth=32\nheight=32\nchannels=3\n[convolutional]\nfilters=4\nsize=1\nstride=1\n"
        "activation=logistic\n\n"
    )
    assert not parse_cfg(text).warnings


@pytest.mark.parametrize("end", ["", "\r\n", "\r\n\r\n"])
def test_what_is_written_ends_lines_as_darknet_reads_them(end):
    """Darknet keeps the CR of a header and crashes; a last line without an end, too."""
    text = plain(parse_cfg(BASE.replace("\n", "\r\n").rstrip() + end)).text
    assert text == BASE + "\n"


def test_comments_may_be_in_any_encoding_and_stay_as_they_are(tmp_path):
    raw = "[net]\nwidth=32\n# 한국어\n; 이미지\nheight=32  # 높이\nchannels=3\n".encode("cp949")
    with pytest.warns(UserWarning, match="a comment behind a value"):
        cfg = parse_cfg(raw)
    assert cfg.to_bytes() == raw and cfg.height == 32
    write_cfg(plain(cfg), tmp_path / "new.cfg")
    assert "한국어".encode("cp949") in (tmp_path / "new.cfg").read_bytes()


def test_names_that_other_programs_give_activations():
    with pytest.warns(UserWarning, match="x.cfg:12 .*silu is taken for swish"):
        graph = Graph(parse_cfg(BASE.replace("leaky", "silu") + HEAD, "x.cfg"))
    assert graph.nodes[0].opts["activation"] == "swish"
    assert "activation=swish\n" in plain(graph.cfg).text and "silu" not in plain(graph.cfg).text


@pytest.mark.parametrize("name", ["h_swish", "hard_swish", "hardswish", "hard_mish", "prelu"])
def test_another_function_is_no_misspelling(name):
    with pytest.raises(CfgError, match="not supported") as e:
        values(parse_cfg(BASE.replace("leaky", name)).layers[0])
    assert "did you mean" not in str(e.value)


def test_steps_without_as_many_scales():
    net = "policy=steps\nsteps=100,200\nscales=.1\n"
    with pytest.warns(UserWarning, match=r"2 steps and 1 scales, on which Darknet crashes"):
        Graph(parse_cfg(BASE.replace("channels=3\n", "channels=3\n" + net) + HEAD))


def test_more_anchors_announced_than_given():
    head = HEAD.replace("num=2", "num=6")
    with pytest.warns(UserWarning, match="num=6 with 2 anchors: .*; write num=2"):
        graph = Graph(parse_cfg(BASE + head))
    assert len(graph.nodes[-1].opts["anchors"]) == 2
    with pytest.raises(CfgError, match="names anchor 2 of 2"):
        Graph(parse_cfg(BASE + head.replace("mask=0,1", "mask=1,2")))


def test_heads_of_other_class_counts_name_both_lines():
    two = BASE + HEAD + "[route]\nlayers=0\n" + HEAD.replace("classes=1", "classes=2").replace("=12", "=14")
    with pytest.raises(CfgError, match=r"x.cfg:30 \[yolo\] .*2 classes, and the \[yolo\] at line 16 has 1"):
        Graph(parse_cfg(two, "x.cfg"))


def test_a_hundred_thousand_unknown_keys_take_no_time():
    body = "".join("[dropout]\n" + "".join(f"{s}k{i}=1\n" for i in range(400)) for s in range(300))
    start = time.thread_time()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        Graph(parse_cfg(BASE + body + HEAD.replace("filters=12", "filters=12")))
    assert len(said) == 11 and "119,990 more" in str(said[-1].message)
    assert time.thread_time() - start < 4


def test_comments_by_the_thousand_take_no_time():
    start = time.thread_time()
    text = BASE + "# x\n" * 150_000 + "".join(f"k{i}=1\n" for i in range(400))
    assert parse_cfg(text).to_bytes() == text.encode() and time.thread_time() - start < 4


def test_unknown_keys_name_the_nearest_known_one():
    cfg = parse_cfg(BASE.replace("filters=4", "filter=64"), "x.cfg")
    assert doubts(cfg) == ["x.cfg:8 [convolutional] layer 0: unknown key filter=64; did you mean filters?"]


def test_typed_values_and_defaults():
    opts = values(parse_cfg(BASE).layers[0])
    assert (opts["filters"], opts["groups"], opts["activation"], opts["batch_normalize"]) == (
        4,
        1,
        "leaky",
        0,
    )
    head = parse_cfg("[net]\nwidth=1\n[yolo]\nanchors=1,2, 3,4,\nmask=0,1\nnum=2\n").layers[0]
    assert values(head)["anchors"] == ((1, 2), (3, 4)) and values(head)["classes"] == 20


@pytest.mark.parametrize(
    "text, place, found",
    [
        (b"", "x.cfg", "holds no section"),
        (b"# only\n\n; comments\n", "x.cfg", "holds no section"),
        (b"[convolutional]\n", "x.cfg:1", "the first section is [convolutional]"),
        (b"width=3\n[net]\n", "x.cfg:1", "before the first section"),
        (b"<!DOCTYPE html>\n<html>", "x.cfg", "HTML"),
        (b"[net]\nwidth\n", "x.cfg:2 [net]", "has no `=`"),
        (b"[net]\n=3\n", "x.cfg:2 [net]", "has no key"),
        (b"[net]\nwidth=1\n[net]\n", "x.cfg:3", "a second [net]"),
        (b"[net\n", "x.cfg:1", "no section header"),
        ("[net]\n".encode("utf-16"), "x.cfg", "UTF-16"),
        (b"[net]\nwi\0dth=1\n", "x.cfg:2", "NUL"),
        (b"[net]\n\n\xff=1\n", "x.cfg:3 [net]", "no UTF-8"),
        (b"[net]\n" + b"[route]\n" * 20_002, "x.cfg:20002", "more than 20,000 sections"),
        (b"[net]\n#" + b"x" * 17_000_000, "x.cfg", "17,000,007 bytes"),
    ],
)
def test_broken_files_name_their_line(text, place, found):
    with pytest.raises(CfgError) as e:
        parse_cfg(text, "x.cfg")
    assert e.value.place == place and found in str(e.value)


@pytest.mark.parametrize(
    "line, message",
    [
        (
            "filters=abc",
            r"x.cfg:3 \[convolutional\] layer 0: filters=abc; expected a whole number of at least 1",
        ),
        ("filters=0", "filters=0; expected a whole number of at least 1"),
        ("filters=1e400", "filters=1e400; expected a whole number"),
        ("stride=0", "stride=0"),
        ("activation=leeky", "did you mean leaky"),
        ("antialiasing=1", "antialiasing=1; expected 0: this variant is not supported"),
        ("filters=nan", "filters=nan"),
    ],
)
def test_values_out_of_range(line, message):
    with pytest.raises(CfgError, match=message):
        values(parse_cfg(f"[net]\n[convolutional]\n{line}\n", "x.cfg").layers[0])


def test_unknown_sections():
    with pytest.raises(
        CfgError, match=r"\[convolutionl\] is no section of Darknet; did you mean \[convolutional\]"
    ):
        values(parse_cfg("[net]\n[convolutionl]\n").layers[0])
    with pytest.raises(CfgError, match=r"\[Gaussian_yolo\] layers are not supported"):
        values(parse_cfg("[net]\n[Gaussian_yolo]\n").layers[0])
