"""Fetching and unpacking, from a server in this very process."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from darkslim.base.errors import DatasetError, RequestError
from darkslim.data import download

CONTENT = np.random.default_rng(0).bytes(700_000)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked.append(self.headers.get("Range"))
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/file")
            return self.end_headers()
        if self.path != "/file":
            return self.send_error(404)
        content, start = server.content, 0
        if self.headers.get("Range") and self.headers.get("If-Range") == server.tag:
            start = int(self.headers["Range"][6:-1])
            if start >= len(content):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", server.tag)
        self.end_headers()
        self.wfile.write(content[start : min(len(content), start + server.limit)])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.content, server.tag, server.limit, server.asked = CONTENT, '"one"', 10**9, []
        server.url = f"http://127.0.0.1:{server.server_address[1]}/file"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


DIGEST = hashlib.sha256(CONTENT).hexdigest()


def test_whole_and_its_checksum_is_kept(server, tmp_path):
    path = tmp_path / "new" / "a.tar.gz"
    assert download.download(server.url.replace("file", "moved"), path) == DIGEST
    assert path.read_bytes() == CONTENT and sorted(os.listdir(path.parent)) == ["a.tar.gz", "a.tar.gz.sha256"]
    assert download.download(server.url, path) == DIGEST and len(server.asked) == 2  # not asked for again
    path.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(DatasetError, match=f"a.tar.gz: its SHA-256 is .*; {DIGEST}; remove it"):
        download.download(server.url, path)


def test_a_broken_download_is_continued(server, tmp_path):
    path = tmp_path / "a"
    server.limit = 300_000
    with pytest.raises(DatasetError, match="broke off after 300,000 bytes.*run it again"):
        download.download(server.url, path)
    assert not path.exists()
    server.limit = 10**9
    assert download.download(server.url, path, sha256=DIGEST) == DIGEST
    assert server.asked == [None, "bytes=300000-"] and path.read_bytes() == CONTENT


def test_another_file_on_the_server_starts_again(server, tmp_path):
    path = tmp_path / "a"
    server.limit = 300_000
    with pytest.raises(DatasetError):
        download.download(server.url, path)
    server.limit, server.tag, server.content = 10**9, '"two"', CONTENT[::-1]
    download.download(server.url, path)
    assert path.read_bytes() == CONTENT[::-1]


def test_a_part_that_was_already_whole(server, tmp_path):
    (tmp_path / "a.part").write_bytes(CONTENT)
    (tmp_path / "a.part.tag").write_text('"one"')
    assert download.download(server.url, tmp_path / "a") == DIGEST


def test_a_wrong_checksum_removes_what_was_fetched(server, tmp_path):
    with pytest.raises(DatasetError, match="its SHA-256 is"):
        download.download(server.url, tmp_path / "a", sha256="0" * 64)
    assert os.listdir(tmp_path) == []


def test_addresses(server, tmp_path):
    for url in ("http://example.invalid/a", "ftp://127.0.0.1/a", "file:///etc/passwd", "nonsense"):
        with pytest.raises(RequestError, match="an https address"):
            download.download(url, tmp_path / "a")
    with pytest.raises(DatasetError, match="404"):
        download.download(server.url + "s", tmp_path / "a")


def archive(path, *members):
    with tarfile.open(path, "w:gz") as tar:
        for name, kind in members:
            info = tarfile.TarInfo(name)
            if isinstance(kind, bytes):
                info.size = len(kind)
                info.mode = 0o6777
                tar.addfile(info, io.BytesIO(kind))
            else:
                info.type, info.linkname = kind[0], "/etc/passwd"
                tar.addfile(info)
    return path


def test_unpacking_takes_plain_files_only(tmp_path):
    path = archive(
        tmp_path / "a.tgz",
        ("hand_dataset", [tarfile.DIRTYPE]),
        ("hand_dataset/x/a.jpg", b"jpg"),
        ("hand_dataset/l", [tarfile.SYMTYPE]),
        ("hand_dataset/h", [tarfile.LNKTYPE]),
        ("hand_dataset/d", [tarfile.CHRTYPE]),
        ("other/b", b"b"),
    )
    target, left_out = download.unpack(path, tmp_path / "hands")
    assert left_out == 4 and [str(p.relative_to(target)) for p in sorted(target.rglob("*"))] == [
        "x",
        "x/a.jpg",
    ]
    assert (target / "x/a.jpg").read_bytes() == b"jpg" and not (target / "x/a.jpg").stat().st_mode & 0o7111
    assert sorted(os.listdir(tmp_path)) == ["a.tgz", "hands"]
    with pytest.raises(RequestError, match="is there already"):
        download.unpack(path, tmp_path / "hands")


@pytest.mark.parametrize("name", ["../evil", "hand_dataset/../../evil", "/evil", "hand_dataset/..\\evil"])
def test_paths_that_lead_out_refuse_the_whole_archive(tmp_path, name):
    path = archive(tmp_path / "a.tgz", ("hand_dataset/a", b"a"), (name, b"evil"))
    with pytest.raises(DatasetError, match="leads out of its folder"):
        download.unpack(path, tmp_path / "in" / "hands")
    assert sorted(os.listdir(tmp_path)) == ["a.tgz"]


def test_damaged_archives(tmp_path):
    whole = archive(
        tmp_path / "a.tgz", ("hand_dataset/a", np.random.default_rng(0).bytes(50_000))
    ).read_bytes()
    for content in (whole[: len(whole) // 2], b"nonsense", b"", whole[:5000] + b"\0" * 50 + whole[5050:]):
        (tmp_path / "b.tgz").write_bytes(content)
        with pytest.raises(DatasetError, match="cannot be unpacked|has no folder"):
            download.unpack(tmp_path / "b.tgz", tmp_path / "hands")
    assert sorted(os.listdir(tmp_path)) == ["a.tgz", "b.tgz"]
    with pytest.raises(DatasetError, match="has no folder hand_dataset"):
        download.unpack(archive(tmp_path / "c.tgz", ("x/a", b"a")), tmp_path / "hands")


def test_limits(tmp_path, monkeypatch):
    path = archive(tmp_path / "a.tgz", ("hand_dataset/a", b"a" * 100), ("hand_dataset/b", b"a" * 100))
    for name, value in (("MAX_UNPACKED", 150), ("MAX_MEMBERS", 0)):
        with monkeypatch.context() as change, pytest.raises(DatasetError, match="unpacks to too much"):
            change.setattr(download, name, value)
            download.unpack(path, tmp_path / "hands")
