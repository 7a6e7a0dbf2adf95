"""The model hub: which commit a checkpoint is at now."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mtft.errors import InputError

_COMMIT = re.compile(r"[0-9a-f]{40}")
_PATIENCE = 30  # seconds for one answer


def commits(checkpoints: Iterable[str]) -> dict[str, str]:
    """Ask the hub for the newest commit of each checkpoint, once for each.

    Raises:
        InputError: the hub's client is not installed, the hub cannot be reached or does not tell one of them.
    """
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    except ImportError:
        raise InputError("asking the model hub needs its client; install it with: pip install 'mtft[train]'") from None
    hub = HfApi()
    found: dict[str, str] = {}
    for checkpoint in dict.fromkeys(checkpoints):
        try:
            commit = hub.model_info(checkpoint, timeout=_PATIENCE).sha
        except OfflineModeIsEnabled:
            raise InputError(f"{hub.endpoint} is not asked while HF_HUB_OFFLINE is set; unset it") from None
        except HfHubHTTPError as error:
            raise InputError(
                f"{hub.endpoint} does not tell the commit of {checkpoint}: status {error.response.status_code}; "
                "HF_TOKEN gives access to what is not public"
            ) from None
        except Exception as error:  # the transport's own, which change from one version of the client to the next
            raise InputError(
                f"{hub.endpoint} does not tell the commit of {checkpoint}: {error or type(error).__name__}; "
                "check the network and HF_ENDPOINT"
            ) from None
        if commit is None or not _COMMIT.fullmatch(commit):
            raise InputError(f"{hub.endpoint} does not tell the commit of {checkpoint}; check HF_ENDPOINT")
        found[checkpoint] = commit
    return found
