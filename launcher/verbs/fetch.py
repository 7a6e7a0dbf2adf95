"""``mtft-launch fetch``: what a run left on the shared volume, to this machine."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.arguments import DEFAULT_FILE, add_cluster_arguments, add_output_argument, namespace_of, user_path
from mtft import exit_codes
from mtft.errors import InputError

if TYPE_CHECKING:
    from launcher.cluster import Cluster
    from launcher.fetching import Wanted
    from launcher.transfer import Remote

EXAMPLE = "mtft-launch fetch opus_mt_en_fr --what adapter --to adapter"
_REPORT = "report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    parser.add_argument(
        "name",
        metavar="JOB|MODEL|BATCH",
        help="job: its run; model: its current run, else the newest; batch (--what report): the page of all models",
    )
    parser.add_argument(
        "--what",
        choices=("adapter", "report", "run"),
        default="adapter",
        help="the tuned weights, the page, or everything but the checkpoints (default: adapter)",
    )
    parser.add_argument("--run", metavar="RUN-ID", help="another run of the model than that")
    parser.add_argument("--to", type=user_path, metavar="DIR", help="folder (default: named after it)")
    parser.add_argument("--replace", action="store_true", help="remove what the folder holds of another run")
    parser.add_argument(
        "--config",
        type=user_path,
        metavar="FILE",
        help=f"of a model: where its store is (default: as its newest job has it, else ./{DEFAULT_FILE})",
    )
    add_cluster_arguments(parser)
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Copy the files and check every SHA-256."""
    from launcher.cluster import connect
    from launcher.files_here import refuse_unwritable
    from launcher.output import print_document, say
    from launcher.transfer import Remote
    from launcher.transfer_pod import root_of, running, transfer_pod

    folder = args.to or Path(args.name)
    refuse_unwritable(folder)
    cluster = connect(args.context, namespace_of(args))
    meant = find_job(cluster, args.name, args.config)
    if meant.model is None and args.what != "report":
        raise InputError(f"{args.name} is a batch; name its jobs or models one by one (--what report takes a batch)")
    root = root_of(meant.template["spec"])
    with running(cluster, transfer_pod(meant.template, read_only=True)) as pod:
        remote = Remote(cluster, pod, cluster.namespace)
        if meant.model is None:
            found: dict[str, Any] = {"folder": f"{root}/outputs", "deliverable": None}
        else:
            which = ("run", args.run) if args.run else ("job", meant.job) if meant.job else ()
            [found] = remote.ask("run", root, meant.model, *which)
        if found["folder"] is None:
            raise InputError(_no_run(cluster, args.name))
        if args.what == "adapter" and found["deliverable"]:
            remote.ask("sound", found["folder"])
        files = _wanted(remote, args.what, found, folder)
        sent = _copy(remote, found["folder"], files, folder, replace=args.replace)
    answer = {
        "run": found["folder"],
        "to": str(folder),
        "files": len(files),
        "sent": sent,
        "bytes": sum(each.size for each in files),
    }
    if args.output_format != "table":
        print_document(answer, args.output_format)
    else:
        here = f", {len(files) - sent} were here already" if sent < len(files) else ""
        print(
            f"{sent} file{'s' * (sent != 1)} of {found['folder']} fetched{here}; every SHA-256 is right",
            file=sys.stderr,
        )
        say(str(folder))
    return exit_codes.DONE


@dataclass(frozen=True)
class Meant:
    """What a name means.

    Attributes:
        template: the pod template to reach the volume with.
        model: its key; None for a batch.
        job: its name, also of one that is gone; None for a model or a batch.
    """

    template: Mapping[str, Any]
    model: str | None = None
    job: str | None = None


def find_job(cluster: Cluster, name: str, config_file: Path | None) -> Meant:
    """Return what a name means, and how to reach its volume.

    Args:
        cluster: where to look.
        name: job, model or batch.
        config_file: says how to reach a model's volume; None: as its newest job that ran, or ./mtft.yaml
                without a job.

    Raises:
        InputError: there is no such job or model, or the configuration names no image.
        ClusterError: the jobs cannot be listed.
    """
    from launcher import labels
    from launcher.partial import cluster_config
    from launcher.pod import pod_template
    from launcher.resources import JOBS
    from launcher.selection import choose
    from mtft.models import MODELS

    jobs = cluster.list(JOBS, selector=labels.SELECTOR).items

    def newest(label: str) -> dict[str, Any] | None:
        found = [job for job in jobs if job["metadata"]["labels"].get(label) == name]
        return max(found, key=lambda each: (_has_run(each), str(each["metadata"]["creationTimestamp"])), default=None)

    if job := next((job for job in jobs if job["metadata"]["name"] == name), None):
        return Meant(_template_of(job), model=model_label(job), job=name)
    # A file that is named says which store is meant; another job of the model may have another one.
    if config_file is None and (job := newest(labels.MODEL)):
        return Meant(_template_of(job), model=name)
    if job := newest(labels.BATCH):
        return Meant(_template_of(job))
    model = name if name in MODELS else _model_of(name)
    if model is None:
        choose([name], jobs)  # raises, with what was probably meant
        raise AssertionError("no job, model or batch has the name")
    template = pod_template(cluster_config(config_file, model=model), model, "transfer", {})
    return Meant(template, model=model, job=None if name in MODELS else name)


def _has_run(job: Mapping[str, Any]) -> bool:
    """Tell whether its pods ever ran: one whose image or claim is wrong shows no way to the volume."""
    return any(each["type"] == "Running" for each in job.get("status", {}).get("conditions") or [])


def _template_of(job: Mapping[str, Any]) -> Mapping[str, Any]:
    from launcher.job_objects import roles

    template: Mapping[str, Any] = roles(job)[0]["template"]
    return template


def _no_run(cluster: Cluster, name: str) -> str:
    """Say of a job without a run what it does instead."""
    from datetime import UTC, datetime

    from launcher import printed
    from launcher.resources import JOBS
    from launcher.states import job_state
    from launcher.watching import states_of

    job = cluster.find(JOBS, name)
    if job is None:
        return f"{name} left no run on the volume, and is no job of namespace {cluster.namespace} any more"
    [state] = states_of(cluster, [job])
    if state.state == "Failed" and state.exit_code is None and not state.nodes:
        state = job_state(job, None, now=datetime.now(UTC))  # whose pods are gone would be sent here again
    why = f": {state.reason}" if state.reason else ""
    return f"{name} has no run yet: it is {state.state}{why}; `{printed.launch('status', job)}`"


def model_label(job: Mapping[str, Any]) -> str:
    """Return the model of a job that is there.

    Raises:
        InputError: somebody took its label away, and its name tells none.
    """
    from launcher import labels, printed
    from mtft.models import MODELS

    name, place = job["metadata"]["name"], job["metadata"]["namespace"]
    if found := job["metadata"]["labels"].get(labels.MODEL) or _model_of(name):
        return str(found)
    raise InputError(
        f"{name} has no label {labels.MODEL}, which says whose run it made; name the model instead "
        f"({', '.join(MODELS)}), or give it the label: "
        f"kubectl label pytorchjob {name}{printed.in_namespace(place)} {labels.MODEL}=MODEL"
    )


def _model_of(job: str) -> str | None:
    """Return the model whose key stands before the hash in a job's name; None in a name a person gave."""
    from mtft.models import MODELS

    if not re.fullmatch(r".+-[0-9a-f]{10}", job):
        return None
    stem = f"-{job[:-11]}"
    return next((key for key in MODELS if stem.endswith(f"-{key.replace('_', '-')}")), None)


def _wanted(remote: Remote, what: str, found: dict[str, Any], folder: Path) -> list[Wanted]:
    """Return every file that is asked for, with its place below a folder here."""
    from launcher.fetching import Wanted
    from launcher.transfer import safe_path

    top = {"adapter": found["deliverable"], "report": _REPORT, "run": "."}[what]
    if top is None:
        raise InputError(
            f"{found['folder']}: the run is not finished, so there is no {what} yet; --what run fetches all"
        )
    inside = f"{top}/" if what == "adapter" else ""
    files = [
        Wanted(source=each["path"], name=name, target=safe_path(folder, name), size=each["size"])
        for each in remote.ask("list", found["folder"], top)
        if not each["path"].startswith("checkpoints/") and (name := each["path"].removeprefix(inside))
    ]
    if not files:
        raise InputError(f"{found['folder']}: there is no {top} yet")
    return files


def _copy(remote: Remote, run_folder: str, files: Sequence[Wanted], folder: Path, *, replace: bool) -> int:
    """Fetch what is not here yet; return how many files that were."""
    from launcher.fetching import claim, complete
    from launcher.transfer_bar import Bar

    same = complete(remote, run_folder, files)
    claim(folder, f"{remote.namespace}:{run_folder}", files, same, replace=replace)
    with Bar("fetching", sum(each.size for each in files)) as bar:
        for each in files:
            seen = bar.file(each.target.name, each.size)
            if each.name in same:
                seen(each.size)
            else:
                remote.fetch(f"{run_folder}/{each.source}", each.target, seen)
    return len(files) - len(same)
