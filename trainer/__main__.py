"""``python -m trainer``: what a pod and the local backend start."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

from mtft import files
from mtft.naming import JOB_NAME
from trainer.supervisor import Request, supervise


def main(arguments: list[str]) -> int:
    """Read the command line and run one attempt of a job, or the self-test."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.attended:
        os.umask(files.SHARED_UMASK)  # a person keeps their own
    if options.self_test:
        from trainer.selftest import self_test

        return self_test(options.root or Path(), gpus=options.gpus, secrets=options.secrets)
    missing = [f"--{name}" for name in ("config", "model", "job") if getattr(options, name) is None]
    if missing:
        parser.error(f"needed: {', '.join(missing)}")
    if not re.fullmatch(JOB_NAME, options.job):
        parser.error(f"--job {options.job!r}: a job's name is lower-case letters, digits and dashes, 50 at most")
    values = {name: value for name, value in vars(options).items() if name not in ("self_test", "gpus", "secrets")}
    return supervise(Request(**values))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer", description="Run one attempt of a training job.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the configuration, as the user wrote it")
    parser.add_argument("--model", metavar="KEY", help="key of the model")
    parser.add_argument("--job", metavar="NAME", help="name of the job; the same name continues the same run")
    parser.add_argument("--root", type=Path, metavar="DIR", help="where outputs/ and cache/ lie; default storage.root")
    parser.add_argument(
        "--attended",
        action="store_true",
        help="a person starts every attempt: no restart budget, the deadline counts from now",
    )
    parser.add_argument(
        "--self-test", action="store_true", help="check imports, CUDA, room and write access, then leave"
    )
    parser.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs the self-test must see")
    parser.add_argument(
        "--secret",
        dest="secrets",
        type=_secret,
        action="append",
        default=[],
        metavar="VARIABLE=SECRET/KEY",
        help="variable the self-test must find, and the Kubernetes Secret it comes from",
    )
    parser.add_argument("--preparation-module", default="trainer.preparation", help=argparse.SUPPRESS)
    parser.add_argument("--worker-module", default="trainer.worker", help=argparse.SUPPRESS)
    return parser


def _secret(text: str) -> str:
    if not re.fullmatch(r"[^=]+=[^/]+/.+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not VARIABLE=SECRET/KEY")
    return text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
