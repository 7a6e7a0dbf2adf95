"""``python -m trainer --self-test``: what this image or machine can do, one line each."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path

from mtft import exit_codes

_IMPORTS = ("torch", "transformers", "peft", "datasets", "sentencepiece", "sacrebleu", "safetensors", "bitsandbytes")


def self_test(root: Path) -> int:
    """Print one line per check; return 0, or 2 when something the trainer needs is missing."""
    results = [_import(name) for name in _IMPORTS]
    if results[0]:
        _cuda()
    results.append(_writable(root))
    return exit_codes.DONE if all(results) else exit_codes.BAD_INPUT


def _import(name: str) -> bool:
    try:
        module = importlib.import_module(name)
    except Exception as error:  # a broken native library raises anything
        print(f"import {name}: FAILED ({type(error).__name__}: {error})")
        return False
    print(f"import {name}: ok ({getattr(module, '__version__', 'no version')})")
    return True


def _cuda() -> None:
    import torch

    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    print(f"CUDA: {len(devices)} visible ({', '.join(devices)})" if devices else "CUDA: none visible, the CPU is used")


def _writable(root: Path) -> bool:
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=root, prefix=".mtft-self-test-"):
            pass
    except OSError as error:
        print(f"write access to {root.absolute()}: FAILED ({error.strerror})")
        return False
    print(f"write access to {root.absolute()}: ok")
    return True
