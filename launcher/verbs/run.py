"""``mtft-launch run``: tune one model."""

from __future__ import annotations

import argparse
import json
import re
import secrets
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.arguments import add_cluster_arguments, add_config_arguments, resolve_arguments, user_path
from mtft import exit_codes
from mtft.errors import InputError
from mtft.naming import JOB_NAME

if TYPE_CHECKING:
    from mtft.config import Config
    from mtft.settings import Resolved

_FOR_A_CLUSTER = {
    "namespace": "-n",
    "context": "--context",
    "force": "--force",
    "follow": "--follow",
    "wait": "--wait",
    "timeout": "--timeout",
}

EXAMPLE = """mtft-launch run --model mbart50_mmt_fr --data /mnt/mtft/data/train.jsonl.gz --follow
  mtft-launch run --backend local --model opus_mt_en_fr --data train.jsonl.gz --processes 2"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    from launcher.verbs.wait import seconds

    add_config_arguments(parser)
    add_cluster_arguments(parser)
    group = parser.add_argument_group("run")
    group.add_argument(
        "--backend", choices=("kubernetes", "local"), default="kubernetes", help="where to train (default: kubernetes)"
    )
    group.add_argument("--processes", type=_count, metavar="N", help="training processes on each node")
    group.add_argument(
        "--model-path", type=user_path, metavar="DIR", help="folder of the base checkpoint, as the trainer sees it"
    )
    name = group.add_mutually_exclusive_group()
    name.add_argument("--job", type=_job, metavar="NAME", help="name of the job (default: made from the configuration)")
    name.add_argument("--rerun", action="store_true", help="a new run, even if this configuration has one")
    group.add_argument("--dry-run", action="store_true", help="print what would be sent or started, and do nothing")
    group.add_argument("--force", action="store_true", help="send it even if the GPU's memory seems too small")
    group.add_argument("--follow", action="store_true", help="print what the pods print until the job has ended")
    group.add_argument("--wait", action="store_true", help="return when the job has ended, with its exit code")
    group.add_argument("--timeout", type=seconds, metavar="TIME", help="longest wait, such as 90s, 30m or 2h")


def run(args: argparse.Namespace) -> int:
    """Start the job; the same configuration and data continue the same run."""
    if args.processes is not None:
        args.sets.append(f"cluster.processes_per_node={args.processes}")
    if args.model_path is not None:
        args.sets.append(f"model.path={json.dumps(str(args.model_path))}")
    if args.backend == "local":
        return _run_here(args)
    from launcher.backends import kubernetes

    return kubernetes.run(args)


def _run_here(args: argparse.Namespace) -> int:
    from launcher.backends import local
    from mtft import files
    from mtft.documents import yaml_text
    from mtft.naming import config_hash, job_name
    from mtft.runs import jobs_folder
    from mtft.settings import merge

    document, resolved = resolve_arguments(args)
    _refuse_nodes(resolved)
    _name_unused(args)
    model = resolved.card.key
    document = merge(document, flags=_local_facts(resolved.config), model=model)
    nonce = secrets.token_hex(4) if args.rerun else None
    job = args.job or job_name("", model, config_hash(document, model, nonce=nonce))
    given = resolved.origins["storage.root"] != "built-in"
    root = user_path(resolved.config.storage.root if given else ".").absolute()
    path = jobs_folder(root, model) / f"{job}.yaml"
    command = local.command(path, model, job, root)
    if args.dry_run:
        _show(command, document, args.output_format)
        return exit_codes.DONE
    try:
        if path.exists():
            _refuse_other(path, document, model)
        files.write_text(path, yaml_text(document))
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written: {error.strerror}; choose another folder with --output DIR"
        ) from error
    code = local.judged(local.start(command), root, model, job)
    if nonce and code not in (exit_codes.DONE, exit_codes.NOT_PROMOTED):
        print(f"to go on with this run, give the same command with --job {job} in place of --rerun", file=sys.stderr)
    return code


def _refuse_nodes(resolved: Resolved) -> None:
    """Keep a job for several pods from this one machine.

    Raises:
        InputError: more than one node is asked for.
    """
    nodes = resolved.config.cluster.nodes
    if nodes > 1:
        raise InputError(
            f"cluster.nodes is {nodes} ({resolved.origins['cluster.nodes']}), but --backend local trains on this "
            "machine alone; add --set cluster.nodes=1 (--processes N starts N processes here)"
        )


def _name_unused(args: argparse.Namespace) -> None:
    """Say which of the given options speak to a cluster alone."""
    given = [option for name, option in _FOR_A_CLUSTER.items() if getattr(args, name)]
    if given:
        does = "are for a cluster and do" if len(given) > 1 else "is for a cluster and does"
        print(
            f"note: {', '.join(given)} {does} nothing with --backend local, which always follows the job to its end",
            file=sys.stderr,
        )


def _refuse_other(path: Path, document: dict[str, Any], model: str) -> None:
    """Keep the configuration a job has; only its placement, such as the number of processes, may change.

    Raises:
        InputError: the document asks for something else than the one at ``path``.
    """
    from mtft.naming import config_differences, config_hash
    from mtft.settings import load_document

    before = load_document(path)
    if config_hash(before, model) != config_hash(document, model):
        differing = "; ".join(config_differences(before, document, model))
        raise InputError(
            f"{path}: this job has another configuration or other data ({differing}); "
            "choose another --job name (a finished or running job keeps its configuration)"
        )


def _local_facts(config: Config) -> dict[str, Any]:
    """Return what only this machine can say: absolute paths, so the job does not depend on the folder, and the data.

    Raises:
        InputError: a data file is missing.
    """
    from mtft.provenance import data_identity

    facts: dict[str, Any] = {
        name: _absolute(given) if isinstance(given, str) else [_absolute(each) for each in given]
        for name, given in config.data_paths().items()
    }
    if sha256 := data_identity(facts["data.train"], config.data.sha256):
        facts["data.sha256"] = sha256
    if config.model.path is not None:
        facts["model.path"] = _absolute(config.model.path)
    return facts


def _absolute(path: str) -> str:
    return path if "://" in path else str(user_path(path).absolute())


def _show(command: list[str], document: dict[str, Any], output_format: str) -> None:
    from launcher.output import print_document, print_text
    from mtft.documents import yaml_text

    if output_format == "table":
        print_text(f"{shlex.join(command)}\n\n{yaml_text(document)}", end="")
    else:
        print_document({"command": command, "document": document}, output_format)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes; give 1 or more")
    return int(text)


def _job(text: str) -> str:
    if not re.fullmatch(JOB_NAME, text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a job name; allowed: a to z, 0 to 9 and -, beginning with a letter, at most 50 characters"
        )
    return text
