"""Darknet cfg text <-> `Cfg`, without loss.

A `Cfg` keeps every line as it was read, so that writing an unchanged one gives the same bytes. Values are
read as Darknet reads them: blanks vanish even inside a token, `#` and `;` open a comment at the start of a
line, the first `=` splits, the first of two equal keys wins. What Darknet would misread in silence (an
inline comment, a duplicate key) is accepted with a warning; what would crash it is an error with its line.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..base import files
from ..base.errors import CfgError, short
from . import schema

MAX_BYTES = 16 * files.MIB
MAX_SECTIONS = 20_000
MAX_LINES = 200_000  # the longest known cfg has 3,000
MAX_SHOWN = 10  # warnings about one file
MAX_KEYS = 500  # of one section; the longest known has about 60
ALIASES = {
    "network": "net",
    "conv": "convolutional",
    "max": "maxpool",
    "conn": "connected",
    "avg": "avgpool",
    "soft": "softmax",
    "lrn": "normalization",
    "silence": "silence",
}
_BLANKS = str.maketrans("", "", " \t\r\n")


@dataclass
class Entry:
    """One line of the file: its raw text with the line end, its number, and the key and value if it holds
    one.
    """

    raw: str
    line: int
    key: str | None = None
    value: str | None = None


@dataclass
class Section:
    """A `[section]` with its lines.

    Attributes:
        type: the canonical section type (`convolutional` for `[conv]`).
        index: layer number; -1 for `[net]`.
        line: line number of the header, from 1.
        entries: the header line and all lines up to the next header, comments and blank lines included.
    """

    type: str
    index: int
    line: int
    path: str
    entries: list[Entry] = field(default_factory=list)

    @property
    def place(self) -> str:
        """`file:line [type] layer N`, for messages."""
        return self.place_of(None)

    def place_of(self, key: str | None) -> str:
        """The place of a key's line, or of the header if the key is not there."""
        entry = self._entry(key) if key else None
        layer = f" layer {self.index}" if self.index >= 0 else ""
        return f"{self.path}:{entry.line if entry else self.line} [{self.type}]{layer}"

    @property
    def options(self) -> dict[str, str]:
        """Key -> raw value, in file order; of duplicate keys the first, as Darknet takes it."""
        found: dict[str, str] = {}
        for e in self.entries:
            if e.key is not None:
                found.setdefault(e.key, e.value)
        return found

    def get(self, key: str, default: str | None = None) -> str | None:
        """The raw value of a key, or `default`."""
        entry = self._entry(key)
        return entry.value if entry else default

    def set(self, key: str, value) -> None:
        """Gives a key a value: on its own line if it has one, else after the section's last key."""
        value = str(value)
        entry = self._entry(key)
        if entry is None:
            keyed = [i for i, e in enumerate(self.entries) if e.key is not None]
            at = keyed[-1] if keyed else 0
            previous = self.entries[at]
            end = _line_end(previous.raw) or "\n"
            if not _line_end(previous.raw):
                previous.raw += end
            self.entries.insert(at + 1, Entry(f"{key}={value}{end}", previous.line, key, value))
        elif entry.value != value:
            entry.value, entry.raw = value, f"{key}={value}{_line_end(entry.raw)}"

    def drop(self, key: str) -> None:
        """Takes out every line of a key; nothing changes if there is none."""
        self.entries = [e for e in self.entries if e.key != key]

    def _entry(self, key: str) -> Entry | None:
        return next((e for e in self.entries if e.key == key), None)


@dataclass
class Cfg:
    """A parsed cfg. `sections[0]` is `[net]`; layer i is `layers[i]`.

    Attributes:
        path: where it was read from, for messages.
        preamble: the lines before the first section.
        warnings: what was accepted although Darknet or another reader may take it differently.
        doubted: whether `cfg_doubts` has been through it.
    """

    path: str
    sections: list[Section]
    preamble: list[Entry] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    bom: bool = False
    doubted: bool = False

    @property
    def net(self) -> Section:
        """The `[net]` section."""
        return self.sections[0]

    @property
    def layers(self) -> list[Section]:
        """The layers, numbered from 0 as Darknet does."""
        return self.sections[1:]

    def _size(self, key: str) -> int:
        return schema.values(self.net)[key]

    @property
    def width(self) -> int:
        """Input width in pixels."""
        return self._size("width")

    @property
    def height(self) -> int:
        """Input height in pixels."""
        return self._size("height")

    @property
    def channels(self) -> int:
        """Input channels."""
        return self._size("channels")

    @property
    def text(self) -> str:
        """The whole file as text."""
        return "".join(e.raw for e in self._all_entries())

    def to_bytes(self) -> bytes:
        """The file's bytes: those that were read, if nothing was changed since."""
        return (b"\xef\xbb\xbf" if self.bom else b"") + self.text.encode("utf-8", "surrogateescape")

    @property
    def hash(self) -> str:
        """SHA-256 of the bytes, in hexadecimal."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def copy(self, path: str | None = None) -> Cfg:
        """An independent copy, optionally under another path."""
        twin = replace(self, preamble=_copies(self.preamble), warnings=list(self.warnings))
        twin.sections = [replace(s, entries=_copies(s.entries)) for s in self.sections]
        if path is not None:
            twin.path = path
            for section in twin.sections:
                section.path = path
        return twin

    def without(self, layers: Collection[int]) -> Cfg:
        """A copy without some layers, the rest numbered anew. What refers to layers by number is left as it
        was.

        Comments behind the last key of a section speak of what follows, so they stay when it goes. Line
        numbers remain those of the file that was read.
        """
        twin = self.copy()
        kept = [twin.net]
        for section in twin.layers:
            if section.index in layers:
                kept[-1].entries += _comments_behind(section)
            else:
                section.index = len(kept) - 1
                kept.append(section)
        twin.sections = kept
        return twin

    def _all_entries(self):
        yield from self.preamble
        for section in self.sections:
            yield from section.entries


def read_cfg(path) -> Cfg:
    """Reads a cfg file.

    Raises:
        CfgError: it cannot be read, is too large, is no text, or breaks the format.
    """
    return parse_cfg(files.read_bytes(path, "cfg", MAX_BYTES, CfgError), str(path))


def write_cfg(cfg: Cfg, path) -> None:
    """Writes a cfg atomically and reads it back."""

    def check(temporary: Path) -> None:
        if temporary.read_bytes() != cfg.to_bytes():
            raise CfgError(path, "came back from the disk changed")

    files.save(path, cfg.to_bytes(), check)


def parse_cfg(text: str | bytes, path: str = "<string>") -> Cfg:
    """Parses a cfg.

    Args:
        text: the file's bytes, or text.
        path: what to call it in messages.

    Raises:
        CfgError: with the line of the fault.
    """
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    _refuse_other_files(data, path)
    cfg = Cfg(path, [], bom=data.startswith(b"\xef\xbb\xbf"))
    if cfg.bom:
        _warn(
            cfg,
            f"{path}:1: the file opens with a byte order mark, on which Darknet crashes; it is left out of "
            "what is written",
        )
    lines = data[3 if cfg.bom else 0 :].decode("utf-8", "surrogateescape").split("\n")
    raws = [line + "\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    keys: dict[str | tuple[str, int], Entry] = {}  # of the section that is open; repeated ones by number
    for number, raw in enumerate(raws, 1):
        bare, entry = raw.translate(_BLANKS), Entry(raw, number)
        if not bare or bare[0] in "#;":  # a comment may be in any encoding
            (cfg.sections[-1].entries if cfg.sections else cfg.preamble).append(entry)
        elif bare[0] == "[":
            _open_section(cfg, bare, entry)
            keys = {}
        else:
            _key_line(cfg, bare, entry, keys)
    if not cfg.sections:
        raise CfgError(
            path, "holds no section", "a Darknet cfg starts with [net]", "check that this is the right file"
        )
    _tell(cfg)
    return cfg


def _key_line(cfg: Cfg, bare: str, entry: Entry, keys: dict) -> None:
    if not cfg.sections:
        raise CfgError(
            f"{cfg.path}:{entry.line}", f"{short(bare)} stands before the first section", "[net] first"
        )
    section = cfg.sections[-1]
    place = _at(section, entry.line)
    key, equals, value = bare.partition("=")
    if not equals:
        raise CfgError(
            place, f"{short(bare)} has no `=`", "key=value", "put a # before it if it is a comment"
        )
    if not key:
        raise CfgError(place, f"{short(bare)} has no key", "key=value")
    value, comment = _cut_comment(value)
    _refuse_other_bytes(place, f"{key}={value}")
    if comment:
        _warn(
            cfg,
            f"{place}: a comment behind a value ({short(comment)}) is left out here; "
            "other readers misread it",
        )
    first = keys.get(key)
    if first is not None:
        _warn(
            cfg,
            f"{place}: {key}={short(value)} repeats the key of line {first.line}; "
            f"the first, {key}={short(first.value)}, counts (OpenCV takes the last)",
        )
    if len(keys) == MAX_KEYS:
        raise CfgError(place, f"more than {MAX_KEYS} keys in one section", "a Darknet cfg")
    keys[key if first is None else (key, len(keys))] = entry
    entry.key, entry.value = key, value
    section.entries.append(entry)


def _open_section(cfg: Cfg, bare: str, entry: Entry) -> None:
    name, comment = _cut_comment(bare)
    _refuse_other_bytes(f"{cfg.path}:{entry.line}", name)
    if not name.endswith("]") or len(name) < 3:
        raise CfgError(f"{cfg.path}:{entry.line}", f"{short(bare)} is no section header", "[name]")
    if comment:
        _warn(
            cfg,
            f"{cfg.path}:{entry.line}: the comment behind {name} is left out here; Darknet cannot read such "
            "a header",
        )
    kind = ALIASES.get(name[1:-1], name[1:-1])
    if not cfg.sections and kind != "net":
        raise CfgError(f"{cfg.path}:{entry.line}", f"the first section is {short(name)}", "[net] first")
    if cfg.sections and kind == "net":
        raise CfgError(
            f"{cfg.path}:{entry.line}",
            f"a second [net]; the first is on line {cfg.sections[0].line}",
            "one [net]",
        )
    if len(cfg.sections) > MAX_SECTIONS:
        raise CfgError(
            f"{cfg.path}:{entry.line}",
            f"more than {MAX_SECTIONS:,} sections",
            "a network of at most that many layers",
        )
    cfg.sections.append(Section(kind, len(cfg.sections) - 1, entry.line, cfg.path, [entry]))


def _refuse_other_files(data: bytes, path: str) -> None:
    if len(data) > MAX_BYTES:
        raise CfgError(path, f"is {len(data):,} bytes long", f"a cfg has at most {MAX_BYTES:,}")
    kind = files.sniff(data)
    if kind:
        raise CfgError(path, f"is {kind}", "a Darknet cfg, which is plain text starting with [net]")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise CfgError(path, "is UTF-16 text", "UTF-8", "save it again as UTF-8")
    at = data.find(b"\0")
    if at >= 0:
        line = data.count(b"\n", 0, at) + 1
        raise CfgError(
            f"{path}:{line}", "holds a NUL byte", "plain text in UTF-8", "check that this is the right file"
        )
    lines = data.count(b"\n") + 1
    if lines > MAX_LINES:
        raise CfgError(path, f"has {lines:,} lines", f"a cfg has at most {MAX_LINES:,}")


def _refuse_other_bytes(place: str, text: str) -> None:
    """Bytes that are no UTF-8 were decoded to lone surrogates; only comments may hold them."""
    if any("\udc80" <= c <= "\udcff" for c in text):
        raise CfgError(
            place, "holds bytes that are no UTF-8", "plain text in UTF-8", "check that this is the right file"
        )


def _copies(entries: list[Entry]) -> list[Entry]:
    return [replace(entry) for entry in entries]


def _comments_behind(section: Section) -> list[Entry]:
    """The lines behind the last key (or the header) from the first comment on; none if all of them are
    blank.
    """
    last = max(i for i, e in enumerate(section.entries) if e.key is not None or i == 0)
    tail = section.entries[last + 1 :]
    first = next((i for i, e in enumerate(tail) if e.raw.strip()), len(tail))
    return tail[first:]


def _cut_comment(value: str) -> tuple[str, str]:
    at = min((i for i in (value.find("#"), value.find(";")) if i >= 0), default=-1)
    return (value, "") if at < 0 else (value[:at], value[at:])


def _line_end(raw: str) -> str:
    return "\r\n" if raw.endswith("\r\n") else "\n" if raw.endswith("\n") else ""


def _at(section: Section, number: int) -> str:
    layer = f" layer {section.index}" if section.index >= 0 else ""
    return f"{section.path}:{number} [{section.type}]{layer}"


def _warn(cfg: Cfg, message: str) -> None:
    cfg.warnings.append(message)


def _tell(cfg: Cfg) -> None:
    """Warns once the whole file is known to be a cfg, so that an error stands alone."""
    for message in shown(cfg.path, cfg.warnings):
        warnings.warn(message, stacklevel=3)


def shown(path: str, lines: list[str]) -> list[str]:
    """The first of many warnings and how many more there are: a hostile file fills no screen."""
    more = len(lines) - MAX_SHOWN
    return lines[:MAX_SHOWN] + ([f"{path}: and {more:,} more lines like these"] if more > 0 else [])
