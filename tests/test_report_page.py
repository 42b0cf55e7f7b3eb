"""The page of a job: one file with everything in it, words for pictures, no request to anywhere."""

from __future__ import annotations

import base64
import importlib
import io
import re
import shlex
import shutil
import subprocess
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from commands import TINY, perform, picture, tiny_model, write
from PIL import Image

from darkslim.latency import Timing
from darkslim.network.weights import save_weights
from darkslim.pipelines import PruneSettings
from darkslim.pipelines.measured_page import command_line
from darkslim.report.page import Page, Section, Table, Text

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Elements(HTMLParser):
    """(tag, attributes) of all elements, and the text."""

    def __init__(self, html: str):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = TINY.replace("filters=6", "filters=12") * 1
    write(tmp_path / "net.cfg", text)
    save_weights(tiny_model(text), "net.weights")
    for i in range(3):
        picture(tmp_path / "images" / f"{i}.png", (40, 30))
        write(tmp_path / "labels" / f"{i}.txt", f"{i % 2} 0.5 0.5 0.25 0.25\n")
    write(tmp_path / "list.txt", "".join(f"images/{i}.png\n" for i in range(3)))
    write(tmp_path / "two.names", "<b>red</b>\ngreen\n")  # names come from files that anybody wrote
    write(tmp_path / "two.data", "classes=2\ntrain=list.txt\nvalid=list.txt\nnames=two.names\n")
    module = importlib.import_module("darkslim.pipelines.measured_page")
    times = {"torch": [Timing(0.02, 0.01, 9), Timing(0.01, 0.01, 9)], "ncnn": None}
    monkeypatch.setattr(module, "engine_times", lambda networks, size, progress: times)
    return tmp_path


COMMON = ("--model_def", "net.cfg", "--data_config", "two.data", "--device", "cpu", "--n_cpu", "0")
JOBS = {
    "prune": ("test_prune", "--model", "net.weights", "--percent", "0.5"),
    "no data": ("test_prune", "--model", "net.weights", "--percent", "0.5", "--no_eval"),
    "sparsify": ("compress", "sparsify", "--weights", "net.weights"),
    "surgery": ("compress", "surgery", "--weights", "net.weights", "--epochs", "2", "--batch_size", "2"),
    "pack": ("compress", "pack", "--weights", "net.weights"),
    "slim": ("slim", "--weights", "net.weights", "--sparse_epochs", "1", "--finetune_epochs", "1"),
}


@pytest.mark.draws
@pytest.mark.parametrize("job", JOBS)
def test_pages_of_every_job(place, capfd, job):
    name, *words = JOBS[job]
    words = [*words[:1], *COMMON, *words[1:]] if name == "compress" else [*COMMON, *words]
    if name == "test_prune":
        words += ["--cfg_out", "out.cfg", "--model_out", "out.pth"]
    code, said = perform(capfd, name, [*words, "--report", "page"])
    assert code == 0, said.err
    assert "page/index.html" in said.out
    html = Path("page/index.html").read_text()
    page = Elements(html)
    assert not page.of("script") and not page.of("link") and not page.of("iframe")
    assert not re.search(r"https?://", html), "a page asks nobody for anything"
    for image in page.of("img"):
        assert image["alt"].strip()
        kind, data = re.fullmatch(r"data:image/(png|jpeg);base64,(.*)", image["src"]).groups()
        assert Image.open(io.BytesIO(base64.b64decode(data))).format.lower() == kind
    assert page.of("html")[0]["lang"] == "en" and any(m.get("name") == "viewport" for m in page.of("meta"))
    ids = {one["id"] for _, one in page.found if "id" in one}
    links = [one["href"] for one in page.of("a")]
    assert len(links) > 3 and all(link[1:] in ids for link in links)
    assert "parameters" in page.text and "20.0 ±1%" in page.text and "Not installed" in page.text
    told = page.text[page.text.index("To do it again", page.text.index("20.0 ±1%")) :]
    assert "python " in told and "--report page" in told
    if job != "no data":
        assert "<b>red</b>" in page.text and "<b>red</b>" not in html, "names are shown, not obeyed"
        assert "mAP50" in page.text and len(page.of("img")) >= 4


@pytest.mark.draws
def test_the_command_of_a_page_makes_the_page_again(place, capfd):
    words = [*COMMON, "--model", "net.weights", "--percent", "0.5", "--cfg_out", "out.cfg"]
    words += ["--model_out", "out.pth", "--report", "page", "--fold", "none"]
    assert perform(capfd, "test_prune", words)[0] == 0
    page = Elements(Path("page/index.html").read_text()).text
    again = re.search(r"python test_prune\.py(?:[^\n]*\\\n)*[^\n]*", page)[0].replace("\\\n", " ")
    before = Path("out.weights").read_bytes()
    assert perform(capfd, "test_prune", shlex.split(again)[2:])[0] == 0
    assert Path("out.weights").read_bytes() == before


def test_flags_of_settings():
    settings = PruneSettings(target_macs=(0.25, False), no_eval=True, model="a b.pth")
    line = command_line(settings, "test_prune.py").replace("\\\n", " ")
    assert shlex.split(line) == [
        *("python", "test_prune.py", "--target-macs", "0.25", "--model", "a b.pth", "--no_eval")
    ]
    for value, text in (((2e9, True), "2000M"), ((0.02, True), "20ms")):
        kind = "target_macs" if text.endswith("M") else "target_latency"
        assert text in command_line(PruneSettings(**{kind: value}), "test_prune.py")


def test_folders_that_cannot_be(place, capfd):
    words = [*COMMON, "--model", "net.weights", "--percent", "0.5", "--no_eval", "--report", "net.cfg"]
    code, said = perform(capfd, "test_prune", words)
    assert code == 2 and "net.cfg is a file" in said.err
    words = [*COMMON, "--model", "net.weights", "--sweep", "--report", "page"]
    code, said = perform(capfd, "test_prune", words)
    assert code == 2 and "--report: given with --sweep" in said.err


def test_what_is_empty_is_left_out_and_text_is_only_text():
    rows = [["a <i>", 0.5, "x"]]
    page = Page(
        "<t>", "s & s", [Section("emptiness", []), Section("one", [Table("c", ["a", "", "b"], rows)])]
    )
    html = page.html()
    assert "emptiness" not in Elements(html).text and "&lt;t&gt;" in html and "a &lt;i&gt;" in html
    assert 'aria-label="50%"' in html


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_is_wider_than_the_window(tmp_path, width):
    wide = Table("wide", [f"column {i}" for i in range(30)], [["x" * 20] * 30])
    html = Page("word" * 60, "s", [Section("one", [wide, Text("path/" * 80)])]).html()
    inner = escape(re.sub(r"<meta http-equiv.*?>", "", html))  # windows have a least width, frames have none
    told = "document.title = 'width ' + f.contentDocument.documentElement.scrollWidth"
    frame = (
        f'<iframe id=f width={width} height=800 style="border:0" onload="{told}" srcdoc="{inner}"></iframe>'
    )
    write(tmp_path / "page.html", f"<!doctype html><title></title>{frame}")
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    words += ["--disable-background-networking", "--disable-component-update", "--disable-quic"]
    words += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1600,900", "--dump-dom"]
    done = subprocess.run(
        [CHROMIUM, *words, f"file://{tmp_path}/page.html"], capture_output=True, text=True, timeout=120
    )
    found = re.search(r"<title>width (\d+)</title>", done.stdout)
    assert found and int(found[1]) <= width, done.stdout[:300]
