"""Pictures of a report page (--report DIR) on a phone and on a desk, by headless Chromium.

    python benchmarks/screenshots.py runs/page/index.html docs/pictures/report

Writes NAME_390.png and NAME_1400.png, 390 and 1400 pixels wide and as high as the page is, and refuses a page
that is wider than its window or asks for anything from anywhere. --without-photographs leaves out the
detections side by side, whose pictures may belong to somebody.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from darkslim import commands
from darkslim.base.errors import RequestError

WIDTHS = (390, 1400)
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync", "--disable-quic"]
QUIET += ["--disable-background-networking", "--disable-component-update", "--hide-scrollbars"]
PHOTOGRAPHS = "<style>.pair { display: none }</style></head>"


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("page", help="index.html of a report")
    p.add_argument("name", help="of the pictures, without _390.png")
    p.add_argument("--without-photographs", action="store_true", help="leave out what detections lie on")
    p.add_argument("--highest", type=commands.count(100), default=6000, help="pixels of a picture")
    return p


def framed(html: str, width: int, height: int) -> str:
    """The page in a frame of a width, for windows have a least one. The title tells its size."""
    size = "d.scrollWidth + ' ' + d.body.scrollHeight"
    told = f"const d = f.contentDocument.documentElement; document.title = {size}".replace("d.body", "d")
    frame = f'<iframe id=f width={width} height={height} style="border:0" onload="{told}"'
    return f'<!doctype html><title></title><style>body{{margin:0}}</style>{frame} srcdoc="{html}"></iframe>'


def main(args) -> dict:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        raise RequestError("chromium", "is not installed", remedy="install it, or google-chrome")
    page = Path(args.page).read_text()
    asked = re.findall(r"""(?:src|href)=["'](?!data:|#)([^"']+)""", page)
    if asked:
        raise RequestError(args.page, f"asks for {asked[0]}", "a page with everything in it")
    html = re.sub(r"<meta http-equiv.*?>", "", page)  # its own policy allows no frame around it
    if args.without_photographs:
        html = html.replace("</head>", PHOTOGRAPHS)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        words = [browser, *QUIET, f"--user-data-dir={folder}/profile"]
        file = Path(folder) / "page.html"
        for width in WIDTHS:
            file.write_text(framed(escape(html), width, 800))
            told = [*words, "--window-size=1600,900", "--dump-dom", f"file://{file}"]
            done = subprocess.run(told, capture_output=True, text=True, timeout=120)
            size = re.search(r"<title>(\d+) (\d+)</title>", done.stdout)
            if size is None or int(size[1]) > width:
                raise RequestError(args.page, f"{size and size[1]} pixels wide", f"at most {width}")
            height = min(int(size[2]), args.highest)
            file.write_text(framed(escape(html), width, height))
            picture = Path(f"{args.name}_{width}.png")
            shot = [
                *words,
                f"--window-size={max(width, 500)},{height + 100}",
                f"--screenshot={folder}/shot.png",
            ]
            subprocess.run([*shot, f"file://{file}"], capture_output=True, timeout=120, check=True)
            with Image.open(f"{folder}/shot.png") as image:
                image.crop((0, 0, width, height)).convert("P", palette=Image.Palette.ADAPTIVE).save(picture)
            found[width] = {"file": str(picture), "height": int(size[2])}
            print(f"{picture}: {width} x {height} of {size[2]}")
    return {"pictures": found}


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
