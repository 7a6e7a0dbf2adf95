"""The base checkpoint from the hub: fetched once, before any rank starts, and known by its commit and its files."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from mtft import files, lease, provenance
from mtft.config import Config
from mtft.errors import InputError, MtftError, Retry, causes, unread
from mtft.models import ModelCard
from mtft.runs import RunPaths
from trainer import weights

# What the loaders read; pickles and the other frameworks' weights stay where they are.
_WANTED = tuple(f"*{suffix}" for suffix in (*weights.TEXTS, weights.SUFFIX))

_PAUSES = (5.0, 15.0, 40.0)  # seconds between two tries of a hub that does not answer
_ASK_AGAIN = (408, 425, 429)

_log = logging.getLogger("mtft.hub")


def pin_base(paths: RunPaths, config: Config, card: ModelCard) -> Config:
    """Fetch a run's base from the hub, write down what it is, and return the configuration with its commit.

    A base in a local folder is left alone: the supervisor knows it by its files.

    Raises:
        InputError: it cannot be fetched, or is not what the run began with.
        Retry: the hub does not answer.
    """
    if config.model.path is not None:
        return config
    record = provenance.read(paths.provenance)
    began_with = record["base"]
    folder = fetch(card.base, began_with["revision"] if began_with["sha256"] else config.model.revision)
    # Others may add to a shared cache what no loader reads.
    wanted = {found for pattern in _WANTED for found in folder.rglob(pattern) if found.is_file()}
    named = ((found.relative_to(folder).as_posix(), found) for found in wanted)
    base = {"checkpoint": card.base, "revision": folder.name, "sha256": provenance.files_hash(named)}
    if began_with["sha256"] not in (None, base["sha256"]):
        raise InputError(
            f"the files of {card.base} at {folder.name} changed since run {paths.run_id} began; "
            "start another run with --rerun, or restore the hub cache"
        )
    files.write_json(paths.provenance, record | {"base": base})
    return _at_commit(config, folder.name)


def at_recorded_commit(paths: RunPaths, config: Config) -> Config:
    """Return the configuration with a base from the hub at the commit that the run was prepared with."""
    if config.model.path is not None:
        return config
    return _at_commit(config, provenance.read(paths.provenance)["base"]["revision"])


def _at_commit(config: Config, revision: str | None) -> Config:
    return config.model_copy(update={"model": config.model.model_copy(update={"revision": revision})})


def fetch(checkpoint: str, revision: str | None) -> Path:
    """Return the folder of a hub checkpoint in the local cache, named by its commit; download what is missing.

    Of several processes that share a cache one downloads; the others wait and find it there.

    Raises:
        InputError: it is not there and cannot be downloaded, or has no weights that are read.
        Retry: it is not there, and the hub does not answer however often it is asked.
    """
    for pause in _PAUSES:
        try:
            return _fetched(checkpoint, revision)
        except Retry as error:
            _log.warning("%s; trying again in %.0f s", error, pause)
        time.sleep(pause)
    return _fetched(checkpoint, revision)


def _fetched(checkpoint: str, revision: str | None) -> Path:
    import httpx2
    from huggingface_hub import snapshot_download

    try:
        with _alone(checkpoint):
            folder = Path(snapshot_download(checkpoint, revision=revision, allow_patterns=list(_WANTED)))
    except (OSError, ValueError, httpx2.HTTPError) as error:
        what = f"{checkpoint} at {revision}" if revision else checkpoint
        raise _refusal(f"{what} is neither in the hub cache nor can it be downloaded", error) from error
    _check_weights(checkpoint, folder)
    return folder


def _refusal(text: str, error: BaseException) -> MtftError:
    """Tell a hub that does not answer, which a later try may find again, from what a person has to mend."""
    from huggingface_hub import constants

    outage = next(filter(_is_outage, causes(error)), None)
    if outage is not None and not constants.HF_HUB_OFFLINE:
        return Retry(
            f"{text}, because the hub does not answer ({_named(outage)}): check the network, or give a local "
            "checkpoint folder with --model-path FOLDER"
        )
    advice = "give a local checkpoint folder with model.path, or check the network and HF_HUB_OFFLINE"
    return unread(f"{text} ({type(error).__name__}); {advice}", error)


def _is_outage(error: BaseException) -> bool:
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500 or error.response.status_code in _ASK_AGAIN
    outages = httpx2.NetworkError, httpx2.TimeoutException, httpx2.RemoteProtocolError, httpx2.ProxyError
    return isinstance(error, outages)


def _named(outage: BaseException) -> str:
    status = getattr(getattr(outage, "response", None), "status_code", None)
    return f"HTTP {status}" if status else type(outage).__name__


def _check_weights(checkpoint: str, folder: Path) -> None:
    """Refuse a base without safetensors; only the hub knows what else its repository holds.

    Raises:
        InputError: it has none, or they were never fetched and the hub cannot be asked.
    """
    from huggingface_hub import list_repo_files

    names = {path.name for path in folder.iterdir()}
    if any(name.endswith(weights.SUFFIX) for name in names):
        return
    try:
        names |= {name for name in list_repo_files(checkpoint, revision=folder.name) if "/" not in name}
    except Exception as error:  # each way of not reaching it has an exception of its own
        if not any(name.endswith(weights.PICKLES) for name in names):
            raise InputError(
                f"the hub cache has {checkpoint} at {folder.name} without weights (*{weights.SUFFIX}), and the hub "
                f"cannot be asked for them ({type(error).__name__}); fetch it where there is a network, without "
                "HF_HUB_OFFLINE, or give a local checkpoint folder with --model-path FOLDER"
            ) from error
    weights.check_names(names, checkpoint, folder.name)


@contextlib.contextmanager
def _alone(checkpoint: str) -> Iterator[None]:
    """Hold the right to download a checkpoint; where nothing can be written or downloaded there is none to hold."""
    from huggingface_hub import constants

    path = Path(constants.HF_HUB_CACHE) / f".mtft-{checkpoint.replace('/', '--')}.lease"
    with contextlib.ExitStack() as stack:
        if not constants.HF_HUB_OFFLINE:
            with contextlib.suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(lease.hold(path))
        yield
