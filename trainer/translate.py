"""Translate lines or JSONL with a finished run: ``python -m trainer.translate --run-dir DIR [FILE]``.

The same search as the evaluation's: batched by length, order kept. An empty line stays empty.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import torch
from peft import PeftModel
from torch import nn

from mtft import files
from mtft.config import Config
from mtft.errors import InputError
from mtft.models import ModelCard
from mtft.runs import RunPaths
from mtft.settings import load_document, resolve
from trainer.distributed import World, choose_device
from trainer.encoding import Encoder
from trainer.families import load_tokenizer
from trainer.generation import Decoding, Segment, translate
from trainer.loading import choose_precision, load_base
from trainer.quiet import quiet_libraries
from trainer.reasons import guard

# Enough to fill batches of like lengths, little enough to give answers while a pipe still writes.
_CHUNK_ROWS = 2048


def main(arguments: list[str] | None = None) -> None:
    """Translate one input to one output."""
    parser = argparse.ArgumentParser(prog="python -m trainer.translate", description=__doc__)
    parser.add_argument("input", nargs="?", default="-", help="file to translate; - is standard input")
    parser.add_argument("--run-dir", type=Path, required=True, help="folder of a finished run")
    parser.add_argument("--output", default="-", help="file to write; - is standard output")
    parser.add_argument("--format", choices=("lines", "jsonl"), help="default: jsonl for *.jsonl, else lines")
    parser.add_argument("--source-lang", help="language of the lines, where the model translates both ways")
    parser.add_argument("--beams", type=int, help="beam width; default: eval.beams of the run")
    parser.add_argument("--base", action="store_true", help="translate with the untuned base instead")
    options = parser.parse_args(arguments)
    with guard(rank=0):
        quiet_libraries()
        run_translation(options)


def run_translation(options: argparse.Namespace) -> None:
    """Load the run's model and translate the whole input.

    Raises:
        InputError: the run is not finished, or a row cannot be read.
    """
    paths = RunPaths.of(options.run_dir)
    if not paths.finished.is_file():
        raise InputError(f"{paths.folder} is not a finished run: it has no finished.json")
    resolved = resolve(load_document(paths.config))
    config, card = resolved.config, resolved.card
    direction = choose_direction(card, options.source_lang)
    # A run trained on a GPU has to translate on a laptop too.
    anywhere = config.model_copy(update={"train": config.train.model_copy(update={"device": "auto"})})
    device = choose_device(anywhere, 0)
    world = World(rank=0, local_rank=0, size=1, device=device)
    model, encoder = load_finished(paths, config, card, world, base_only=options.base)
    decoding = Decoding(
        beams=options.beams or config.eval.beams,
        batch_tokens=config.eval.batch_tokens,
        dtype=choose_precision(config, device) if config.train.precision == "auto" else torch.float32,
    )
    jsonl = (options.format or ("jsonl" if options.input.endswith(".jsonl") else "lines")) == "jsonl"
    with _reading(options.input) as source, _writing(options.output) as target:
        rows = _json_rows(source, options.input, card, direction) if jsonl else _line_rows(source, direction)
        while chunk := list(islice(rows, _CHUNK_ROWS)):
            hypotheses = translate(model, encoder, [segment for segment, _ in chunk], decoding, world)
            for (_, row), hypothesis in zip(chunk, hypotheses, strict=True):
                text = hypothesis.text.replace("\n", " ")
                if jsonl:
                    text = json.dumps({**row, "translation": hypothesis.text}, ensure_ascii=False)
                target.write(text + "\n")
            target.flush()


def load_finished(
    paths: RunPaths, config: Config, card: ModelCard, world: World, *, base_only: bool = False
) -> tuple[nn.Module, Encoder]:
    """Load what a finished run made: the base with its adapter, or the fully tuned model."""
    tuned = paths.folder / "model" if config.method == "full" else paths.lora
    if config.method == "full" and not base_only:
        config = config.model_copy(update={"model": config.model.model_copy(update={"path": str(tuned)})})
    base = load_base(card, config, world)
    model: Any = base
    if config.method != "full" and not base_only:
        model = PeftModel.from_pretrained(base, str(tuned))
    source = config.model.path or card.base
    tokenizer = load_tokenizer(card, source, config.model.revision or card.revision)
    lengths = {"max_source_length": config.train.max_source_length, "max_target_length": config.train.max_target_length}
    return model.eval(), Encoder(card, tokenizer, **lengths)


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


def _line_rows(source: TextIO, direction: tuple[str, str] | None) -> Iterator[tuple[Segment, dict[str, Any]]]:
    if direction is None:
        raise InputError("this model translates both ways: say the language of the lines with --source-lang en or fr")
    for line in source:
        yield Segment(line.rstrip("\n"), direction), {}


def _json_rows(
    source: TextIO, name: str, card: ModelCard, direction: tuple[str, str] | None
) -> Iterator[tuple[Segment, dict[str, Any]]]:
    directions = dict(card.directions)
    for number, line in enumerate(source, start=1):
        try:
            row = json.loads(line)
            text, language = row["source"], row.get("source_lang") or (direction and direction[0])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f'{name}:{number}: not a row like {{"source": "...", "source_lang": "en"}}') from error
        if not isinstance(text, str) or language not in directions:
            raise InputError(
                f"{name}:{number}: source is {type(text).__name__} and source_lang is {language!r}; "
                f"{card.key} translates text from {' or '.join(directions)}"
            )
        yield Segment(text, (language, directions[language])), row


@contextmanager
def _reading(name: str) -> Iterator[TextIO]:
    # Only \n ends a line: U+2028 and the like are text.
    try:
        with open(0 if name == "-" else name, encoding="utf-8", newline="\n", closefd=name != "-") as source:
            yield source
    except FileNotFoundError as error:
        raise InputError(f"there is no file {name}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 text: {error}") from error


@contextmanager
def _writing(name: str) -> Iterator[TextIO]:
    if name == "-":
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
        yield sys.stdout
        return
    with files.replacing(Path(name)) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as target:
        yield target
        target.flush()


if __name__ == "__main__":
    main()
