"""Fixtures shared by all tests. Nothing here reaches a network."""

from __future__ import annotations

import os

# Before anything imports transformers, and inherited by every process a test starts.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Tiny models gain nothing from threads, and the processes of one test share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from demo.corpus import Pair
from tests.standins.text import generated_pairs, lines_of

CHECKOUT = Path(__file__).resolve().parents[1]


def require(part: str, reason: str) -> NoReturn:
    """Skip the test because ``part`` is missing; fail it when ``MTFT_REQUIRE`` names the part.

    ``MTFT_REQUIRE`` is a comma-separated list of parts, for example ``real-data,helm``; ``.ci/run`` sets it.
    """
    required = {name.strip() for name in os.environ.get("MTFT_REQUIRE", "").split(",")}
    if part in required:
        pytest.fail(f"{part} is required by MTFT_REQUIRE: {reason}", pytrace=False)
    pytest.skip(f"{part}: {reason}")


@pytest.fixture(scope="session")
def parallel_text() -> list[Pair]:
    """Four hundred distinct English-French sentence pairs."""
    return generated_pairs(400)


@pytest.fixture(scope="session")
def standins(parallel_text: list[Pair]) -> Callable[[str], Path]:
    """Give the tiny stand-in of a model key or family: ``standins("marian")``; shared, so read-only."""
    from tests.standins.build import cached_standin

    return lambda model: cached_standin(model, lines=lines_of(parallel_text))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Give the folder with real sentences: train, dev and test ``.jsonl.gz``."""
    folder = Path(os.environ.get("MTFT_REAL_DATA") or CHECKOUT.parent / "shared" / "sample-data")
    if not (folder / "train.jsonl.gz").is_file():
        require("real-data", f"no train.jsonl.gz in {folder}; set MTFT_REAL_DATA to the folder that has it")
    return folder
