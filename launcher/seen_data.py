"""What the launcher can say about the training data: their digest, where it sees them as the pods do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from launcher.arguments import user_path
from mtft.errors import InputError

if TYPE_CHECKING:
    from mtft.config import Config
    from mtft.settings import Resolved


def with_data_facts(document: Mapping[str, Any], resolved: Sequence[Resolved]) -> dict[str, Any]:
    """Return the document with ``data.sha256`` filled in where this machine sees the data at the pods' own path.

    An in-cluster launcher mounts the shared volume as the pods do, so it sees them; a laptop usually does not.

    Raises:
        InputError: the data are on this machine, but not where a pod finds them.
    """
    from mtft.settings import merge, models_of

    known: dict[tuple[str, ...], str | None] = {}
    digests: dict[str, str] = {}
    for one in resolved:
        _refuse_local(one.config)
        paths = _paths(one.config.data.train)
        if one.config.data.sha256 is None and paths:
            if tuple(paths) not in known:
                known[tuple(paths)] = _digest(paths)
            if (digest := known[tuple(paths)]) is not None:
                digests[one.card.key] = digest
    together = "models" not in document or set(models_of(document)) <= set(digests)
    if together and len(set(digests.values())) == 1:
        return merge(document, flags={"data.sha256": next(iter(digests.values()))})
    return merge(document, flags={f"models.{model}.data.sha256": digest for model, digest in digests.items()})


def _digest(paths: Sequence[str]) -> str | None:
    from mtft.sources import content_sha256

    return content_sha256(paths) if all(Path(path).exists() for path in paths) else None


def _refuse_local(config: Config) -> None:
    root = PurePosixPath(config.storage.root)
    for field in ("train", "dev", "test"):
        for path in _paths(getattr(config.data, field)):
            if "://" in path or PurePosixPath(path).is_relative_to(root):
                continue
            here = user_path(path)
            if PurePosixPath(path).is_absolute() and (config.data.sha256 or not here.exists()):
                continue  # the image, or a volume the cluster mounts, may hold it
            raise InputError(
                f"data.{field}: {path} is a path of this machine, but the pods see only {root} of the shared volume; "
                f"`mtft-launch data push {path}` puts it there, then give {root / 'data' / here.name} "
                "(or train on this machine: --backend local)"
            )


def _paths(given: str | Sequence[str] | None) -> list[str]:
    return [given] if isinstance(given, str) else list(given or ())
