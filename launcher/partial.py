"""A configuration that is asked for its cluster and storage, and may say nothing yet of model, data or image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.arguments import DEFAULT_FILE
from mtft.errors import InputError
from mtft.legacy import translate
from mtft.models import MODELS
from mtft.paths import look_up, put
from mtft.settings import Document, load_document, merge, models_of, resolve

if TYPE_CHECKING:
    from mtft.config import Config


def filled(
    document: Mapping[str, Any], model: str | None = None, *, image: str | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Return a document without gaps, and the models it means: that, else its enabled ones, else any.

    Args:
        document: what the user gave, flags and ``--set`` included.
        model: the only one that is meant.
        image: what stands for ``cluster.image`` where that is not set; None: it may stay unset.

    Raises:
        ConfigError: its models cannot be read.
    """
    whole, given = dict(document), translate(document, lambda _: "").values
    for path, value in (("data.train", "data"), ("cluster.image", image)):
        if value is not None and look_up(given, path) is None:
            put(whole, path, value)  # for all models; what one of them says stays
    keys = [model] if model else models_of(document)
    if not keys:
        whole.pop("models", None)
    return whole, keys or [next(iter(MODELS))]


def cluster_config(path: Path | None, sets: Sequence[str] = (), model: str | None = None) -> Config:
    """Return a configuration for its cluster and storage alone; the rest may be missing in the file.

    Args:
        path: the file; None: ./mtft.yaml where there is one.
        sets: of ``--set``.
        model: whose; one that the file does not name takes the shared part. None: that of all enabled models.

    Raises:
        InputError: the file cannot be read, has no ``cluster.image``, or models that keep their files apart.
        ConfigError: with every problem of the configuration.
    """
    given = path or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)
    document = merge(load_document(given) if given else Document({}, source="command line"), sets)
    if model is not None:
        models = document.get("models")
        unread = {"model", "models"} if isinstance(models, Mapping) and model not in models else {"model"}
        document = {name: part for name, part in document.items() if name not in unread}
    document, keys = filled(document, model)
    found = {key: resolve(document, model=key).config for key in keys}
    _refuse_places_apart(found)
    config = next(iter(found.values()))
    if config.cluster.image is None:
        raise InputError(
            "cluster.image is not set: the pod that takes the files needs mtft's image; "
            "set it in mtft.yaml or with --set cluster.image=REPOSITORY:TAG"
        )
    return config


def _refuse_places_apart(found: Mapping[str, Config]) -> None:
    """Leave the choice to a person where models have several volumes."""
    places = {key: (one.cluster.namespace, one.cluster.claim, one.storage.root) for key, one in found.items()}
    if len(set(places.values())) > 1:
        told = (
            f"{key}: claim {claim}, root {root}{f', namespace {namespace}' if namespace else ''}"
            for key, (namespace, claim, root) in places.items()
        )
        raise InputError(f"the models keep their files in several places ({'; '.join(told)}); choose with --model KEY")
