"""What the launcher can say about the training data: their digest, where it sees them as the pods do."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from launcher.arguments import user_path
from launcher.pod import OUR_MOUNTS
from launcher.printed import in_namespace
from mtft.errors import InputError
from mtft.text import printable

if TYPE_CHECKING:
    from mtft.config import Config
    from mtft.settings import Resolved

OWN_IMAGE = "MTFT_IMAGE"
"""Variable that tells a launcher in a pod its image: trainers of the same one see the same files outside volumes."""
_NAMED = 5  # files told of a folder


def with_data_facts(
    document: Mapping[str, Any], resolved: Sequence[Resolved], namespace: str | None = None
) -> dict[str, Any]:
    """Return the document with ``data.sha256`` filled in where this machine sees the data at the pods' own path.

    An in-cluster launcher mounts the shared volume as the pods do, so it sees them; a laptop usually does not.

    Args:
        document: what is to be sent.
        resolved: the effective configuration of each of its models.
        namespace: that of the command line, for the commands that a refusal names.

    Raises:
        InputError: the data are on this machine, but not where a pod finds them; or the volume is, but not the data.
    """
    from mtft.data_hash import SHARED, place_of_hash
    from mtft.layers import layer_of
    from mtft.settings import merge, models_of
    from mtft.sources import as_list

    known: dict[tuple[str, ...], str | None] = {}
    digests: dict[str, str] = {}
    roots = {each.config.storage.root for each in resolved}
    for one in resolved:
        place = in_namespace(namespace or one.config.cluster.namespace)
        try:
            _refuse_local(one.config, place, roots)
            _refuse_absent(one.config, place)
        except OSError as error:  # such as a name that no file can have
            raise InputError(f"data: {printable(str(error.filename))}: {error.strerror}") from None
        paths = as_list(one.config.data.train)
        if one.config.data.sha256 is None and paths:
            if tuple(paths) not in known:
                known[tuple(paths)] = _digest(paths)
            if (digest := known[tuple(paths)]) is not None:
                digests[one.card.key] = digest
    together = "models" not in document or set(models_of(document)) <= set(digests)
    if together and len(set(digests.values())) == 1:
        shared = merge(document, flags={"data.sha256": next(iter(digests.values()))})
        layer = layer_of(shared, lambda _: "", [])
        if all(place_of_hash([layer], model) == SHARED for model in digests):
            return shared
    return merge(document, flags={f"models.{model}.data.sha256": digest for model, digest in digests.items()})


def _digest(paths: Sequence[str]) -> str | None:
    from mtft.sources import content_sha256

    return content_sha256(paths) if all(_is_there(path) for path in paths) else None


def _refuse_local(config: Config, place: str, roots: Collection[str]) -> None:
    from mtft.sources import as_list

    root = PurePosixPath(config.storage.root)
    same_image = config.cluster.image is not None and os.environ.get(OWN_IMAGE) == config.cluster.image
    for field, given in config.data_paths().items():
        for path in as_list(given):
            if "://" in path or PurePosixPath(path).is_relative_to(root):
                continue
            here = user_path(path)
            mounted = any(PurePosixPath(path).is_relative_to(each) for each in (*OUR_MOUNTS, *roots))
            of_the_image = not here.exists() or (same_image and not mounted)
            if PurePosixPath(path).is_absolute() and (config.data.sha256 or of_the_image):
                continue  # the image, or a volume the cluster mounts, may hold it
            raise InputError(
                f"{field}: {path} is a path of this machine, but the pods see only {root} of the shared volume; "
                f"`mtft-launch data push {path}{place}` puts it there, then give {root / 'data' / here.name} "
                "(or train on this machine: --backend local)"
            )


def _refuse_absent(config: Config, place: str) -> None:
    """Refuse what the pods would not find, where this machine has the volume as they do: else new data go unnoticed."""
    from mtft.sources import as_list

    root = config.storage.root
    if config.data.sha256 is not None or not _is_there(root):
        return
    for field, given in config.data_paths().items():
        for path in as_list(given):
            if PurePosixPath(path).is_relative_to(root) and not _is_there(path):
                raise InputError(
                    f"{field}: there is no {path}; {_nearest(path)}; put it there "
                    f"(`mtft-launch data push PATH{place}`) or correct {field} "
                    f"(where {root} of this machine is not the pods' volume, give data.sha256)"
                )


def _nearest(path: str) -> str:
    """Say what lies in the folder of a path, or in the nearest one above it that there is."""
    folder = next(above for above in Path(path).parents if _is_there(above))
    try:
        names = sorted(each.name for each in folder.iterdir())
    except OSError as error:
        return f"{folder} cannot be read ({error.strerror})"
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{folder} holds {', '.join(map(printable, names[:_NAMED])) or 'nothing'}{more}"


def _is_there(path: str | Path) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # it may not even be looked for
        return False
