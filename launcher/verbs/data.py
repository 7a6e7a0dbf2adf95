"""``mtft-launch data``: check sentence files, split them by document, push them to a cluster's volume."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.arguments import accept_cluster_arguments, add_output_argument, user_path
from launcher.output import print_document, say, table
from launcher.verbs import push
from mtft import exit_codes
from mtft.errors import InputError

if TYPE_CHECKING:
    from mtft.leakage import Leakage
    from mtft.rows import Tally
    from mtft.split import Documents, Split

EXAMPLE = "mtft-launch data check train.jsonl.gz -o json"
SPLIT_EXAMPLE = "mtft-launch data split all.jsonl.gz --dev-fraction 0.05 --out split"

MOST_LISTED = 10_000
_MOST_IN_TABLE = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="check|split|push")
    check, split = (
        actions.add_parser(name, help=text, description=text, epilog=f"example: {example}", allow_abbrev=False)
        for name, text, example in (
            ("check", "Read every row and list those that are no good.", EXAMPLE),
            ("split", "Write train, dev and test by document (pub_number).", SPLIT_EXAMPLE),
        )
    )
    for action in (check, split):
        action.add_argument("paths", nargs="+", metavar="PATH", help="JSON Lines file (.jsonl, .gz, .zst) or folder")
        add_output_argument(action)
        accept_cluster_arguments(action)
    split.add_argument("--dev-fraction", type=float, metavar="F", help="fraction of the rows held out (default: 0.05)")
    split.add_argument("--seed", type=int, metavar="N", help="seed of the choice (default: that of data.split_seed)")
    text = "Copy a file or folder to the shared volume of a cluster."
    push.add_arguments(
        actions.add_parser("push", help=text, description=text, epilog=f"example: {push.EXAMPLE}", allow_abbrev=False)
    )
    split.add_argument("--out", type=user_path, required=True, metavar="DIR", help="folder the files are written to")


def run(args: argparse.Namespace) -> int:
    """Check, split or push; the exit code of ``check`` is 0 only when every row is good."""
    return {"check": _check, "split": _split, "push": push.push}[args.action](args)


def _check(args: argparse.Namespace) -> int:
    from mtft.rows import Row, Tally, read_rows
    from mtft.sources import content_sha256, passed_over, passed_over_note

    tally = Tally()
    languages: Counter[str] = Counter()
    ignored: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    listed: list[dict[str, Any]] = []
    for item in read_rows(args.paths, extra_fields=ignored):
        tally.add(item)
        if isinstance(item, Row):
            languages[item.source_lang] += 1
            continue
        reasons[item.code] += 1
        if len(listed) < MOST_LISTED:
            listed.append(item.as_dict())
    unread = passed_over(args.paths)
    report = {
        "rows": tally.rows,
        "accepted": tally.accepted,
        "dropped_empty": tally.dropped_empty,
        "bad": tally.bad,
        "source_lang": dict(sorted(languages.items())),
        "reasons": dict(reasons.most_common()),
        "ignored_fields": dict(ignored.most_common()),
        "sha256": content_sha256(args.paths),
        "passed_over": unread,
        "rejected": listed,
        "rejected_not_listed": tally.rows - tally.accepted - len(listed),
    }
    if note := passed_over_note(unread):
        print(f"note: {note}", file=sys.stderr)
    _print_check(report, args.output_format)
    return exit_codes.DONE if tally.accepted == tally.rows else exit_codes.BAD_INPUT


def _print_check(report: dict[str, Any], output_format: str) -> None:
    if output_format != "table":
        print_document(report, output_format)
        return
    listed = report.pop("rejected")
    del report["rejected_not_listed"], report["passed_over"]
    say(table([{"what": name, "value": value} for name, value in report.items()]))
    if listed:
        say(f"\n{table(listed[:_MOST_IN_TABLE])}")
    unseen = report["rows"] - report["accepted"] - len(listed[:_MOST_IN_TABLE])
    if unseen:
        say(f"... and {unseen:,} more; -o json lists up to {MOST_LISTED:,}")


def _split(args: argparse.Namespace) -> int:
    from mtft.config import DataConfig
    from mtft.leakage import Leakage
    from mtft.parts import LARGEST
    from mtft.rows import Tally
    from mtft.sources import expand
    from mtft.split import HELD_OUT, Documents, plan_split

    defaults = DataConfig.model_fields
    fraction = defaults["dev_fraction"].default if args.dev_fraction is None else args.dev_fraction
    if not 0 < fraction < 1:
        raise InputError(f"--dev-fraction is {fraction:g}; allowed: more than 0 and less than 1")
    seed = defaults["split_seed"].default if args.seed is None else args.seed
    if not 0 <= seed <= LARGEST:
        raise InputError(f"--seed is {seed}; allowed: a whole number from 0 to {LARGEST}, as for data.split_seed")
    inputs = expand(args.paths)
    documents = Documents(seed)
    tally, leakage = Tally(), Leakage()
    _count(inputs, documents, tally)
    if tally.whole_files:
        raise InputError("\n".join(f"{each.file}:{each.line}: {each.reason}" for each in tally.whole_files))
    split = plan_split(documents, fraction, HELD_OUT)
    _write(inputs, args.out, split, leakage)
    report = {"rows": tally.as_dict(), "splits": split.rows, "leakage": leakage.report()}
    if tally.rows > tally.accepted:
        dropped = tally.rows - tally.accepted
        print(f"mtft-launch: {dropped:,} rows were dropped: see {args.out / 'rejected.jsonl'}", file=sys.stderr)
    _print_split(report, args.out, args.output_format)
    return exit_codes.DONE


def _count(inputs: list[str], documents: Documents, tally: Tally) -> None:
    from mtft.rows import Row, read_rows

    for item in read_rows(inputs):
        tally.add(item)
        if isinstance(item, Row):
            documents.add(item)


def _write(inputs: list[str], out: Path, split: Split, leakage: Leakage) -> None:
    """Write every good line, unchanged, to its split; all files appear together, at the end."""
    from mtft.files import json_line, replacing
    from mtft.rows import Row, read_file, read_rows
    from mtft.split import SPLITS

    targets = {name: out / f"{name}.jsonl" for name in (*SPLITS, "rejected")}
    for path in targets.values():
        if path.exists():
            raise InputError(f"{path} exists already; give --out a new folder")
    try:
        with ExitStack() as stack:
            temporary = {name: stack.enter_context(replacing(path)) for name, path in targets.items()}
            with ExitStack() as opened:
                files = {name: opened.enter_context(path.open("wb")) for name, path in temporary.items()}
                for item, line in (pair for file in inputs for pair in read_file(file)):
                    if not isinstance(item, Row):
                        files["rejected"].write(json_line(item.as_dict()).encode())
                        continue
                    name = split(item)
                    files[name].write(line + b"\n")
                    if name != "train":
                        leakage.hold(name, item)
            for item in read_rows(inputs):
                if isinstance(item, Row) and split(item) == "train":
                    leakage.see(item)
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror or error}") from error


def _print_split(report: dict[str, Any], out: Path, output_format: str) -> None:
    if output_format != "table":
        print_document(report, output_format)
        return
    rows = report["splits"]
    say(table([{"split": name, "rows": rows[name], "file": str(out / f"{name}.jsonl")} for name in rows]))
    met = [
        {"held out": split, "match": match, **counts}
        for split in ("dev", "test")
        for match, counts in report["leakage"][split].items()
    ]
    say(f"\nheld-out rows that training rows show too:\n{table(met)}")
