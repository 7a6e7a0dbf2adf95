"""The arguments shared by every verb that takes a configuration."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtft.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mtft.documents import Document
    from mtft.settings import Resolved

DEFAULT_FILE = Path("mtft.yaml")


def user_path(text: str) -> Path:
    """Return a path with ``~`` spelled out, as the shell leaves it in files and in ``--option=~/x``.

    Raises:
        InputError: ``~name`` is nobody's home.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise InputError(
            f"{text}: there is no user {text[1:].partition('/')[0]!r} here; write ./{text} if that is its name"
        ) from None


def add_output_argument(parser: argparse.ArgumentParser, default: str = "table") -> None:
    """Add ``-o``."""
    parser.add_argument(
        "-o", dest="output_format", choices=("table", "json", "yaml"), default=default, help="form of the output"
    )


def add_config_arguments(
    parser: argparse.ArgumentParser, *, model_help: str = "model to tune; `mtft-launch models` lists them"
) -> None:
    """Add ``--config``, ``--model``, ``--set``, ``-o`` and the few settings with a flag of their own."""
    group = parser.add_argument_group("configuration")
    group.add_argument(
        "--config",
        type=user_path,
        metavar="FILE",
        help=f"YAML, JSON or TOML file (default: ./{DEFAULT_FILE} if present)",
    )
    group.add_argument("--model", metavar="KEY", help=model_help)
    group.add_argument(
        "--set", dest="sets", action="append", default=[], metavar="PATH=VALUE", help="any setting, such as lora.r=16"
    )
    group.add_argument(
        "--data",
        dest="data.train",
        nargs="+",
        action=_OneOrMore,
        metavar="DATA",
        help="training rows: files, folders or addresses",
    )
    for path, flag, kind, text in (
        ("storage.root", "--output", str, "directory that holds data/, outputs/ and cache/"),
        ("train.epochs", "--epochs", float, "passes over the training rows"),
        ("train.max_steps", "--max-steps", int, "optimizer steps after which training stops"),
        ("preset", "--preset", str, "default, quick_test, memory_efficient or high_capacity"),
        ("method", "--method", str, "lora, qlora or full"),
        ("train.learning_rate", "--learning-rate", float, "peak learning rate"),
        ("train.batch_size", "--batch-size", int, "sentences per process and accumulation step"),
    ):
        group.add_argument(flag, dest=path, type=kind, metavar=flag[2:].upper().replace("-", "_"), help=text)
    add_output_argument(parser)


class _OneOrMore(argparse.Action):
    """Takes one value as it is and several as a list; as with any option, the last flag counts."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        setattr(namespace, self.dest, values if len(values) > 1 else values[0])


def add_cluster_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``-n/--namespace`` and ``--context``."""
    group = parser.add_argument_group("cluster")
    group.add_argument(
        "-n",
        "--namespace",
        type=namespace_name,
        metavar="NAME",
        help="Kubernetes namespace (default: cluster.namespace of the configuration or of "
        f"./{DEFAULT_FILE}, else that of the kubeconfig context)",
    )
    group.add_argument("--context", metavar="NAME", help="kubeconfig context (default: the current one)")


def accept_cluster_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the same to a verb that asks no cluster, so that one set of options fits every verb of a script."""
    group = parser.add_argument_group("cluster")
    told = "taken as by every verb, without effect: no cluster is asked"
    group.add_argument("-n", "--namespace", type=namespace_name, metavar="NAME", help=told)
    group.add_argument("--context", metavar="NAME", help=told)


def namespace_name(text: str) -> str:
    """Read the name of a namespace."""
    from mtft.naming import DNS_LABEL

    if not re.fullmatch(DNS_LABEL, text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a namespace; allowed: a to z, 0 to 9 and - inside, at most 63"
        )
    return text


def namespace_of(args: argparse.Namespace) -> str | None:
    """Return ``-n``, else ``cluster.namespace`` of ``--config`` or ./mtft.yaml, else None.

    Raises:
        InputError: the file cannot be read.
        ConfigError: it is not well-formed, or its namespace is no text.
    """
    given: str | None = args.namespace
    path: Path | None = getattr(args, "config", None) or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)
    if given is not None or path is None or getattr(args, "all_namespaces", False):
        return given
    from mtft.documents import load_document
    from mtft.errors import ConfigError, Problem
    from mtft.paths import look_up

    document = load_document(path)
    found = look_up(document, "cluster.namespace")
    if found is not None and not isinstance(found, str):
        where = document.where("cluster.namespace")
        raise ConfigError([Problem(path="cluster.namespace", message=f"is no text; got {found!r}", where=where)])
    return found


def load_arguments(args: argparse.Namespace) -> Document:
    """Return the document of ``--config``, of ./mtft.yaml where there is one, or an empty one.

    Which models ``--set`` switches on or off is written into it: that chooses what is resolved. Values in it that
    cannot be read are reported by ``resolve`` and ``merge``, with every other problem.
    """
    from mtft.settings import Document, read_document, switch_models

    given = args.config is not None or DEFAULT_FILE.exists()
    document = read_document(args.config or DEFAULT_FILE) if given else Document({}, source="command line")
    switch_models(document, getattr(args, "sets", ()))
    return document


def flags_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return dotted path -> value of the flags that were given."""
    from mtft.settings import FLAGS

    return {path: value for path, value in vars(args).items() if path in FLAGS and value is not None}


def resolve_arguments(args: argparse.Namespace) -> tuple[dict[str, Any], Resolved]:
    """Return the document a job is sent, and the effective configuration of the chosen model.

    Raises:
        InputError: the file cannot be read.
        ConfigError: with every problem of the configuration.
    """
    from mtft.paths import look_up
    from mtft.settings import merge, resolve

    document, flags = load_arguments(args), flags_of(args)
    resolved = resolve(document, model=args.model, sets=args.sets, flags=flags)
    key = resolved.config.model.key
    sent = merge(document, args.sets, flags, model=key)
    if "models" not in document and look_up(sent, "model.key") != key:
        sent = merge(sent, flags={"model.key": key})
    return sent, resolved


def resolve_models(args: argparse.Namespace) -> tuple[dict[str, Any], list[Resolved]]:
    """Return the document that is sent, and the effective configuration of the chosen model or of a whole batch.

    Raises:
        InputError: the file cannot be read.
        ConfigError: with every problem of every model, or because a batch has no enabled model.
    """
    from mtft.settings import merge

    document = load_arguments(args)
    if args.model is not None or "models" not in document:
        sent, one = resolve_arguments(args)
        return sent, [one]
    resolved = resolve_each(args, document, enabled_models(document))
    return merge(document, args.sets, flags_of(args)), resolved


def enabled_models(document: Document) -> list[str]:
    """Return the models that a batch trains.

    Raises:
        ConfigError: there is none, or they cannot be read.
    """
    from mtft.errors import ConfigError, Problem
    from mtft.settings import models_of

    if keys := models_of(document):
        return keys
    raise ConfigError([Problem(path="models", message="has no enabled model", where=document.where("models"))])


def resolve_each(args: argparse.Namespace, document: Mapping[str, Any], keys: Sequence[str | None]) -> list[Resolved]:
    """Return the effective configuration of each model; None is the one that document, ``--set`` or flags name.

    Raises:
        ConfigError: with every problem of every model.
    """
    from mtft.errors import ConfigError, Problem
    from mtft.settings import resolve

    flags = flags_of(args)
    resolved: list[Resolved] = []
    problems: list[Problem] = []
    for key in keys:
        try:
            resolved.append(resolve(document, model=key, sets=args.sets, flags=flags))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return resolved
