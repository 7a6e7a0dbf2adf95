"""What several benchmarks need: real rows, stand-ins trained on them, one rank on the CPU."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from demo.corpus import generate, rows
from mtft.config import Config
from mtft.models import ModelCard, card
from mtft.rows import Row, read_rows
from tests.standins.build import cached_standin
from trainer.distributed import World
from trainer.encoding import Encoder
from trainer.families import load_tokenizer

HERE = Path(__file__).resolve().parent
ONE_CPU = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))


def real_folder() -> Path | None:
    """Return the folder with the real sample, or None where there is none."""
    folder = Path(os.environ.get("MTFT_REAL_DATA") or HERE.parent.parent / "shared" / "sample-data")
    return folder if (folder / "train.jsonl.gz").is_file() else None


def read_split(name: str, most: int | None = None) -> list[Row]:
    """Return the rows of a split of the real sample, or generated ones where it is absent, saying so."""
    folder = real_folder()
    if folder is not None:
        found = [row for row in read_rows([folder / f"{name}.jsonl.gz"]) if isinstance(row, Row)]
    else:
        print("no real sample found (MTFT_REAL_DATA): generated sentences are used instead")
        pairs = generate("assessment", 6000 if name == "train" else 600, seed=len(name))
        found = [Row(**row, file="generated", line=at) for at, row in enumerate(rows(pairs))]
    return found if most is None else found[:most]


def lines(some: list[Row]) -> list[str]:
    """Return both sides of some rows: the text a stand-in's vocabulary is made from."""
    return [text for row in some for text in (row.source, row.target)]


@dataclass(frozen=True)
class Bench:
    """A stand-in with its tokenizer."""

    card: ModelCard
    checkpoint: Path
    encoder: Encoder

    @classmethod
    def of(cls, key: str, size: str = "tiny") -> Bench:
        """Build (or take from the cache) the stand-in of a key with a vocabulary of the real text."""
        checkpoint = cached_standin(key, lines=lines(read_split("train", 8000)), size=size)
        tokenizer = load_tokenizer(card(key), checkpoint)
        return cls(card(key), checkpoint, Encoder(card(key), tokenizer, max_source_length=512, max_target_length=512))

    def dataset(self, some: list[Row], direction: tuple[str, str]) -> Dataset:
        """Encode the rows of one direction."""
        mine = [row for row in some if row.source_lang == direction[0]]
        encoded = self.encoder.encode([row.source for row in mine], [row.target for row in mine], *direction)
        return Dataset.from_dict({"source_ids": encoded.source_ids, "target_ids": encoded.target_ids})

    def config(self, **parts: Any) -> Config:
        """Return a configuration of this stand-in."""
        model = {"key": self.card.key, "path": str(self.checkpoint)}
        return Config.model_validate({"model": model, "data": {"train": "unused"}, **parts})
