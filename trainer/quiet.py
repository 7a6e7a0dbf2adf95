"""Keeps libraries from talking over the run: their notes are not the person's, errors stay."""

from __future__ import annotations

import logging
import warnings


def quiet_libraries() -> None:
    """Silence progress bars, notes and warnings of transformers, bitsandbytes and others; call before they load."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning)
    for name in ("bitsandbytes", "bitsandbytes.backends.cpu.ops"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
