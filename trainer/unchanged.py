"""Whether there is anything to retrain: a finished run of the same data, base, configuration and code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mtft import files, store
from mtft.config import Config
from mtft.errors import may_pass
from mtft.runs import RunPaths

_KEPT = ("config_hash", "code_sha256", "data", "guard_sets")


def same_run(root: Path, model: str, config: Config, ingredients: dict[str, Any]) -> str | None:
    """Return the run-id of the newest finished run made of the same ingredients; None where that cannot be told.

    Args:
        root: the storage root.
        model: key of the model.
        config: the configuration asked for.
        ingredients: what ``provenance.json`` would say: data, guard sets, base, config_hash and code_sha256.

    Raises:
        OSError: the volume fails for a moment, which says nothing about the runs on it.
    """
    if not _are_known(config, ingredients):
        return None
    folder = store.outputs(root, model)
    for run_id in reversed(store.finished_ids(folder)):
        try:
            recorded = files.read_json(RunPaths.at(root, model, run_id).provenance)
            # Steps of two versions of the code are those of neither.
            same = not recorded.get("earlier_code") and all(recorded[name] == ingredients[name] for name in _KEPT)
            same = same and _same_base(recorded["base"], ingredients["base"])
            if same and store.is_complete(folder, run_id, hashed=True):
                return run_id
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if may_pass(error):
                raise
            continue  # a run without its provenance is like no other
    return None


def _are_known(config: Config, ingredients: dict[str, Any]) -> bool:
    """Whether all data could be hashed, and the base is a folder or pinned to a commit of the hub."""
    data, base = ingredients["data"], ingredients["base"]
    hashed = all(data[name] is not None for name in ("train", "dev", "test") if getattr(config.data, name) is not None)
    hashed = hashed and None not in ingredients["guard_sets"].values()
    return hashed and (base["sha256"] or base["revision"]) is not None


def _same_base(recorded: dict[str, Any], wanted: dict[str, Any]) -> bool:
    # A run writes down the files of a base from the hub too, once it has fetched them.
    told = "sha256" if wanted["sha256"] is not None else "revision"
    same: bool = recorded["checkpoint"] == wanted["checkpoint"] and recorded[told] == wanted[told]
    return same
