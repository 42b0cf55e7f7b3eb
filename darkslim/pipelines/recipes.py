"""Recipes: settings of slim in short files, config/recipes/NAME.ini. They are data: no branch of code knows
one by name.

    [slim]
    score = taylor
    iterative_steps = 8

Keys are the settings of slim. What a recipe says comes before the defaults, and behind what the caller says.
"""

from __future__ import annotations

import configparser
from pathlib import Path

from ..base.errors import FileError, RequestError
from ..base.options import read_values
from ..data.datafile import read_text

FOLDER = Path("config/recipes")
PACKAGE = Path(__file__).resolve().parents[1]
FOLDERS = (FOLDER, PACKAGE.parent / FOLDER, PACKAGE / FOLDER)  # here, of the checkout, of an installation
MAX_BYTES = 1 << 16
SECTION = "slim"
NOT_HERE = ("recipe", "work", "weights", "model_def", "data_config", "choose_on", "seed", "device")  # a run's


def read_recipe(name: str, kind: type) -> dict[str, object]:
    """What a recipe sets of a class of settings: of the file, where `name` looks like a path, else of
    config/recipes/NAME.ini.

    Raises:
        RequestError, FileError: with the place of what is wrong.
    """
    path = find(name)
    reader = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        reader.read_string(read_text(path, "recipe", MAX_BYTES, FileError), str(path))
    except configparser.Error as e:
        reason = " ".join(str(e).split())[:160]
        raise RequestError(
            path, f"is no recipe ({reason})", f"[{SECTION}] and lines of key = value"
        ) from None
    if reader.sections() != [SECTION]:
        raise RequestError(
            path, f"has sections {', '.join(reader.sections()) or 'none'}", f"one section, [{SECTION}]"
        )
    texts = dict(reader[SECTION])
    for key in NOT_HERE:
        if key in texts:
            raise RequestError(path, f"sets {key}", "what a run says itself", "give it on the command line")
    return read_values(kind, texts, str(path))


def find(name: str) -> Path:
    """The file of a recipe."""
    if Path(name).suffix == ".ini" or "/" in name:
        return Path(name)
    for folder in FOLDERS:
        if (folder / f"{name}.ini").is_file():
            return folder / f"{name}.ini"
    known = sorted({p.stem for folder in FOLDERS for p in folder.glob("*.ini")})
    raise RequestError(
        "--recipe", f"{name!r} is none", "one of " + ", ".join(known) + ", or a file that ends in .ini"
    )
