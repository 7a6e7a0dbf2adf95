"""The kubernetes backend: from the arguments of a verb to the objects that are sent, and what is said about it."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from launcher import labels
from launcher.cluster_errors import NoConnection
from launcher.differences import placement_hint
from launcher.printed import in_namespace, launch
from launcher.pytorchjob import render
from launcher.resources import JOBS
from launcher.seen_data import with_data_facts
from launcher.selection import refuse_shared_name
from launcher.submit import Submission
from mtft import exit_codes
from mtft.errors import InputError
from mtft.paths import look_up

if TYPE_CHECKING:
    from launcher.cluster import Cluster
    from launcher.states import JobState
    from mtft.settings import Resolved

Manifest = dict[str, Any]

UNSEEN_DATA = (
    "data.sha256 is not set, so new data under the same name are not noticed; with --set data.sha256=HASH, which "
    "`mtft-launch data push` prints, new data make a new job"
)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job, ready to be sent.

    Attributes:
        model: key of its model.
        objects: ConfigMap and PyTorchJob, with the namespace they go to.
        knows_data: whether ``data.sha256`` is set, so that its name tells one version of the data from another.
    """

    model: str
    objects: Sequence[Manifest]
    knows_data: bool

    @property
    def name(self) -> str:
        """Return the job's name."""
        return str(self.objects[-1]["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Return the namespace it goes to."""
        return str(self.objects[-1]["metadata"]["namespace"])


def prepare(
    document: Mapping[str, Any],
    resolved: Resolved,
    namespace: str | None,
    *,
    name: str | None = None,
    batch: str | None = None,
    nonce: str | None = None,
) -> Job:
    """Return the job of one model.

    Args:
        document: what is sent, unresolved.
        resolved: the effective configuration of the model.
        namespace: where it goes; None leaves that to whoever applies the objects.
        name: of the job; None: made from batch, model and configuration.
        batch: name of the batch it belongs to.
        nonce: makes a rerun another job.

    Raises:
        ConfigError: with every problem of the configuration.
        InputError: the name cannot be one.
    """
    objects = render(document, resolved.card.key, name=name, batch=batch, nonce=nonce, namespace=namespace)
    known = any(look_up(document, f"{where}data.sha256") for where in ("", f"models.{resolved.card.key}."))
    return Job(model=resolved.card.key, objects=objects, knows_data=known)


def refuse_too_large(resolved: Sequence[Resolved]) -> None:
    """Refuse trainings that cannot fit the GPUs they are sent to.

    Raises:
        InputError: with every one of them.
    """
    from mtft.memory import refusal

    if reasons := [reason for one in resolved if (reason := refusal(one.card, one.config))]:
        raise InputError("\n".join([*reasons, "--force of run and batch sends it all the same"]))


def refuse_unfit(jobs: Sequence[tuple[Resolved, Job]], cluster: Cluster) -> None:
    """Refuse trainings that fit no GPU of the cluster's nodes; print a note where that is not known.

    Raises:
        InputError: with every one of them.
        ClusterError: the cluster cannot be reached.
    """
    from launcher import gpu_fit

    if note := gpu_fit.refuse_unfit(cluster, [(one, job.objects[-1]) for one, job in jobs]):
        print(f"note: {note}", file=sys.stderr)


def run(args: argparse.Namespace) -> int:
    """Send one job, or say what is there already; follow it or wait for its end where asked to."""
    from launcher.arguments import resolve_arguments
    from launcher.cluster import connect
    from launcher.submit import submit

    if args.follow and not args.dry_run:
        from launcher.verbs.logs import refuse_yaml

        refuse_yaml("run --follow", args.output_format)
    document, resolved = resolve_arguments(args)
    for note in resolved.notes:
        print(f"note: {note}", file=sys.stderr)
    if not args.force:
        refuse_too_large([resolved])
    document = with_data_facts(document, [resolved], args.namespace)
    given = args.namespace or resolved.config.cluster.namespace
    nonce = secrets.token_hex(4) if args.rerun else None
    if args.dry_run:
        job = prepare(document, resolved, given or context_namespace(args.context), name=args.job, nonce=nonce)
        show(job.objects, args.output_format)
        return exit_codes.DONE
    cluster = connect(args.context, given)
    if args.job is not None:
        refuse_shared_name(args.job, cluster.list(JOBS, selector=labels.selector(batch=args.job)).items)
    job = prepare(document, resolved, cluster.namespace, name=args.job, nonce=nonce)
    if not args.force:
        refuse_unfit([(resolved, job)], cluster)
    try:
        submission = submit(cluster, job.objects)
    except KeyboardInterrupt:
        place = in_namespace(cluster.namespace)
        print(f"\n{job.name} may have been sent: `mtft-launch status {job.name}{place}` tells", file=sys.stderr)
        raise
    _tell(cluster, job, submission, args.output_format)
    return _see_through(cluster, job.name, args)


def context_namespace(context: str | None) -> str | None:
    """Return the namespace a kubeconfig context names; None where there is no kubeconfig.

    Raises:
        NoConnection: a context was asked for that is not there.
    """
    from launcher.connection import open_connection

    try:
        return open_connection(context).namespace
    except NoConnection:
        if context is not None:
            raise
        return None


def show(objects: Sequence[Manifest], output_format: str) -> None:
    """Print objects exactly as they would be sent."""
    from launcher.manifests import as_json, as_yaml
    from launcher.output import print_text

    print_text(as_json(objects) if output_format == "json" else as_yaml(objects).rstrip("\n"))


def state_of(cluster: Cluster, job: Manifest) -> JobState:
    """Return the state of a job as its own object tells it."""
    from launcher.states import job_state

    return job_state(job, None, now=cluster.now())


def standing(state: JobState) -> str:
    """Say in a few words how a job that is there stands: its state and its age."""
    from launcher.job_tables import duration

    return f"{state.state}, made {duration(state.age_s)} ago"


def way_on(job: Manifest, state: JobState) -> str | None:
    """Name the command that lets a job go on that is there and does not by itself; None: it does, or is finished."""
    verb = {"Failed": "retry", "Suspended": "resume", "Cancelled": "resume"}.get(state.state)
    return verb and f"`{launch(verb, job)}` continues it"


def _tell(cluster: Cluster, job: Job, submission: Submission, output_format: str) -> None:
    from launcher.output import print_document, say

    made, state = submission.outcome == "created", state_of(cluster, submission.job)
    notes = list(submission.notes)
    if not made:
        unseen = None if job.knows_data else UNSEEN_DATA
        hints = (placement_hint(cluster, job.objects, submission.job), _next_step(job, submission, state), unseen)
        notes += [hint for hint in hints if hint]
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    name, namespace = job.name, job.namespace
    if output_format != "table":
        document = {"name": name, "namespace": namespace, "model": job.model, "outcome": submission.outcome}
        print_document({**document, "state": state.state, "age_s": state.age_s}, output_format)
        return
    say(f"{name} submitted to namespace {namespace}" if made else f"{name} is there already: {standing(state)}")
    say(f"  follow  {launch('logs', submission.job, ' --follow')}")
    say(f"  wait    {launch('wait', submission.job)}")
    say(f"  look    kubectl get pytorchjob {name}{in_namespace(namespace)}")


def _next_step(job: Job, submission: Submission, state: JobState) -> str | None:
    found = submission.job
    if state.state == "Succeeded":
        data = "and data" if job.knows_data else "on the data that are there now"
        return f"it is finished; --rerun starts another run of the same configuration {data}"
    if state.state == "Failed":
        return f"it has failed: `{launch('describe', found)}` tells why, {way_on(found, state)}"
    if state.state in ("Suspended", "Cancelled"):
        word = "held back" if state.state == "Suspended" else "cancelled"
        return f"it is {word}: {way_on(found, state)}"
    return None


def _followed(cluster: Cluster, name: str, until: float | None, args: argparse.Namespace) -> bool:
    """Print what a job's pods write; return False where the reader, such as `head`, has seen enough."""
    from launcher.output import discard, is_read
    from launcher.verbs.logs import follow

    if not is_read():
        return False
    try:
        follow(cluster, name, until=until, as_json=args.output_format == "json")
    except BrokenPipeError:
        discard()
        return False
    return True


def _see_through(cluster: Cluster, name: str, args: argparse.Namespace) -> int:
    if not (args.follow or args.wait):
        if args.timeout is not None:
            print("note: --timeout does nothing without --wait or --follow", file=sys.stderr)
        return exit_codes.DONE
    from launcher.verbs.wait import report
    from launcher.waiting import wait_for

    until = None if args.timeout is None else time.monotonic() + args.timeout
    try:
        if args.follow and not _followed(cluster, name, until, args) and not args.wait:
            raise KeyboardInterrupt
        left = None if until is None else max(0.0, until - time.monotonic())
        return exit_codes.worst(list(wait_for(cluster, [name], left, report=report, sent=True).values()))
    except KeyboardInterrupt:
        command = f"mtft-launch cancel {name}{in_namespace(cluster.namespace)}"
        print(f"\njob {name} is not stopped by this; `{command}` does it", file=sys.stderr)
        raise
