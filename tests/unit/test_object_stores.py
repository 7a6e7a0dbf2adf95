"""Data at an s3:// address, read by the real client from a small store on this machine."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import pytest

from mtft.errors import InputError
from mtft.rows import Row, read_rows
from mtft.sources import content_sha256

s3fs = pytest.importorskip("s3fs")

LINE = '{"source": "Cod %d.", "target": "Morue %d.", "source_lang": "en"}\n'


class Store(BaseHTTPRequestHandler):
    """One bucket: whole objects, ranges of them, and what begins with a prefix."""

    objects: ClassVar[dict[str, bytes]] = {}

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = parse_qs(address.query)
        if "list-type" in query:
            self.answer(200, self.listing(query.get("prefix", [""])[0], "delimiter" in query))
            return
        content = self.objects.get(address.path.removeprefix("/data/"))
        if content is None:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        elif wanted := self.headers.get("Range"):
            first, last = wanted.removeprefix("bytes=").split("-")
            part = content[int(first) : int(last or len(content)) + 1]
            whole = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
            self.answer(206, part, ("Content-Range", whole))
        else:
            self.answer(200, content)

    def listing(self, prefix: str, folded: bool) -> bytes:
        below = {key: content for key, content in self.objects.items() if key.startswith(prefix)}
        folders = {prefix + key[len(prefix) :].split("/")[0] + "/" for key in below if "/" in key[len(prefix) :]}
        shown = {key: size for key, size in below.items() if not folded or "/" not in key[len(prefix) :]}
        keys = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(content)}</Size><ETag>1</ETag>"
            "<LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"
            for key, content in shown.items()
        )
        common = "".join(f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>" for each in folders)
        return f"<ListBucketResult><Name>data</Name>{keys}{common if folded else ''}</ListBucketResult>".encode()

    def answer(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (("Content-Length", str(len(body))), ("ETag", '"1"'), *headers):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": "/dev/null",
        }.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield
        server.shutdown()


def test_a_folder_and_a_file_are_read_like_local_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, packed = (LINE % (1, 1)).encode(), gzip.compress((LINE % (2, 2)).encode())
    objects = {"rows/b.jsonl": plain, "rows/a.jsonl.gz": packed, "rows/notes.txt": b"no data"}
    monkeypatch.setattr(Store, "objects", objects)
    found = [(row.file, row.source) for row in read_rows(["s3://data/rows"]) if isinstance(row, Row)]
    assert found == [("s3://data/rows/a.jsonl.gz", "Cod 2."), ("s3://data/rows/b.jsonl", "Cod 1.")]
    (row,) = read_rows(["s3://data/rows/b.jsonl"])
    assert isinstance(row, Row)
    assert content_sha256(["s3://data/rows/b.jsonl"]) == hashlib.sha256(plain).hexdigest()


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match=r"^s3://data/none.jsonl: cannot be read"):
        list(read_rows(["s3://data/none.jsonl"]))
