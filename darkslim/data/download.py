"""Fetching an archive: resumed after a break, verified, unpacked without trusting it."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from ..base import files
from ..base.errors import DatasetError, RequestError

OXFORD = "https://www.robots.ox.ac.uk/~vgg/data/hands/downloads/hand_dataset.tar.gz"
CHUNK = 1 << 18
MAX_ARCHIVE = 8 << 30
MAX_UNPACKED = 32 << 30
MAX_MEMBERS = 200_000


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to http."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https":
            raise RequestError(req.full_url, f"redirects to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check_url(url: str) -> None:
    """Raises RequestError unless the URL is https, or http on this very machine."""
    parts = urlsplit(url)
    if not (
        parts.scheme == "https"
        or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1"))
    ):
        raise RequestError("--url", url, "an https address")


def sha256_of(path) -> str:
    """The SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def download(
    url: str, path, sha256: str | None = None, progress: Callable | None = None, timeout: float = 30.0
) -> str:
    """Fetches `url` to `path`; a part that is there already is continued, if the server still has the same
    file.

    The publisher states no checksum for the hand archive. The one of the first download is kept beside it, in
    `path`.sha256, and every later one is held against that; `sha256` is held against whatever it is given
    for.

    Args:
        progress: called as progress(total=, desc=) -> an object with update(n) and close(), as tqdm.

    Returns:
        The SHA-256 of the archive.

    Raises:
        DatasetError: the server cannot be reached or does not have it, the length or the checksum is wrong.
        RequestError: the address is not https.
    """
    path = Path(path)
    noted = path.with_name(path.name + ".sha256")
    expected = (sha256 or (noted.read_text().split() or [""])[0] if sha256 or noted.exists() else "").lower()
    if not path.exists():
        check_url(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        try:
            _fetch(url, part, progress, timeout)
        except urllib.error.HTTPError as e:
            raise DatasetError(
                url, f"the server answers {e.code} {e.reason}", remedy="check the address"
            ) from None
        except (OSError, urllib.error.URLError, http.client.HTTPException) as e:
            got = part.stat().st_size if part.exists() else 0
            raise DatasetError(
                url,
                f"the download broke off after {got:,} bytes ({getattr(e, 'reason', None) or e})",
                remedy="run it again: it continues where it stopped",
            ) from None
        found = sha256_of(part)
        if expected and found != expected:
            part.unlink()
            _tag(part).unlink(missing_ok=True)
            raise DatasetError(
                url, f"its SHA-256 is {found}", expected, "what was fetched has been removed; try again"
            )
        os.replace(part, path)
        _tag(part).unlink(missing_ok=True)
    else:
        found = sha256_of(path)
        if expected and found != expected:
            raise DatasetError(path, f"its SHA-256 is {found}", expected, "remove it and fetch it again")
    if not noted.exists():
        files.save(noted, f"{found}  {path.name}\n")
    return found


def _tag(part: Path) -> Path:
    return part.with_name(part.name + ".tag")


def _fetch(url: str, part: Path, progress: Callable | None, timeout: float) -> None:
    have = part.stat().st_size if part.exists() else 0
    tag = _tag(part).read_text().strip() if have and _tag(part).exists() else ""
    headers = {"User-Agent": "darkslim", "Accept-Encoding": "identity"}
    if have and tag:  # without a tag of the first answer nobody can tell that the file is still the same
        headers |= {"Range": f"bytes={have}-", "If-Range": tag}
    opener = urllib.request.build_opener(_NoDowngrade())
    try:
        answer = opener.open(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as e:
        if (
            e.code == 416 and "Range" in headers
        ):  # nothing to follow: the part is the whole, or of another file
            part.unlink()
            return _fetch(url, part, progress, timeout)
        raise
    with answer:
        start, total = _extent(answer, have)
        if total is not None and total > MAX_ARCHIVE:
            raise DatasetError(url, f"is {total:,} bytes long", f"at most {MAX_ARCHIVE:,}")
        _tag(part).write_text(answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "")
        bar = (
            progress(total=total, desc="downloading", initial=start, unit="B", unit_scale=True)
            if progress
            else None
        )
        with open(part, "r+b" if start else "wb") as f:
            f.seek(start)
            f.truncate()
            while chunk := answer.read(CHUNK):
                f.write(chunk)
                if f.tell() > MAX_ARCHIVE:
                    raise DatasetError(url, f"is more than {MAX_ARCHIVE:,} bytes long")
                if bar:
                    bar.update(len(chunk))
            f.flush()
            os.fsync(f.fileno())
            got = f.tell()
        if bar:
            bar.close()
    if total is not None and got != total:
        raise OSError(f"{got:,} of {total:,} bytes came")


def _extent(answer, have: int) -> tuple[int, int | None]:
    """Where the answer's bytes belong, and how long the whole is."""
    if answer.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if not match or int(match[1]) != have:
            raise OSError("the server sent another range than it was asked for")
        return have, None if match[2] == "*" else int(match[2])
    length = answer.headers.get("Content-Length")
    return 0, int(length) if length and length.isdigit() else None


def unpack(archive, target, top: str = "hand_dataset", progress: Callable | None = None) -> tuple[Path, int]:
    """Unpacks the folder `top` of a tar archive to the new folder `target`.

    All names are looked at before anything is written; it appears at once, when it is complete. Only plain
    files and folders are taken, with plain modes: links and devices are left out and counted.

    Returns:
        The new folder, and how many entries were left out.

    Raises:
        DatasetError: a name that leads out of the folder, too many or too large files, a damaged archive,
            `top` is not in it.
        RequestError: the folder is there already.
    """
    target = Path(target)
    if target.exists():
        raise RequestError(target, "is there already", remedy="remove it, or use it as it is")
    temp = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    left_out = size = 0
    try:
        with tarfile.open(archive) as tar:
            members = []
            for member in tar:
                _check_member(archive, member)
                size += max(0, member.size)
                if size > MAX_UNPACKED or len(members) > MAX_MEMBERS:
                    raise DatasetError(
                        archive,
                        "unpacks to too much",
                        f"at most {MAX_UNPACKED:,} bytes in {MAX_MEMBERS:,} files",
                    )
                if member.isfile() and PurePosixPath(member.name).parts[:1] == (top,):
                    members.append(member)
                elif not member.isdir():
                    left_out += 1
            while tar.fileobj.read(
                CHUNK
            ):  # up to the checksum at the very end, which tells damage that the names do not show
                pass
            if not members:
                raise DatasetError(archive, f"has no folder {top}", "the Oxford hand data set")
            for member in progress(members, total=len(members), desc="unpacking") if progress else members:
                path = temp / PurePosixPath(member.name)
                path.parent.mkdir(parents=True, exist_ok=True)
                with tar.extractfile(member) as source, open(path, "wb") as f:
                    shutil.copyfileobj(source, f, CHUNK)
        os.replace(temp / top, target)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as e:
        raise DatasetError(
            archive, f"cannot be unpacked ({e})", remedy="remove it and fetch it again"
        ) from None
    finally:
        shutil.rmtree(temp, ignore_errors=True)
    return target, left_out


def _check_member(archive, member: tarfile.TarInfo) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\\" in member.name or "\0" in member.name:
        raise DatasetError(
            archive,
            f"holds the path {member.name[:80]!r}, which leads out of its folder",
            remedy="do not use this archive",
        )
