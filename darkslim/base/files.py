"""Reading bytes that may be hostile, and writing files that took work to make.

Reading: `read_bytes` refuses folders, FIFOs, devices and oversized files before it reads them, and
`sniff` recognises what people save by mistake (an HTML page, a Git LFS pointer, a renamed checkpoint).

Writing: `save_all` is the one function that saves. Every file goes to a temporary name in its own
folder, is flushed and synced, is checked by reading it back, and only when *all* of a group have
passed are they moved into place. A kill at any moment leaves the old files whole.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from .errors import DarkslimError, FileError, RequestError

MIB = 1 << 20


def sniff(head: bytes) -> str | None:
    """Names a kind of file that is often found under the wrong name; None for anything else."""
    text = head[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "an HTML or XML page (a failed download?)"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer (run `git lfs pull`)"
    if head.startswith(b"PK\x03\x04"):
        return "a zip archive or PyTorch checkpoint (.pth)"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a Python pickle (an old PyTorch checkpoint?)"
    if head.startswith((b"\xff\xd8\xff", b"\x89PNG")):
        return "an image"
    return None


def check_regular(path, what: str, error: type[DarkslimError] = FileError) -> os.stat_result:
    """Raises `error` unless `path` is an existing regular file; returns its stat."""
    try:
        info = os.stat(path)
    except FileNotFoundError:
        raise error(path, f"no such {what}", remedy="check the path") from None
    except (OSError, ValueError) as e:
        raise error(path, f"this {what} cannot be opened ({getattr(e, 'strerror', None) or e})") from None
    if not stat.S_ISREG(info.st_mode):
        raise error(path, f"is {_kind(info)}", f"a {what}")
    return info


def _kind(info: os.stat_result) -> str:
    """What a path is that is no regular file."""
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(info.st_mode), "a special file")


def read_head(path, what: str, size: int, error: type[DarkslimError] = FileError) -> bytes:
    """The first `size` bytes of a regular file of any length."""
    check_regular(path, what, error)
    try:
        with open(path, "rb") as f:
            return f.read(size)
    except OSError as e:
        raise error(path, f"this {what} cannot be read ({e.strerror or e})") from None


def check_writable(path) -> None:
    """Raises FileError now, not after the work, for a path that `save` could not write. Makes nothing."""
    path = Path(path)
    try:
        _check_target(path)
        folder = path.absolute().parent
        while not folder.exists():
            folder = folder.parent
        writable = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    except (OSError, ValueError) as e:
        raise FileError(
            path, f"cannot be written ({getattr(e, 'strerror', None) or e})", remedy="choose another name"
        ) from None
    if not writable:
        raise FileError(
            path,
            f"cannot be written: {folder} is {'read-only' if folder.is_dir() else 'no folder'}",
            remedy="choose another folder",
        )


def _check_target(path: Path) -> None:
    """Refuses to replace a folder, and a device or FIFO, which a rename would turn into a plain file."""
    if path.exists() and not path.is_file():
        raise FileError(path, f"is {_kind(path.stat())}", "a file name")


def read_bytes(path, what: str, cap: int, error: type[DarkslimError] = FileError) -> bytes:
    """The content of a regular file of at most `cap` bytes.

    Args:
        what: the kind of file, for messages ("cfg", "weights file", ...).
        error: the exception class to raise.
    """
    info = check_regular(path, what, error)
    if info.st_size > cap:
        raise error(path, f"is {info.st_size:,} bytes long", f"a {what} has at most {cap:,}")
    try:
        with open(path, "rb") as f:
            return f.read(info.st_size + 1)  # room for the whole cap would be taken at once
    except OSError as e:
        raise error(path, f"this {what} cannot be read ({e.strerror or e})") from None


def check_outputs(writes: dict[str, str | Path | None], reads: dict[str, str | Path | None]) -> None:
    """Refuses, before any work, what a command could not write at its end, or must not.

    Args:
        writes, reads: flag -> path; None where there is none.

    Raises:
        RequestError: an output is a file that is read, or another output.
        FileError: an output cannot be written.
    """
    seen: dict[str, str] = {}
    for flag, path in writes.items():
        if path is None:
            continue
        for other, source in reads.items():
            if source is not None and _same(path, source):
                raise RequestError(
                    flag, f"{path} is what {other} reads", "another file: inputs are never overwritten"
                )
        real = os.path.realpath(path)
        if real in seen:
            raise RequestError(flag, f"{path} is what {seen[real]} names", "files of their own")
        seen[real] = flag
        check_writable(path)


def _same(a, b) -> bool:
    return os.path.realpath(a) == os.path.realpath(b) or (
        os.path.exists(a) and os.path.exists(b) and os.path.samefile(a, b)
    )


@dataclass(frozen=True)
class Save:
    """One file to be written by `save_all`.

    Attributes:
        path: where it goes.
        write: called with a temporary path; writes the whole file there. Bytes or text stand for themselves.
        check: called with the temporary path once it is on disk; raises to refuse it.
    """

    path: Path | str
    write: Callable[[Path], None] | bytes | str
    check: Callable[[Path], None] | None = None


def save(
    path, write: Callable[[Path], None] | bytes | str, check: Callable[[Path], None] | None = None
) -> None:
    """Writes one file as `save_all` does."""
    save_all([Save(path, write, check)])


def free_number(paths: Iterable[Path], stem: str | None = None) -> int:
    """The first number that no file of the group has: `stem.1.pth` and `stem.1.weights` are both free."""
    number, paths = 1, list(paths)
    while any(os.path.lexists(numbered(path, number, stem)) for path in paths):
        number += 1
    return number


def numbered(path: Path, number: int, stem: str | None = None) -> Path:
    """`ckpt.pth` -> `ckpt.1.pth`; `ckpt.last.pth` of the stem `ckpt` -> `ckpt.1.last.pth`."""
    stem = stem if stem and path.name.startswith(stem) else path.stem
    return path.with_name(f"{stem}.{number}{path.name[len(stem) :]}")


def set_aside(paths: Iterable[Path], stem: str) -> list[str]:
    """Gives files that are there a second name with a number, one for all of them, so that what comes under
    their first names loses nothing.

    Returns:
        A sentence a file.
    """
    paths = list(paths)
    number, told = free_number(paths, stem), []
    for old in paths:
        if old.exists():
            new = numbered(old, number, stem)
            link(old, new)
            told.append(f"the earlier {old} is now {new}")
    return told


def link(old: Path, new: Path) -> None:
    """A second name for a file, so that it is never without one; a copy where the file system has no
    links.
    """
    try:
        os.link(old, new)
    except OSError:
        save(new, lambda temp: shutil.copyfile(old, temp))


def save_all(
    files: Iterable[Save], check: Callable[[dict[Path, Path]], None] | None = None, keep_old: bool = False
) -> list[str]:
    """Writes a group of files: all of them, each proven, or none.

    Args:
        files: what to write.
        check: called once with {final path: temporary path} when every file is on disk, to prove them
            together.
        keep_old: what is there under these names gets a number, all of it before the first new file comes:
            a kill between two renames leaves a file missing under its name, and never files of two groups
            beside each other. Files that say the same already are only replaced.

    Returns:
        A sentence for every file that got a number.

    Raises:
        FileError: a folder is missing or read-only, the disk is full; and whatever a check raises.
        The temporaries are removed, folders made for them too, and the old files are untouched in either
        case.
    """
    files = list(files)
    temporary: dict[Path, Path] = {}
    absent = {folder for item in files for folder in Path(item.path).parents if not os.path.lexists(folder)}
    try:
        for item in files:
            final = Path(item.path)
            temporary[final] = _write_temporary(final, item.write)
            if item.check:
                item.check(temporary[final])
        if check:
            check(dict(temporary))
        told = _move(temporary, keep_old)
        for folder in {Path(item.path).parent for item in files}:
            _sync_folder(folder)
        return told
    except OSError as e:
        place = next(iter(temporary), None) or e.filename or "files"
        raise FileError(
            place,
            f"cannot be written ({e.strerror or e})",
            remedy="check the folder and the space on the disk",
        ) from e
    finally:
        for temp in temporary.values():
            temp.unlink(missing_ok=True)
        for folder in sorted(absent, key=lambda f: len(f.parts), reverse=True):
            with contextlib.suppress(OSError):
                folder.rmdir()  # fails for those that now hold files


def _move(temporary: dict[Path, Path], keep_old: bool) -> list[str]:
    """Renames a group of temporaries to their final names; on an error everything is as it was."""
    there = [final for final in temporary if os.path.lexists(final)]
    keep_old = keep_old and not all(filecmp.cmp(final, temporary[final], shallow=False) for final in there)
    number = free_number(temporary) if keep_old else 0
    old: dict[Path, Path] = {}
    done: dict[Path, Path] = {}
    try:
        for final in there if len(temporary) > 1 or keep_old else ():
            aside = numbered(final, number) if keep_old else temporary[final].with_suffix(".old.tmp")
            (os.replace if keep_old else link)(final, aside)
            old[final] = aside
        for final, temp in list(temporary.items()):
            os.replace(temp, final)
            done[final] = temporary.pop(final)
    except BaseException:
        for final, temp in done.items():
            os.replace(final, temp)
            temporary[final] = temp  # to be removed
        for final, aside in old.items():
            os.replace(aside, final)
            aside.unlink(missing_ok=True)  # of two names of one file, a rename leaves both
        raise
    if keep_old:
        return [f"the earlier {final} is now {aside}" for final, aside in old.items()]
    for aside in old.values():
        with contextlib.suppress(OSError):
            aside.unlink()
    return []


def _write_temporary(final: Path, write) -> Path:
    try:
        _check_target(final)
        final.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{final.name[:80]}.", suffix=".tmp", dir=final.parent)
    except (OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or e
        raise FileError(final, f"cannot be written ({reason})", remedy="choose another folder") from None
    os.close(handle)
    temp = Path(name)
    try:
        if callable(write):
            write(temp)
        else:
            temp.write_bytes(write.encode() if isinstance(write, str) else write)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temp, 0o666 & ~umask)  # mkstemp makes files that only their owner can read
        with open(temp, "rb+") as f:
            os.fsync(f.fileno())
    except BaseException as e:
        temp.unlink(missing_ok=True)
        if isinstance(e, OSError):
            raise FileError(
                final, f"cannot be written ({e.strerror or e})", remedy="check the space on the disk"
            ) from e
        raise
    return temp


def _sync_folder(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # some file systems cannot open folders; the files themselves are synced
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
