"""``python -m trainer --self-test``: what this image or machine can do, one line each."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from mtft import exit_codes
from mtft.redaction import names_secret

_IMPORTS = (
    *("torch", "transformers", "peft", "datasets", "sentencepiece", "sacrebleu", "safetensors", "bitsandbytes"),
    *("pyarrow", "lingua", "sacremoses", "tensorboard", "trainer.preparation", "trainer.worker"),
)
_SHARED_MEMORY = Path("/dev/shm")
# Below these a line says LOW: a run with published weights would hardly get far, one with a stand-in does.
_LOW_SPACE = 20e9
_LOW_SHARED_MEMORY = 1e9


def self_test(root: Path, *, gpus: int = 0, secrets: Sequence[str] = ()) -> int:
    """Print one line per check; return 0, or 2 when something the trainer needs is missing.

    Args:
        root: where a run would write.
        gpus: number of GPUs that must be visible.
        secrets: ``VARIABLE=SECRET/KEY``: environment variables that must have a value, and where it comes from.
    """
    print(f"Python {sys.version.split()[0]} in {sys.prefix}")
    _identity()
    results = [_import(name) for name in _IMPORTS]
    if results[0]:
        results += [_cuda(gpus)]
    results += [_writable("storage", root), _writable("temporary files", Path(os.environ.get("TMPDIR") or "/tmp"))]
    _space("storage", root, _LOW_SPACE)
    _space("shared memory", _SHARED_MEMORY, _LOW_SHARED_MEMORY)
    print(secrets_line(os.environ))
    results += [_has_value(*secret.split("=", 1)) for secret in secrets]
    print("self-test: " + ("ok" if all(results) else f"FAILED ({results.count(False)} of {len(results)} checks)"))
    return exit_codes.DONE if all(results) else exit_codes.BAD_INPUT


def secrets_line(environment: Mapping[str, str]) -> str:
    """Name the secrets an environment holds; never their values."""
    names = [name if value else f"{name} (empty)" for name, value in sorted(environment.items()) if names_secret(name)]
    return f"secrets in the environment: {', '.join(names) or 'none'}"


def _identity() -> None:
    mask = os.umask(0)
    os.umask(mask)
    groups = ", ".join(str(group) for group in sorted({os.getgid(), *os.getgroups()}))
    print(f"user: UID {os.getuid()}, GID {os.getgid()}, groups {groups}, umask {mask:03o}, PID {os.getpid()}")


def _import(name: str) -> bool:
    try:
        module = importlib.import_module(name)
    except Exception as error:  # a broken native library raises anything
        print(f"import {name}: FAILED ({type(error).__name__}: {error})")
        return False
    print(f"import {name}: ok ({getattr(module, '__version__', 'no version')})")
    return True


def _cuda(wanted: int) -> bool:
    import torch

    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    seen = f"{len(devices)} visible ({', '.join(devices)})" if devices else "none visible"
    if len(devices) < wanted:
        print(f"CUDA: FAILED ({seen}, {wanted} asked for; look at the device plugin and the driver of the node)")
        return False
    print(f"CUDA: {seen}{'' if devices else ', the CPU is used'}")
    return True


def _has_value(variable: str, source: str) -> bool:
    secret, _, key = source.partition("/")
    found = bool(os.environ.get(variable))
    where = f"key {key} of Secret {secret}"
    print(f"secret {variable}: {'ok' if found else f'FAILED ({where} is missing or empty in this namespace)'}")
    return found


def _writable(what: str, folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".mtft-self-test-") as written:
            written.write(b"\0" * 4096)
            written.flush()
    except OSError as error:
        print(f"{what}: write access to {folder.absolute()}: FAILED ({error.strerror})")
        return False
    print(f"{what}: write access to {folder.absolute()}: ok")
    return True


def _space(what: str, folder: Path, low: float) -> None:
    """Print how much room there is; a mount that is not there is told, not judged."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        print(f"{what}: size of {folder.absolute()}: unknown ({error.strerror})")
        return
    size = f"{usage.free / 1e9:.1f} of {usage.total / 1e9:.1f} GB free"
    print(f"{what}: {folder.absolute()}: {size}{' (LOW)' if usage.free < low else ''}")
