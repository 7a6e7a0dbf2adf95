"""What went into a run: hashes of data, configuration, code and base, versions, seed, machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtft import files
from mtft.cluster_config import IMAGE_DIGEST, POD_FACTS
from mtft.errors import InputError
from mtft.sources import DATA_SETTINGS, as_list, content_sha256

_LIBRARIES = (
    "mtft",
    "torch",
    "transformers",
    "tokenizers",
    "sentencepiece",
    "peft",
    "accelerate",
    "datasets",
    "safetensors",
    "bitsandbytes",
    "sacrebleu",
    "lingua-language-detector",
    "numpy",
)


def read(path: Path) -> dict[str, Any]:
    """Return what went into a run, from its ``provenance.json``.

    Raises:
        InputError: there is no such run, or its record is damaged.
    """
    try:
        return dict(files.read_json(path))
    except FileNotFoundError:
        raise InputError(
            f"{path.parent}: there is no run with a {path.name}; a run without it is to be trained anew (--rerun)"
        ) from None
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: cannot be understood ({error}); train the run anew with --rerun") from None


def text_hash(*parts: str) -> str:
    """Return the SHA-256 of several texts, kept apart by their lengths."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8")
        digest.update(f"{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()


def files_hash(paths: Iterable[tuple[str, Path]]) -> str:
    """Return one SHA-256 over files, each under the name it is known by; independent of their order."""
    return text_hash(*(f"{files.sha256_file(path)}  {name}" for name, path in sorted(paths)))


def code_hash() -> str:
    """Return the SHA-256 over the installed sources of ``mtft`` and ``trainer``."""
    top = Path(__file__).resolve().parent.parent
    sources = [path for package in ("mtft", "trainer") for path in (top / package).rglob("*.py")]
    return files_hash((path.relative_to(top).as_posix(), path) for path in sources)


def base_identity(checkpoint: str, path: str | None, revision: str | None) -> dict[str, str | None]:
    """Say which base model a run starts from.

    Args:
        checkpoint: name of the checkpoint on the hub.
        path: local checkpoint folder, used instead of the hub; None for the hub.
        revision: commit on the hub, or None while it is not pinned.

    Raises:
        InputError: ``path`` is not a folder.
    """
    if path is None:
        return {"checkpoint": checkpoint, "revision": revision, "sha256": None}
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(
            f"model.path: {path} is not a folder with a checkpoint; give the folder that holds config.json"
        )
    named = [(found.relative_to(folder).as_posix(), found) for found in sorted(folder.rglob("*")) if found.is_file()]
    visible = [(name, found) for name, found in named if not any(part.startswith(".") for part in Path(name).parts)]
    return {"checkpoint": str(folder), "revision": None, "sha256": files_hash(visible)}


def data_identity(
    sources: str | Sequence[str] | None, sha256: str | None = None, *, setting: str = DATA_SETTINGS
) -> str | None:
    """Return the SHA-256 of data as ``data.sha256`` counts it: the given one, else computed from local files.

    None where there are no sources, or where they lie on another machine. ``setting`` is where a person named them.

    Raises:
        InputError: a local file is missing or unreadable.
    """
    paths = as_list(sources)
    if sha256 is not None or not paths or any("://" in path for path in paths):
        return sha256
    return content_sha256(paths, setting)


def versions() -> dict[str, str | None]:
    """Return the installed version of each library that can change a result; None when it is absent."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def machine() -> dict[str, Any]:
    """Return where this process runs; ``image_digest`` is what the pod was told, or None."""
    return {
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "image_digest": os.environ.get(IMAGE_DIGEST),
    }


def request(document: Mapping[str, Any], model: str, job_uid: str | None) -> dict[str, Any]:
    """Return what ``mtft-launch reproduce`` makes the same job of.

    Args:
        document: as the user wrote it, unresolved.
        model: key of the model.
        job_uid: UID of the PyTorchJob; None where no launcher told it.

    Returns:
        ``{"model", "document", "job_uid", "pod"}``; ``pod`` is what the pod knows of itself
        (namespace, name, UID, batch, and the hash that its labels carry), None without a cluster.
    """
    told = {name.removeprefix("MTFT_").lower(): os.environ.get(name) or None for name in POD_FACTS}
    return {
        "model": model,
        "document": {name: value for name, value in document.items() if name != "chart"},
        "job_uid": job_uid,
        "pod": told if told["pod_uid"] else None,
    }
