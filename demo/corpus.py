"""Parallel EN-FR sentences on fisheries science, generated: any number, all distinct, the same for the same seed.

python -m demo.corpus --domain assessment --count 30000 --seed 1 --output pairs.jsonl.gz
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple, TextIO, get_args

from demo import aquaculture, assessment
from demo.grammar import Text
from mtft.errors import InputError, MtftError
from mtft.files import replacing

Domain = Literal["assessment", "aquaculture"]
Language = Literal["en", "fr"]
Pattern = Callable[[Random], Text]

PATTERNS: dict[Domain, tuple[Pattern, ...]] = {
    "assessment": assessment.PATTERNS,
    "aquaculture": aquaculture.PATTERNS,
}
DOCUMENT_PREFIX: dict[Domain, str] = {"assessment": "DEMO-A", "aquaculture": "DEMO-B"}
MAX_COUNT = 1_000_000  # sentences of one list; far below what the patterns can form, so drawing stays quick


class Pair(NamedTuple):
    """One sentence in both languages, and the document it belongs to."""

    source_en: str
    target_fr: str
    document: str


def generate(domain: Domain, count: int, seed: int = 0) -> list[Pair]:
    """Generate ``count`` pairs in documents of 20 to 40 sentences.

    No sentence occurs twice in either language, case, spaces and punctuation aside. A longer list of the same seed
    starts with the shorter one.

    Raises:
        InputError: ``count`` is negative or above ``MAX_COUNT``.
    """
    if not 0 <= count <= MAX_COUNT:
        raise InputError(f"demo corpus: count is {count}; allowed: 0 to {MAX_COUNT}")
    rng = Random(f"{domain}:{seed}")
    patterns, prefix = PATTERNS[domain], DOCUMENT_PREFIX[domain]
    seen: set[str] = set()
    pairs: list[Pair] = []
    document, ends_at = 0, 0
    while len(pairs) < count:
        text = rng.choice(patterns)(rng)
        english, french = _signature(text.en), _signature(text.fr)
        if english in seen or french in seen:
            continue
        seen.update((english, french))
        if len(pairs) == ends_at:
            document, ends_at = document + 1, ends_at + rng.randint(20, 40)
        pairs.append(Pair(text.en, text.fr, f"{prefix}-{document:04d}"))
    return pairs


def rows(pairs: Iterable[Pair], directions: Sequence[Language] = ("en", "fr")) -> Iterator[dict[str, str]]:
    """Turn pairs into rows of the data schema, one for each source language asked."""
    for english, french, document in pairs:
        for language in directions:
            source, target = (english, french) if language == "en" else (french, english)
            yield {"source": source, "target": target, "source_lang": language, "pub_number": document}


def write_jsonl(path: Path, pairs: Iterable[Pair], directions: Sequence[Language] = ("en", "fr")) -> int:
    """Write rows as JSON Lines, gzipped where the name ends in ``.gz``, atomically; return how many.

    The same pairs give the same bytes.
    """
    count = 0
    with replacing(path) as temporary, _text_writer(temporary, compress=path.suffix == ".gz") as output:
        for count, row in enumerate(rows(pairs, directions), start=1):  # noqa: B007 - the last count is the result
            output.write(json.dumps(row, ensure_ascii=False) + "\n")
    return count


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a generated corpus to a file and say what was written."""
    options = _parser().parse_args(arguments)
    directions: dict[str, tuple[Language, ...]] = {"en-fr": ("en",), "fr-en": ("fr",), "both": ("en", "fr")}
    try:
        pairs = generate(options.domain, options.count, options.seed)
        written = write_jsonl(options.output, pairs, directions[options.direction])
    except MtftError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"{options.output}: cannot be written: {error.strerror}", file=sys.stderr)
        return InputError.exit_code
    documents = len({pair.document for pair in pairs})
    print(f"{options.output}: {written} rows, {len(pairs)} distinct pairs in {documents} documents")
    return 0


def _signature(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


@contextmanager
def _text_writer(path: Path, *, compress: bool) -> Iterator[TextIO]:
    """Open a file for UTF-8 text; a gzip header holds neither name nor time."""
    with path.open("wb") as raw:
        if not compress:
            with io.TextIOWrapper(raw, encoding="utf-8", newline="\n") as plain:
                yield plain
            return
        with (
            gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed,
            io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as text,
        ):
            yield text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m demo.corpus",
        description="Write generated EN-FR sentences on fisheries science as JSON Lines.",
        epilog="example: python -m demo.corpus --domain aquaculture --count 5000 --output b.jsonl.gz",
    )
    parser.add_argument("--domain", choices=get_args(Domain), required=True, help="sub-domain")
    parser.add_argument("--count", type=int, default=10_000, help="number of sentence pairs (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same sentences (default: %(default)s)")
    parser.add_argument("--direction", choices=("en-fr", "fr-en", "both"), default="both", help="rows (default: both)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help=".jsonl or .jsonl.gz")
    return parser


if __name__ == "__main__":
    sys.exit(main())
