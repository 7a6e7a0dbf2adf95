"""The JSON Lines reader: every line is read as it stands or reported with its place, and nothing crashes it."""

from __future__ import annotations

import gzip
import io
import json
import re
import subprocess
import sys
import tomllib
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from mtft.cluster_config import POD_NAME
from mtft.errors import InputError, Retry
from mtft.rows import Rejected, Row, Tally, parse_row, read_rows
from mtft.sources import MAX_LINE_BYTES, REMOTE_SCHEMES, content_sha256, file_sha256
from tests.conftest import CHECKOUT

GOOD = '{"source": "The cod.", "target": "La morue.", "source_lang": "en", "pub_number": "F-1"}'


def line(**changes: Any) -> str:
    record = {"source": "The cod.", "target": "La morue.", "source_lang": "en", **changes}
    return json.dumps({name: value for name, value in record.items() if value is not ...}, ensure_ascii=False)


def write(folder: Path, content: bytes | str, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(path: Path) -> list[Row]:
    items = list(read_rows([path]))
    assert all(isinstance(item, Row) for item in items), items
    return [item for item in items if isinstance(item, Row)]


def rejected(content: bytes, folder: Path) -> Rejected:
    """Read one line between two good ones: exactly it is rejected."""
    path = write(folder, GOOD.encode() + b"\n" + content + b"\n" + GOOD.encode())
    before, item, after = read_rows([path])
    assert isinstance(before, Row)
    assert isinstance(after, Row)
    assert after.line == 3
    assert isinstance(item, Rejected), item
    assert (item.file, item.line) == (str(path), 2)
    return item


class TestReadAsItStands:
    @pytest.mark.parametrize(
        ("content", "lines"),
        [
            (f"{GOOD}\n{GOOD}\n", [1, 2]),
            (f"{GOOD}\n{GOOD}", [1, 2]),
            (f"{GOOD}\r\n{GOOD}\r\n", [1, 2]),
            (f"\ufeff{GOOD}\n{GOOD}\n", [1, 2]),
            (f"{GOOD}\n\n \t\r\n{GOOD}\n\n", [1, 4]),
        ],
        ids=["plain", "no-final-newline", "crlf", "byte-order-mark", "blank-lines"],
    )
    def test_layouts(self, tmp_path: Path, content: str, lines: list[int]) -> None:
        path = write(tmp_path, content)
        expected = [Row("The cod.", "La morue.", "en", "F-1", str(path), number) for number in lines]
        assert rows(path) == expected

    @given(
        st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).filter(
            lambda text: bool(text.strip() and text.strip("\u200b\u2060\ufeff"))
        )
    )
    def test_text_is_never_changed(self, text: str) -> None:
        for ensure_ascii in (True, False):
            raw = json.dumps(
                {"source": text, "target": f" {text}\t\r\n", "source_lang": "fr"}, ensure_ascii=ensure_ascii
            )
            row = parse_row(raw.encode(), "f", 1)
            assert isinstance(row, Row), row
            assert (row.source, row.target) == (text, f" {text}\t\r\n")

    def test_separators_inside_a_string_are_text(self, tmp_path: Path) -> None:
        text = "a\u2028b\u2029c\x85d"
        assert [row.source for row in rows(write(tmp_path, line(source=text)))] == [text]

    @pytest.mark.parametrize("pub_number", [None, "", "  ", ...])
    def test_a_blank_pub_number_is_none(self, tmp_path: Path, pub_number: Any) -> None:
        assert rows(write(tmp_path, line(pub_number=pub_number)))[0].pub_number is None

    def test_other_fields_are_ignored_and_counted(self, tmp_path: Path) -> None:
        path = write(tmp_path, f"{line(id=10**30, score=[1, {'a': 2}])}\n{line(id=1)}\n" + "1" * 5000 + "\n")
        names: Counter[str] = Counter()
        assert [type(item) for item in read_rows([path], extra_fields=names)] == [Row, Row, Rejected]
        assert names == {"id": 2, "score": 1}

    def test_a_row_of_one_megabyte(self, tmp_path: Path) -> None:
        text = "mer " * 250_000
        assert rows(write(tmp_path, line(source=text[:1_000_000])))[0].source == text[:1_000_000]


class TestReported:
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b'{"source": "\xff"}', "not_utf8: byte 13"),
            (b'{"source": "\xed\xa0\x80"}', "not_utf8"),
            (GOOD.encode("utf-16"), "not_utf8"),
            (line(source="a\0b").encode(), "control_character: U+0000 in source"),
            (line(target="a\x7fb").encode(), "control_character: U+007F in target"),
            (line(pub_number="a\x1bb").encode(), "control_character: U+001B in pub_number"),
            (b'{"source": "a\tb"}', "control_character: Invalid control character"),
            (b'{"source": "a\0b"}', "control_character: Invalid control character"),
            (line().replace("The", r"\ud800").encode(), "lone_surrogate: U+D800 in source"),
            (b'{"source": "a"', "bad_json"),
            (GOOD.encode() + GOOD.encode(), "bad_json: Extra data"),
            (GOOD.encode() + b"\r" + GOOD.encode(), "bad_json: Extra data"),
            (b"[" * 100_000, "bad_json: nested too deeply"),
            (b'["source"]', "not_an_object"),
            (b"null", "not_an_object"),
            (b"9" * 5000, "not_an_object"),
            (line(source=...).encode(), "missing_field: there is no 'source'"),
            (line(source_lang=...).encode(), "missing_field: there is no 'source_lang'"),
            (line(target=None).encode(), "not_a_string: target is null"),
            (line(target=10**400).encode(), "not_a_string: target is a number"),
            (line(target=1.5).encode(), "not_a_string: target is a number"),
            (line(target=True).encode(), "not_a_string: target is true or false"),
            (line(source={"en": "x"}).encode(), "not_a_string: source is an object"),
            (line(source=["x"]).encode(), "not_a_string: source is a list"),
            (line(pub_number=7).encode(), "not_a_string: pub_number is a number"),
            (line(source_lang="de").encode(), "unknown_language: source_lang is 'de'"),
            (line(source_lang="EN").encode(), "unknown_language: source_lang is 'EN'"),
            (line(score=float("nan")).encode(), "bad_json: NaN"),
            (line(score=float("-inf")).encode(), "bad_json: -Infinity"),
            (GOOD[:-1].encode() + b', "source": "x"}', "duplicate_key: 'source'"),
            (line(source="").encode(), "empty_side: source is empty"),
            (line(target=" \u00a0\u3000\t").encode(), "empty_side: target is blank"),
            (line(source="\ufeff \u200b\u2060").encode(), "empty_side: source is blank"),
            (b'{"source": "' + b"a" * MAX_LINE_BYTES + b'"}', "too_long"),
        ],
    )
    def test_place_and_reason(self, tmp_path: Path, content: bytes, reason: str) -> None:
        item = rejected(content, tmp_path)
        assert item.reason.startswith(reason)
        assert item.reason.isprintable()
        assert item.excerpt.isprintable()
        assert len(item.excerpt) <= 120

    def test_the_excerpt_shows_what_cannot_be_printed(self, tmp_path: Path) -> None:
        assert rejected(b"\x1b[31m\xffd\xe9j\xc3\xa0 \xe2\x80\xa8", tmp_path).excerpt == r"\x1b[31m\xffd\xe9jà \u2028"

    @given(st.binary(max_size=200))
    def test_no_bytes_crash_the_reader(self, content: bytes) -> None:
        item = parse_row(content, "f", 1)
        assert isinstance(item, Row) or (item.excerpt.isprintable() and item.code)

    @pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf", gzip.compress(b"", mtime=0)])
    def test_an_empty_file(self, tmp_path: Path, content: bytes) -> None:
        [item] = read_rows([write(tmp_path, content)])
        assert isinstance(item, Rejected)
        assert item.code == "empty_file"

    def test_a_line_without_end_is_not_held_in_memory(self, tmp_path: Path) -> None:
        # 300 MB of one character: 40 kB of zstd, most of it blocks that repeat one byte.
        frame = zstandard.ZstdCompressor().compressobj()
        parts = [frame.compress(b"a" * 1_000_000) for _ in range(300)]
        path = write(tmp_path, b"".join(parts) + frame.compress(b"\n" + GOOD.encode()) + frame.flush(), "a.zst")
        tracemalloc.start()
        try:
            long, row = read_rows([path])
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert isinstance(long, Rejected)
        assert long.code == "too_long"
        assert isinstance(row, Row)
        assert peak < 100_000_000


class TestCompressed:
    CONTENT = "".join(f"{line(source=f'cod {number} {number**9}')}\n" for number in range(5000)).encode()

    @pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.jsonl.zst", "rows.jsonl"])
    @pytest.mark.parametrize("kind", ["gzip", "gzip members", "zstd", "zstd frames", "zstd skippable", "plain"])
    def test_the_content_decides_not_the_name(self, tmp_path: Path, kind: str, name: str) -> None:
        half = len(self.CONTENT) // 2
        zstd = zstandard.ZstdCompressor().compress
        content = {
            "gzip": gzip.compress(self.CONTENT),
            "gzip members": gzip.compress(self.CONTENT[:half]) + gzip.compress(self.CONTENT[half:]),
            "zstd": zstd(self.CONTENT),
            "zstd frames": zstd(self.CONTENT[:half]) + zstd(self.CONTENT[half:]),
            "zstd skippable": b"\x50\x2a\x4d\x18\x04\0\0\0size" + zstd(self.CONTENT),
            "plain": self.CONTENT,
        }[kind]
        found = rows(write(tmp_path, content, name))
        assert [row.line for row in found] == list(range(1, 5001))

    @pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor(write_checksum=True).compress])
    @pytest.mark.parametrize("damage", ["cut", "changed"])
    def test_rows_before_a_break_are_kept(self, tmp_path: Path, pack: Any, damage: str) -> None:
        packed = pack(self.CONTENT)
        content = packed[: len(packed) * 2 // 3] if damage == "cut" else packed[:-6] + b"\xaa" + packed[-5:]
        *before, last = read_rows([write(tmp_path, content)])
        assert len(before) > (100 if damage == "cut" else -1)
        assert all(isinstance(item, Row) and item.source.split()[1] == str(i) for i, item in enumerate(before))
        assert isinstance(last, Rejected)
        assert last.code == "broken_file"
        assert last.line == len(before) + 1


class TestPaths:
    def test_a_folder_gives_its_data_files_in_order(self, tmp_path: Path) -> None:
        write(tmp_path, line(source="2"), "b.jsonl")
        write(tmp_path, gzip.compress(line(source="1").encode()), "a.jsonl.gz")
        write(tmp_path, zstandard.ZstdCompressor().compress(line(source="3").encode()), "c.jsonl.zst")
        for other in (".hidden.jsonl", "README.md", "d.json"):
            write(tmp_path, "no data", other)
        (tmp_path / "e.jsonl").mkdir()
        assert [row.source for row in rows(tmp_path)] == ["1", "2", "3"]

    def test_several_files_in_the_order_given(self, tmp_path: Path) -> None:
        paths = [write(tmp_path, line(source=name), name) for name in ("z.jsonl", "a.jsonl")]
        assert [item.source for item in read_rows(paths) if isinstance(item, Row)] == ["z.jsonl", "a.jsonl"]

    @pytest.mark.parametrize(
        ("paths", "message"),
        [
            (["none.jsonl"], "none.jsonl: no such file or folder"),
            (["empty"], "empty: no *.jsonl"),
            (["a.jsonl", "a.jsonl"], "a.jsonl: named twice"),
            (["a.jsonl", "./empty/../a.jsonl"], "a.jsonl: the same file as a.jsonl; each data file may be given once"),
            (["link.jsonl", "a.jsonl"], "^a.jsonl: the same file as link.jsonl"),
            (["linked", "a.jsonl"], "^a.jsonl: the same file as linked/a.jsonl"),
            ([], "no data file given"),
            (["/dev/null"], "/dev/null: not a regular file"),
            (["a\0b"], r"a\\x00b: no such file"),
            (["a\nb"], r"^a\\nb: no such file"),
        ],
    )
    def test_what_cannot_be_opened_is_refused_before_reading(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: list[str], message: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        write(tmp_path, GOOD, "a.jsonl")
        (tmp_path / "empty").mkdir()
        (tmp_path / "link.jsonl").symlink_to("a.jsonl")
        (tmp_path / "folder").mkdir()
        write(tmp_path / "folder", GOOD, "b.jsonl")
        (tmp_path / "folder" / "a.jsonl").symlink_to(tmp_path / "a.jsonl")
        (tmp_path / "linked").symlink_to("folder")
        with pytest.raises(InputError, match=message.replace("*", r"\*")):
            read_rows(paths)

    @pytest.mark.parametrize("part", ["fsspec", "s3fs"])
    def test_object_stores_need_their_client(self, part: str) -> None:
        # A process of its own: fsspec keeps what it has once loaded.
        program = f"import sys; sys.modules[{part!r}] = None; from launcher.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", program, "data", "check", "s3://bucket/a.jsonl"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=CHECKOUT)
        assert done.returncode == 2
        assert (
            "s3://bucket/a.jsonl: reading s3:// needs fsspec and s3fs; install them with: pip install 'mtft[train]'"
            in done.stderr
        )

    def test_object_stores_and_their_client_are_installed_together(self) -> None:
        project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        train = {re.split(r"[<>=~! ]", each)[0] for each in project["optional-dependencies"]["train"]}
        assert {"fsspec", "s3fs", "gcsfs"} <= train
        fsspec = pytest.importorskip("fsspec")
        for scheme in REMOTE_SCHEMES:
            assert fsspec.get_filesystem_class(scheme.removesuffix("://"))

    def test_object_stores_are_read_through_fsspec(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fsspec = pytest.importorskip("fsspec")
        memory = fsspec.filesystem("memory")
        monkeypatch.setattr("mtft.sources.REMOTE_SCHEMES", ("memory://",))
        memory.pipe({"/data/b.jsonl": line(source="2").encode(), "/data/a.jsonl.gz": gzip.compress(line().encode())})
        memory.pipe("/data/notes.txt", b"no data")
        found = [item for item in read_rows(["memory://data"]) if isinstance(item, Row)]
        assert [(row.file, row.source) for row in found] == [
            ("memory:///data/a.jsonl.gz", "The cod."),
            ("memory:///data/b.jsonl", "2"),
        ]

    def test_the_digest_of_one_file_is_its_own(self, tmp_path: Path) -> None:
        first, second = write(tmp_path, "a", "a.jsonl"), write(tmp_path, "b", "b.jsonl")
        assert content_sha256([first]) == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
        assert content_sha256([first, second]) == content_sha256([tmp_path]) != content_sha256([second, first])


class TestTally:
    def test_every_line_is_in_one_count(self, tmp_path: Path) -> None:
        content = "\n".join([GOOD, line(source_lang="fr"), line(source=""), "{}", line()])
        tally = Tally()
        kept = [item for item in read_rows([write(tmp_path, content)]) if tally.add(item, ["en"])]
        assert [item.line for item in kept] == [1, 5]
        assert tally.as_dict() == {"rows": 5, "accepted": 2, "wrong_direction": 1, "dropped_empty": 1, "bad": 1}

    @staticmethod
    def tally(bad: int, good: int, code: str = "bad_json") -> Tally:
        tally = Tally()
        for number in range(bad):
            tally.add(Rejected("f.jsonl", number + 1, f"{code}: why", "{..."))
        for number in range(good):
            tally.add(Row("a", "b", "en", None, "f.jsonl", number))
        return tally

    def test_fail_shows_the_first_five_and_the_command(self) -> None:
        with pytest.raises(InputError) as caught:
            self.tally(7, 993).check(on_bad_row="fail", max_bad_fraction=0.006)
        text = str(caught.value)
        assert "7 of 1,000 rows are bad (0.70%; data.max_bad_fraction allows 0.60%)" in text
        assert "f.jsonl:5: bad_json: why: {..." in text
        assert "f.jsonl:6:" not in text
        assert "mtft-launch data check f.jsonl" in text

    @pytest.mark.parametrize(
        ("file", "words"),
        [
            (
                "/mnt/mtft/data/t.jsonl",
                "/mnt/mtft/data/t.jsonl is a path of the job's volume. See all of them where the file came from, with: "
                "mtft-launch data check t.jsonl\n",
            ),
            ("s3://bucket/t.jsonl", "See all of them with: mtft-launch data check s3://bucket/t.jsonl\n"),
        ],
    )
    def test_a_pod_names_no_path_that_only_pods_see(
        self, file: str, words: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(POD_NAME, "m-1-master-0")
        tally = Tally()
        tally.add(Rejected(file, 1, "bad_json: why", "{..."))
        with pytest.raises(InputError) as caught:
            tally.check(on_bad_row="fail", max_bad_fraction=0.0)
        assert f"\n{words}" in str(caught.value)

    @pytest.mark.parametrize(("policy", "bad"), [("fail", 7), ("skip", 1000)])
    def test_what_is_tolerated(self, policy: Any, bad: int) -> None:
        self.tally(bad, 1000 - bad).check(on_bad_row=policy, max_bad_fraction=0.007)

    @pytest.mark.parametrize("policy", ["fail", "skip"])
    @pytest.mark.parametrize("code", ["broken_file", "empty_file"])
    def test_a_broken_file_is_always_refused_an_empty_one_may_be_skipped(self, code: str, policy: Any) -> None:
        tally = self.tally(1, 10_000, code)
        if (code, policy) == ("empty_file", "skip"):
            tally.check(on_bad_row="skip", max_bad_fraction=0.5)
            return
        with pytest.raises(InputError, match=code):
            tally.check(on_bad_row=policy, max_bad_fraction=0.5)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OSError(13, "Permission denied"), InputError, "cannot be read: Permission denied"),
        (OSError(5, "Input/output error"), Retry, "cannot be read now: Input/output error; try again"),
        (OSError(116, "Stale file handle"), Retry, "cannot be read now: Stale file handle; try again"),
        (TimeoutError("no answer"), Retry, "cannot be read now: no answer; try again"),
    ],
)
def test_a_file_that_cannot_be_read_is_the_users_fault_or_may_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, kind: type[Exception], words: str
) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise error

    monkeypatch.setattr("mtft.sources._open", lambda file: Failing())
    with pytest.raises(kind, match=rf"rows.jsonl: {words}"):
        list(read_rows([write(tmp_path, GOOD)]))


def test_a_remote_file_that_is_cut_while_it_comes_may_be_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class PayloadError(Exception):
        """As a store's client raises it: no OSError."""

    class Cut(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise PayloadError("response is not complete")

    monkeypatch.setattr("mtft.sources._open", lambda file: Cut())
    monkeypatch.setattr("mtft.sources._listing", lambda path: None)
    for read in (lambda file: list(read_rows([file])), lambda file: content_sha256([file])):
        with pytest.raises(Retry, match=r"s3://bucket/rows\.jsonl: cannot be read now: response is not complete"):
            read("s3://bucket/rows.jsonl")
    with pytest.raises(PayloadError):
        file_sha256("rows.jsonl")
