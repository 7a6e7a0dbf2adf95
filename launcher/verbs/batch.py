"""``mtft-launch batch``: tune several models side by side."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from launcher.arguments import (
    add_cluster_arguments,
    add_config_arguments,
    flags_of,
    load_arguments,
    resolve_each,
)
from launcher.printed import in_namespace
from mtft import exit_codes
from mtft.errors import InputError, MtftError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from launcher.backends.kubernetes import Job
    from launcher.cluster import Cluster
    from launcher.states import JobState
    from launcher.submit import Submission
    from mtft.settings import Resolved

EXAMPLE = "mtft-launch batch --config mtft.yaml --all --name nightly --wait"
_ROUNDS = 3  # of sending what could not be sent
_NOT_SENT = "not sent"
_THERE = ("submitted", "already there")  # results of jobs that can be waited for


@dataclass
class _Row:
    """What came of one job of the batch."""

    job: Job
    result: str = _NOT_SENT
    note: str = "-"
    code: int = exit_codes.DONE

    def as_dict(self) -> dict[str, Any]:
        return {"model": self.job.model, "name": self.job.name, "result": self.result, "note": self.note}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    from launcher.verbs.wait import seconds

    add_config_arguments(parser, model_help=argparse.SUPPRESS)
    add_cluster_arguments(parser)
    group = parser.add_argument_group("batch")
    which = group.add_mutually_exclusive_group()
    which.add_argument("--models", type=_keys, metavar="A,B", help="these models")
    which.add_argument(
        "--all", action="store_true", help="every model there is, but those the file disables (default: those it names)"
    )
    group.add_argument("--skip", type=_keys, default=[], metavar="A,B", help="but not these")
    group.add_argument("--name", default="mtft", help="name of the batch, the first part of its jobs' names (mtft)")
    group.add_argument("--dry-run", action="store_true", help="print what would be sent, and do nothing")
    group.add_argument("--force", action="store_true", help="send it even if the GPU's memory seems too small")
    group.add_argument("--wait", action="store_true", help="return when all have ended, with the worst exit code")
    group.add_argument(
        "--accept-not-better",
        action="store_true",
        help=f"leave with 0, not {exit_codes.NOT_PROMOTED}, when all were trained but not all are better",
    )
    group.add_argument("--timeout", type=seconds, metavar="TIME", help="longest wait, such as 90s, 30m or 2h")


def run(args: argparse.Namespace) -> int:
    """Check every job, then send every job; print one table and exit with the worst code."""
    from launcher.backends.kubernetes import (
        UNSEEN_DATA,
        context_namespace,
        prepare,
        refuse_too_large,
        refuse_unfit,
        show,
    )
    from launcher.cluster import connect
    from launcher.resources import JOBS
    from launcher.seen_data import with_data_facts
    from launcher.selection import refuse_shared_name

    document, resolved = _resolve(args)
    for note in dict.fromkeys(note for one in resolved for note in one.notes):
        print(f"note: {note}", file=sys.stderr)
    if not args.force:
        refuse_too_large(resolved)
    document = with_data_facts(document, resolved, args.namespace)
    given = args.namespace or _namespace(resolved)
    if args.dry_run:
        place = given or context_namespace(args.context)
        jobs = [prepare(document, one, place, batch=args.name) for one in resolved]
        show([each for job in jobs for each in job.objects], args.output_format)
        return exit_codes.DONE
    cluster = connect(args.context, given)
    rows = [_Row(prepare(document, one, cluster.namespace, batch=args.name)) for one in resolved]
    refuse_shared_name(args.name, jobs=[job for job in [cluster.find(JOBS, args.name)] if job], batch=True)
    if not args.force:
        refuse_unfit([(one, row.job) for one, row in zip(resolved, rows, strict=True)], cluster)
    try:
        sent = _send_all(cluster, rows)
    except KeyboardInterrupt:
        _tell_what_goes_on(cluster, rows, args.output_format)
        raise
    if any(row.result == "already there" and not row.job.knows_data for row in rows):
        print(f"note: {UNSEEN_DATA}", file=sys.stderr)
    if args.timeout is not None and not args.wait:
        print("note: --timeout does nothing without --wait", file=sys.stderr)
    if args.wait and sent and any(row.result in _THERE for row in rows):
        _see_through(cluster, rows, args)
    _print(rows, args.output_format)
    code = exit_codes.worst([row.code for row in rows])
    return exit_codes.DONE if args.accept_not_better and code == exit_codes.NOT_PROMOTED else code


def _resolve(args: argparse.Namespace) -> tuple[dict[str, Any], list[Resolved]]:
    """Return the document of the batch, and the effective configuration of every chosen model.

    Raises:
        ConfigError: with every problem of every model.
        InputError: nothing is chosen.
    """
    from mtft.settings import merge

    document = load_arguments(args)
    keys = [key for key in _chosen(args, document) if key not in args.skip]
    if not keys:
        raise InputError("no model is chosen; name some with --models, or take --all")
    _name_models(document, keys)
    resolved = resolve_each(args, document, keys)
    return merge(document, args.sets, flags_of(args)), resolved


def _name_models(document: dict[str, Any], keys: Sequence[str]) -> None:
    """Make the document one of a batch in place: a model it does not name yet takes the shared part alone."""
    models = dict(document.get("models") or {})
    if "models" not in document and (single := document.pop("model", None)) is not None:
        # Where its checkpoint is belongs to that model alone.
        own = {name: value for name, value in single.items() if name != "key"} if isinstance(single, dict) else {}
        if own and single.get("key") in keys:
            models[single["key"]] = {"model": own}
    document["models"] = models | {key: {} for key in keys if key not in models}


def _chosen(args: argparse.Namespace, document: dict[str, Any]) -> list[str]:
    from mtft.models import MODELS, card
    from mtft.settings import models_of

    for key in [*(args.models or []), *args.skip]:
        card(key)  # refuses an unknown one, with a suggestion
    if args.model is not None:
        raise InputError(f"--model {args.model} is for one job; a batch takes --models {args.model},...")
    if args.models is not None:
        return list(dict.fromkeys(args.models))
    named = models_of(document)
    if not args.all:
        return named
    disabled = set(document.get("models") or {}) - set(named) if "models" in document else set()
    return [key for key in MODELS if key not in disabled]


def _namespace(resolved: Sequence[Resolved]) -> str | None:
    places = {one.config.cluster.namespace for one in resolved}
    if len(places) > 1:
        raise InputError(f"a batch goes to one namespace, not to {', '.join(sorted(map(str, places)))}; give -n")
    return places.pop()


def _send_all(cluster: Cluster, rows: list[_Row]) -> bool:
    """Check all before sending any; what the cluster could not take for the moment is sent again.

    False: one is refused, so none was sent.
    """
    from launcher.cluster_errors import WebhookSilent
    from launcher.submit import dry_run, existing

    for number, row in enumerate(rows, 1):
        try:
            found = existing(cluster, row.job.objects)
            if found is None:
                dry_run(cluster, row.job.objects)
            else:
                row.result, row.note = "already there", _there(cluster, found)
        except MtftError as error:
            row.result, row.note, row.code = "refused", str(error), error.exit_code
            if isinstance(error, WebhookSilent):
                _give_up(row, rows[number:])
                return False
    if refused := [row.job.model for row in rows if row.code]:
        for row in rows:
            if row.result == _NOT_SENT:
                row.note = f"nothing is sent where one is refused: mend that, or add {','.join(refused)} to --skip"
        return False
    for _ in range(_ROUNDS):
        left = [row for row in rows if row.result in (_NOT_SENT, "failed")]
        for number, row in enumerate(left, 1):
            if _send(cluster, row):
                _give_up(row, left[number:])
                return True
        if all(row.code == exit_codes.DONE for row in rows):
            break
    return True


def _give_up(first: _Row, rest: Sequence[_Row]) -> None:
    """Note that no other job is tried: the webhook that was waited for in vain is asked for each of them."""
    for row in rest:
        row.result, row.code = "not tried", exit_codes.CLUSTER_REFUSED
        row.note = f"the webhook that did not answer for {first.job.name} is asked for this one too"


def _send(cluster: Cluster, row: _Row) -> bool:
    """Send a job and note what came of it; return whether trying any other is in vain."""
    from launcher.cluster_errors import Busy, Conflict, NoConnection, WebhookSilent
    from launcher.submit import send

    row.result = "being sent"
    try:
        sent = send(cluster, row.job.objects)
    except MtftError as error:
        again = isinstance(error, Busy | Conflict | NoConnection)
        row.result, row.note, row.code = "failed" if again else "refused", str(error), error.exit_code
        return isinstance(error, WebhookSilent) and error.hangs
    row.result, row.code = ("submitted" if sent.outcome == "created" else sent.outcome), exit_codes.DONE
    row.note = ("; ".join(sent.notes) or "-") if sent.outcome == "created" else _there(cluster, sent)
    return False


def _there(cluster: Cluster, found: Submission) -> str:
    """Say how a job that is there stands, and how it goes on where it does not by itself."""
    from launcher.backends.kubernetes import standing, state_of, way_on

    state = state_of(cluster, found.job)
    return "; ".join(each for each in (standing(state), way_on(found.job, state), *found.notes) if each)


def _see_through(cluster: Cluster, rows: list[_Row], args: argparse.Namespace) -> None:
    """Wait until all have ended; who does not wait so long is told how they stand and what stops them."""
    try:
        _wait(cluster, rows, args.timeout)
    except KeyboardInterrupt:
        _tell_what_goes_on(cluster, rows, args.output_format)
        raise


def _tell_what_goes_on(cluster: Cluster, rows: list[_Row], output_format: str) -> None:
    """Print the table as far as it has come, and what stops the jobs that are there."""
    print(file=sys.stderr)
    _print(rows, output_format)
    if left := _left(rows):
        command = f"mtft-launch cancel {' '.join(left)}{in_namespace(cluster.namespace)}"
        print(f"what has not ended goes on; `{command}` stops it", file=sys.stderr)


def _wait(cluster: Cluster, rows: list[_Row], timeout: float | None) -> None:
    from launcher import labels
    from launcher.cluster_errors import ClusterError
    from launcher.job_tables import note
    from launcher.resources import JOBS
    from launcher.verbs.wait import report
    from launcher.waiting import wait_for
    from launcher.watching import states_of

    sent = {row.job.name: row for row in rows if row.result in _THERE}

    def seen(state: JobState) -> None:
        # For the table of who does not wait to the end.
        sent[state.name].result, sent[state.name].note = state.state, note(state)
        report(state)

    codes = wait_for(cluster, list(sent), timeout, report=seen, sent=True)
    for name, code in codes.items():
        sent[name].code = code
    with suppress(ClusterError):  # only the table says less: the codes are known
        jobs = [job for job in cluster.list(JOBS, selector=labels.SELECTOR).items if job["metadata"]["name"] in sent]
        for state in states_of(cluster, jobs) if jobs else ():
            sent[state.name].result, sent[state.name].note = state.state, note(state)


def _left(rows: list[_Row]) -> list[str]:
    """Return the names of the jobs that go on when nobody waits any more."""
    from launcher.states import TERMINAL

    over = (*TERMINAL, "Cancelled", "Deleted", _NOT_SENT)
    return [row.job.name for row in rows if not row.code and row.result not in over]


def _print(rows: list[_Row], output_format: str) -> None:
    from launcher.job_tables import print_answers
    from launcher.output import print_rows

    if output_format == "table":
        print_answers([row.as_dict() for row in rows], "note")
    else:
        print_rows([{**row.as_dict(), "exit_code": row.code} for row in rows], output_format)


def _keys(text: str) -> list[str]:
    return [key for key in (part.strip() for part in text.split(",")) if key]
