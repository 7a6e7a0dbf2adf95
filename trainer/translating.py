"""Translate lines or JSONL with a finished run.

The same search as the evaluation's: batched by length, order kept. An empty line stays empty. Compressed input is known
by its first bytes, output is compressed as its name says. Blank lines of JSONL are passed over.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TextIO, cast

from peft import PeftModel
from safetensors import SafetensorError
from torch import nn

from mtft import files, store
from mtft.config import Config
from mtft.errors import InputError
from mtft.models import ModelCard
from mtft.provenance import base_identity
from mtft.runs import RunPaths
from mtft.settings import load_document, resolve
from mtft.sources import MAX_LINE_BYTES, BrokenStreamError, read_lines
from trainer.distributed import World, choose_device, choose_precision
from trainer.encoding import Encoder
from trainer.generation import Decoding, Segment, translate
from trainer.hub import at_recorded_commit
from trainer.loading import load_base

# Enough to fill batches of like lengths, little enough to give answers while a pipe still writes.
_CHUNK_ROWS = 2048


def run_translation(options: argparse.Namespace) -> None:
    """Load the run's model and translate the whole input.

    Raises:
        InputError: the run is not finished, a row cannot be read, or the output cannot be written.
    """
    paths = RunPaths.of(options.run_dir)
    if not paths.finished.is_file():
        raise InputError(f"{paths.folder} is not a finished run: it has no finished.json")
    resolved = resolve(load_document(paths.config))
    config, card = at_recorded_commit(paths, resolved.config), resolved.card
    if options.model_path:
        if config.model.path is None:
            raise InputError(
                "--model-path: the run's base is one of the hub, which is known by its commit; leave it out"
            )
        config = _with_base(config, options.model_path)
    direction = choose_direction(card, options.source_lang)
    jsonl = options.input.removesuffix(".gz").removesuffix(".zst").endswith(".jsonl")
    if options.format:
        jsonl = options.format == "jsonl"
    lines = _lines(options.input)
    rows = _json_rows(lines, options.input, card, direction) if jsonl else _line_rows(lines, direction)
    anywhere, world = _here(config)
    with store.using(paths):
        model, encoder = load_finished(paths, anywhere, card, world, base_only=options.base)
    decoding = Decoding(
        beams=config.eval.beams if options.beams is None else options.beams,
        batch_tokens=config.eval.batch_tokens,
        dtype=choose_precision(anywhere, world.device),
    )
    sentences = cut = 0
    with _writing(options.output) as target:
        while chunk := list(islice(rows, _CHUNK_ROWS)):
            segments = [segment for segment, _ in chunk]
            hypotheses = translate(model, encoder, segments, decoding, world)
            for (_, row), hypothesis in zip(chunk, hypotheses, strict=True):
                target.write(_output_line(row, hypothesis.text, jsonl=jsonl))
            target.flush()
            sentences += len(segments)
            cut += _count_cut(encoder, segments)
    if cut:
        longest = encoder.max_source_length
        print(f"{cut} of {sentences} sentences were longer than {longest} tokens and were cut", file=sys.stderr)


def _with_base(config: Config, folder: str) -> Config:
    """Return the configuration with its base in another folder."""
    return config.model_copy(update={"model": config.model.model_copy(update={"path": folder})})


def _here(config: Config) -> tuple[Config, World]:
    """Return the configuration as this machine can run it: one trained on a GPU has to translate on a laptop too."""
    anywhere = config.model_copy(update={"train": config.train.model_copy(update={"device": "auto"})})
    device = choose_device(anywhere, 0)
    # "auto" is bf16 wherever a GPU has it.
    if device.type == "cpu" or config.train.precision == "bf16":
        anywhere = anywhere.model_copy(update={"train": anywhere.train.model_copy(update={"precision": "auto"})})
    return anywhere, World(rank=0, local_rank=0, size=1, device=device)


def _output_line(row: dict[str, Any], translation: str, *, jsonl: bool) -> str:
    text = json.dumps({**row, "translation": translation}, ensure_ascii=False) if jsonl else translation
    return text.replace("\n", " ") + "\n"


def _count_cut(encoder: Encoder, segments: Sequence[Segment]) -> int:
    by_direction: dict[tuple[str, str], list[str]] = defaultdict(list)
    for segment in segments:
        by_direction[segment.direction].append(segment.source)
    return sum(len(encoder.encode_sources(sources, *direction)[1]) for direction, sources in by_direction.items())


def load_finished(
    paths: RunPaths, config: Config, card: ModelCard, world: World, *, base_only: bool = False
) -> tuple[nn.Module, Encoder]:
    """Load what a finished run made: the base with its adapter, or the fully tuned model.

    Raises:
        InputError: what the run made is not as it was written, is no safetensors file, or the base cannot be loaded.
    """
    if not base_only:
        store.read_finished(paths, hashed=True)
    tuned = paths.deliverable(config.method)
    if config.method == "full" and not base_only:
        config = _with_base(config, str(tuned))
    adapted = config.method != "full" and not base_only
    if adapted or base_only:
        _check_base(paths, config, card)
    # Without this file peft would take a pickle instead.
    if adapted and not (weights := tuned / "adapter_model.safetensors").is_file():
        raise InputError(
            f"{weights} is missing: the run holds no adapter that can be loaded; only safetensors are read"
        )
    base = load_base(card, config, world)
    model: Any = base
    if adapted:
        model = _with_adapter(base, tuned)
    return model.eval(), Encoder.load(card, config)


def _with_adapter(base: nn.Module, folder: Path) -> nn.Module:
    """Put an adapter on its base.

    Raises:
        InputError: its files are damaged, or of another model.
    """
    try:
        adapted: nn.Module = PeftModel.from_pretrained(base, str(folder))
        return adapted
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(
            f"{folder}: the adapter cannot be loaded: {first_line}; fetch the run again, or name another with --run"
        ) from error


def _check_base(paths: RunPaths, config: Config, card: ModelCard) -> None:
    """Refuse an adapter on another base than the one it was trained on, as far as the base's files can tell.

    Raises:
        InputError: the base checkpoint changed since the run, or is gone.
    """
    if config.model.path is None or not paths.provenance.exists():
        return  # a commit of the hub never changes; a copy without its provenance has nothing to compare with
    trained_on = files.read_json(paths.provenance)["base"]
    if not Path(config.model.path).is_dir():
        raise InputError(
            f"{config.model.path}: the base that run {paths.run_id} was trained on is not there; say where it lies on "
            "this machine with --model-path DIR"
        )
    base = base_identity(card.base, config.model.path, None)
    if base["sha256"] != trained_on["sha256"]:
        raise InputError(
            f"{base['checkpoint']} is not the base that run {paths.run_id} was trained on (SHA-256 {base['sha256']}, "
            f"in provenance.json {trained_on['sha256']}); restore it, or tune again with --rerun"
        )


def choose_direction(card: ModelCard, source_lang: str | None) -> tuple[str, str] | None:
    """Return the direction of plain lines: the model's only one, or the one of this source language.

    Raises:
        InputError: the model does not translate from this language.
    """
    fitting = [direction for direction in card.directions if source_lang in (None, direction[0])]
    if not fitting:
        known = " or ".join(source for source, _ in card.directions)
        raise InputError(f"--source-lang {source_lang}: {card.key} translates from {known}")
    return fitting[0] if len(fitting) == 1 else None


def _line_rows(lines: Iterator[str], direction: tuple[str, str] | None) -> Iterator[tuple[Segment, dict[str, Any]]]:
    if direction is None:
        raise InputError("this model translates both ways: say the language of the lines with --source-lang en or fr")
    for line in lines:
        yield Segment(line, direction), {}


def _json_rows(
    lines: Iterator[str], name: str, card: ModelCard, direction: tuple[str, str] | None
) -> Iterator[tuple[Segment, dict[str, Any]]]:
    directions = dict(card.directions)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            text, language = row["source"], row.get("source_lang") or (direction and direction[0])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f'{name}:{number}: not a row like {{"source": "...", "source_lang": "en"}}') from error
        if not isinstance(text, str) or not isinstance(language, str) or language not in directions:
            raise InputError(
                f"{name}:{number}: source is {type(text).__name__} and source_lang is {language!r}; "
                f"{card.key} translates text from {' or '.join(directions)}"
            )
        try:
            json.dumps(row, ensure_ascii=False, allow_nan=False).encode()
        except UnicodeEncodeError as error:
            half = f"U+{ord(error.object[error.start]):04X}"
            raise InputError(f"{name}:{number}: {half} is half a character; write whole ones") from error
        except ValueError as error:
            raise InputError(f"{name}:{number}: a number in it is NaN or beyond the range of a double") from error
        yield Segment(text, (language, directions[language])), row


def _lines(name: str) -> Iterator[str]:
    """Yield lines without their end: LF or CRLF, nothing else, because U+2028 and the like are text."""
    number = 0
    try:
        for number, line in enumerate(_bytes_of(name), start=1):
            if len(line) > MAX_LINE_BYTES:
                raise InputError(f"{name}:{number}: longer than {MAX_LINE_BYTES:,} bytes; split it into sentences")
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            yield text.removesuffix("\r")
    except UnicodeDecodeError as error:
        hint = "; standard input is read as it is, so unpack it first" if name == "-" else ""
        raise InputError(f"{name}:{number}: not UTF-8 text: {error.reason}{hint}") from error
    except BrokenStreamError as error:
        raise InputError(f"{name}:{number + 1}: cannot be read: {error}") from error


def _bytes_of(name: str) -> Iterator[bytes]:
    if name == "-":
        return (line.removesuffix(b"\n") for line in sys.stdin.buffer)
    return read_lines(name)


def _open_as(suffix: str, path: Path) -> TextIO:
    """Open a file for text, compressed where the name it will have says so."""
    form: dict[str, Any] = {"mode": "wt", "encoding": "utf-8", "newline": "\n"}
    if suffix == ".gz":
        return cast(TextIO, gzip.open(path, **form))
    if suffix == ".zst":
        import zstandard

        return cast(TextIO, zstandard.open(path, **form))
    return cast(TextIO, path.open(**form))


@contextmanager
def _writing(name: str) -> Iterator[TextIO]:
    if name == "-":
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
        yield sys.stdout
        return
    path = Path(name)
    if path.is_dir():
        raise InputError(f"{name}: cannot be written: it is a folder; name a file")
    if path.exists() and not path.is_file():
        raise InputError(f"{name}: is no regular file, and would be replaced; - is standard output")
    try:
        with files.replacing(path) as temporary, _open_as(path.suffix, temporary) as target:
            yield target
            target.flush()
    except OSError as error:
        raise InputError(f"{name}: cannot be written: {error.strerror or error}") from error
