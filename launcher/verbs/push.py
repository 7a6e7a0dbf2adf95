"""``mtft-launch data push``: a file or folder to the shared volume of a cluster."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from launcher.arguments import DEFAULT_FILE, add_cluster_arguments, add_output_argument, user_path
from launcher.printed import in_namespace
from mtft import exit_codes

if TYPE_CHECKING:
    from launcher.pushing import ToSend
    from launcher.transfer import Remote
    from mtft.config import Config

EXAMPLE = "mtft-launch data push train.jsonl.gz -n team-mt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``push``."""
    parser.add_argument("path", type=user_path, metavar="PATH", help="file, or folder with files")
    parser.add_argument("--to", type=_name, metavar="NAME", help="its name on the volume (default: the one it has)")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="put it in the place of other data of that name; a folder there loses the data files the one here lacks",
    )
    parser.add_argument(
        "--config", type=user_path, metavar="FILE", help=f"for cluster.image and claim (default: ./{DEFAULT_FILE})"
    )
    parser.add_argument("--model", metavar="KEY", help="to the claim of this model, where models have several")
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="PATH=VALUE", help="any setting")
    add_cluster_arguments(parser)
    add_output_argument(parser)


def push(args: argparse.Namespace) -> int:
    """Copy below ``<storage.root>/data``, check every SHA-256, and say what to go on with."""
    from launcher.cluster import connect
    from launcher.data_look import notes_on
    from launcher.output import print_document, say
    from launcher.partial import cluster_config
    from launcher.pushing import data_of, data_sha256, local_files
    from launcher.transfer import Remote
    from launcher.transfer_pod import running, transfer_pod
    from mtft.sources import passed_over, passed_over_note

    files = local_files(args.path, args.to)
    sha256 = data_sha256(files)
    for word in notes_on(args.path, [each.path for each in data_of(files)]):
        print(f"note: {word}", file=sys.stderr)
    place = [f"cluster.namespace={json.dumps(args.namespace)}"] if args.namespace else []
    config = cluster_config(args.config, [*args.sets, *place], args.model)
    cluster = connect(args.context, config.cluster.namespace)
    folder = f"{config.storage.root.rstrip('/')}/data"
    with running(cluster, transfer_pod(_template(config), read_only=False)) as pod:
        remote = Remote(cluster, pod, cluster.namespace)
        counts = _place(remote, folder, files, replace=args.replace)
    target = f"{folder}/{files[0].name.partition('/')[0]}"
    if args.output_format != "table":
        answer = {"data.train": target, **({"data.sha256": sha256} if sha256 else {}), **counts}
        print_document({**answer, "bytes": _bytes(files)}, args.output_format)
        return exit_codes.DONE
    same, gone = counts["files"] - counts["sent"], counts["removed"]
    told = [
        f"{counts['sent']} file{'s' * (counts['sent'] != 1)} sent",
        *([f"{same} were there already"] if same else []),
    ]
    told += [f"{gone} removed"] if gone else []
    print(f"{', '.join(told)}; every SHA-256 is right", file=sys.stderr)
    if sha256 is None:
        say(target)
        return exit_codes.DONE
    if note := passed_over_note(passed_over([args.path])):
        print(f"note: {note}", file=sys.stderr)
    given = ["--config", str(args.config)] if args.config else []
    given += [part for each in args.sets for part in ("--set", each)]
    options = [*given, "--data", target, "--set", f"data.sha256={sha256}"]
    again = f"mtft-launch --model {args.model or 'KEY'} {shlex.join(options)}{in_namespace(cluster.namespace)}"
    print(f"go on with `{again}`, or with this line in {args.config or DEFAULT_FILE}:", file=sys.stderr)
    data = f"data: {{train: {_flow(target)}, sha256: {sha256}}}"
    say(f"models: {{{args.model}: {{{data}}}}}" if args.model else data)
    return exit_codes.DONE


def _bytes(files: Sequence[ToSend]) -> int:
    return sum(each.content.size for each in files)


def _place(remote: Remote, folder: str, files: Sequence[ToSend], *, replace: bool) -> dict[str, int]:
    """Send what is not there yet; return how many files there are, were sent and were removed.

    Raises:
        InputError: other data have the name and may not be replaced, or the volume cannot be written.
        ClusterError: the pod cannot be reached any more.
    """
    from launcher.pushing import compare, refuse_others
    from launcher.transfer_bar import Bar

    found, sent = compare(remote, folder, files), 0
    if not replace:
        refuse_others(folder, files, found)
    with Bar("pushing", _bytes(files)) as bar:
        for each in files:
            seen, old = bar.file(each.name, each.content.size), found.other.get(each.name)
            if each.name in found.same:
                seen(each.content.size)
                continue
            target, old_sha256 = f"{folder}/{each.name}", old.sha256 if old else None
            sent += remote.push(each.path, target, seen, content=each.content, in_place_of=old_sha256)
    remote.ask_of("remove", folder, list(found.extra))
    return {"files": len(files), "sent": sent, "removed": len(found.extra)}


def _name(text: str) -> str:
    if not re.fullmatch(r"[^./\\\0][^/\\\0]{0,199}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name below data/; give one without / that begins with no dot")
    return text


def _flow(text: str) -> str:
    """Return a text as YAML takes it inside braces."""
    return text if re.fullmatch(r"[-./\w]+", text) else json.dumps(text, ensure_ascii=False)


def _template(config: Config) -> dict[str, Any]:
    """Return the pod template a job of this configuration would have."""
    from launcher.pod import pod_template

    return pod_template(config, config.model.key, "transfer", {})
