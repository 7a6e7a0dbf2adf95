"""Small data for the preparation, and an encoder of letters."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtft.config import Config
from mtft.models import card
from trainer.building import Inputs
from trainer.encoding import Encoded
from trainer.preparation import prepare
from trainer.prepared_data import Prepared

Standins = Callable[[str], Path]
TWO_WAY, ONE_WAY = "m2m100_418m", "opus_mt_fr_en"


class Letters:
    """An encoder at the edge of the data path: code points, cut to 20, "?" unknown; counts its calls."""

    def __init__(self, fingerprint: str = "letters") -> None:
        self.fingerprint = fingerprint
        self.calls = 0

    def encode(self, sources: list[str], targets: list[str], source_lang: str, target_lang: str) -> Encoded:
        self.calls += 1
        tag = {"en": 1, "fr": 2}
        return Encoded(
            source_ids=[[tag[source_lang], *map(ord, text[:20])] for text in sources],
            target_ids=[[tag[target_lang], *map(ord, text[:20])] for text in targets],
            truncated=sum(max(len(a), len(b)) > 20 for a, b in zip(sources, targets, strict=True)),
            unknown=sum(text.count("?") for text in sources),
            pieces=sum(map(len, sources)),
        )


def config(train: Path | list[Path], key: str = TWO_WAY, **data: Any) -> Config:
    paths = [str(path) for path in train] if isinstance(train, list) else str(train)
    given = {name: str(value) if isinstance(value, Path) else value for name, value in data.items()}
    return Config.model_validate({"model": key, "data": {"train": paths, **given}})


def pair(number: int, source_lang: str = "en", **more: Any) -> str:
    texts = {"en": f"Cod number {number}.", "fr": f"Morue numéro {number}."}
    other = "fr" if source_lang == "en" else "en"
    fields = {"source": texts[source_lang], "target": texts[other], "source_lang": source_lang}
    return json.dumps({**fields, "pub_number": f"D-{number // 5}", **more}, ensure_ascii=False)


def write(path: Path, lines: list[str]) -> Path:
    path.write_bytes("".join(f"{text}\n" for text in lines).encode())
    return path


def build(settings: Config, root: Path, encoder: Any = None) -> Prepared:
    return prepare(settings, card(settings.model.key), encoder or Letters(), Inputs.of(settings.data), root)


def tree(root: Path) -> set[str]:
    """Name what was left below the cache, by store."""
    return {str(path.relative_to(root / "cache" / "data")) for path in root.glob("cache/data/*")}


def raw(prepared: Prepared, name: str) -> list[dict[str, str]]:
    return [json.loads(text) for text in (prepared.folder / f"{name}.jsonl").read_text("utf-8").split("\n")[:-1]]
