"""What an action writes into a job's configuration."""

from __future__ import annotations

import json
from typing import Any

from launcher.actions import _with_fresh_budget
from launcher.differences import _document
from mtft.naming import config_hash, document_text
from mtft.settings import resolve

MODEL, OTHER = "opus_mt_en_fr", "m2m100_418m"
DOCUMENT: dict[str, Any] = {
    "data": {"train": "/mnt/mtft/data/train.jsonl"},
    "models": {MODEL: {}, OTHER: {"cluster": {"max_restarts": 5}}},
    "cluster": {"image": "example.org/mtft:1.0", "max_restarts": 1},
}


def test_a_retry_gives_one_model_of_a_batch_another_budget_and_changes_nothing_else() -> None:
    held: dict[str, Any] = {"data": {"config.json": document_text(DOCUMENT)}}
    seen: list[str | None] = [None]
    for _ in range(2):
        held = {"data": _with_fresh_budget(held, MODEL)}
        document = json.loads(held["data"]["config.json"])
        retried = resolve(document, model=MODEL).config.cluster
        seen.append(retried.retried)
        assert retried.max_restarts == 1
        other = resolve(document, model=OTHER).config.cluster
        assert (other.retried, other.max_restarts) == (None, 5)
        assert config_hash(document, MODEL) == config_hash(DOCUMENT, MODEL)
        # What `diff` compares does not know of it.
        assert _document(held)["models"][MODEL].get("cluster") is None
        assert _document(held)["cluster"] == DOCUMENT["cluster"]
    assert len(set(seen)) == 3
