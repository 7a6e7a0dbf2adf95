"""How the verbs of the store reach it: on this machine, or on a cluster's volume through a short-lived pod."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.arguments import DEFAULT_FILE, add_cluster_arguments, add_output_argument, namespace_of, user_path
from mtft.errors import InputError, MtftError
from mtft.text import printable

if TYPE_CHECKING:
    from launcher.cluster import Cluster

Ask = Callable[..., dict[str, Any]]
"""Asks one verb of ``mtft.keeper`` with its arguments but root and model."""

# Unlike remote_files.py, whose text is sent, this is the image's own mtft: what writes a store is what trains.
_PROGRAM = "import sys; from mtft.keeper import main; main(sys.argv[1:])"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add MODEL, where its store is, and ``-o``."""
    parser.add_argument("model", metavar="MODEL", help="model key; `mtft-launch models` lists them")
    add_place_arguments(parser)


def add_place_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where a store is, and ``-o``."""
    parser.add_argument(
        "--backend",
        choices=("kubernetes", "local"),
        help="where the store is: on a cluster's volume or here (default: kubernetes; local with --output)",
    )
    parser.add_argument(
        "--output", type=user_path, metavar="DIR", help="storage root on this machine (default with local: .)"
    )
    parser.add_argument(
        "--config",
        type=user_path,
        metavar="FILE",
        help=f"for cluster.image and claim (default: those of the newest job, else ./{DEFAULT_FILE})",
    )
    add_cluster_arguments(parser)
    add_output_argument(parser)


def add_reason_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--reason``."""
    parser.add_argument("--reason", default="", metavar="TEXT", help="why, in one line, for the history")


def tell_damaged(answer: dict[str, Any]) -> None:
    """Say which entries of the journal cannot be read, as far as the store told."""
    for each in answer.get("damaged", []):
        print(f"note: {printable(each)}; the history lacks it", file=sys.stderr)


@contextmanager
def reached(args: argparse.Namespace, *, read_only: bool) -> Iterator[Ask]:
    """Give what asks the store of ``args.model``.

    Raises:
        InputError: there is no such model or folder, or the options exclude each other.
        MtftError: the store cannot be reached or is kept by somebody else.
    """
    from mtft.models import card

    card(args.model)  # said before a pod is started
    if args.output is not None and args.backend == "kubernetes":
        raise InputError("--output names a storage root on this machine; leave it out with --backend kubernetes")
    if args.output is not None and not args.output.is_dir():
        raise InputError(f"--output: {args.output} is no folder; give the storage root, which holds outputs/")
    if args.output is not None or args.backend == "local":
        yield lambda verb, **values: _here(verb, args.output, model=args.model, **values)
    else:
        with _on_cluster(args, read_only=read_only) as ask:
            yield ask


def _here(verb: str, root: Path | None, **values: Any) -> dict[str, Any]:
    from launcher.printed import here, placed
    from mtft import keeper

    def say(text: str) -> None:
        print(f"note: {placed(text, here(root))}", file=sys.stderr)

    try:
        return keeper.answer(verb, say, root=str(root or Path()), **values)
    except MtftError as error:
        kind = InputError if isinstance(error, InputError) else MtftError  # Retry is a trainer's word
        raise kind(placed(str(error), here(root))) from None
    except OSError as error:
        raise InputError(keeper.trouble(error)) from None


@contextmanager
def _on_cluster(args: argparse.Namespace, *, read_only: bool) -> Iterator[Ask]:
    from launcher.cluster import connect
    from launcher.cluster_errors import NoConnection
    from launcher.transfer_pod import root_of, running, transfer_pod
    from launcher.verbs.fetch import find_job
    from mtft.store import outputs

    try:
        cluster = connect(args.context, namespace_of(args))
    except NoConnection as error:
        here = outputs(Path(), args.model)
        if not here.is_dir():
            raise
        raise NoConnection(f"{error}\n{here} is a store on this machine: --backend local takes it") from None
    template = find_job(cluster, args.model, args.config).template
    with running(cluster, transfer_pod(template, read_only=read_only)) as pod:
        yield far_keeper(cluster, pod, root_of(template["spec"]), args.model)


def far_keeper(cluster: Cluster, pod: str, root: str, model: str) -> Ask:
    """Return what asks the store in a pod; a cut connection asks again, so every verb may be asked twice."""
    from launcher.transfer import Remote

    remote = Remote(cluster, pod, cluster.namespace, _PROGRAM)

    def ask(verb: str, **values: Any) -> dict[str, Any]:
        [answer] = remote.ask(verb, json.dumps({"root": root, "model": model, **values}))
        return answer

    return ask
