"""Everything about one job on a page: what it is, what its pods do, what the cluster said of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from launcher import labels
from launcher.job_objects import parse_time, rank_of
from launcher.job_tables import duration, first_words, rates_text, restarts_text, scores_text
from launcher.labels import CONTAINER
from launcher.output import table
from launcher.pod_reasons import ending, last_seen, node_failures, ran_from_to, scheduler_failures, waiting_reason
from launcher.results import ERRORS, KEPT
from launcher.states import JobState

Object = Mapping[str, Any]
_TO_THE_SECOND = len("2030-01-02T03:04:05")


def describe(
    job: Object, state: JobState, pods: Sequence[Object], events: Sequence[Object], now: datetime
) -> dict[str, Any]:
    """Return the page as a document.

    Args:
        job: the PyTorchJob.
        state: what is told of it.
        pods: its pods.
        events: of its namespace; others' are left out.
        now: the present, with time zone.
    """
    given = job["metadata"].get("labels") or {}
    master = (job["spec"]["pytorchReplicaSpecs"].get("Master") or {}).get("template") or {}
    containers = (master.get("spec") or {}).get("containers") or []
    images = [each.get("image") for each in containers if each.get("name") == CONTAINER]
    failures = node_failures(events) | scheduler_failures(pods, events, now)
    return {
        **state.as_dict(),
        "image": images[0] if images else None,
        "configuration": given.get(labels.RUN),
        "conditions": [_condition(each, now) for each in (job.get("status") or {}).get("conditions") or []],
        "ran_s": _ran(pods, now),
        "pod_list": [_pod(each, failures, now) for each in sorted(pods, key=rank_of)],
        "events": [_event(each, now) for each in events_of(job, events)],
    }


def events_of(job: Object, events: Sequence[Object]) -> list[Object]:
    """Return the events of a job and of its pods, the oldest first; none of an earlier job of the name."""
    ours = re.compile(rf"{re.escape(job['metadata']['name'])}(-(master|worker)-\d+)?")
    found = [each for each in events if ours.fullmatch(each["involvedObject"].get("name") or "")]
    made = str(job["metadata"].get("creationTimestamp") or "")[:_TO_THE_SECOND]

    def written(event: Object) -> str:
        # By the API server's clock, as the job's own time is; who saw it may have another.
        return str(event["metadata"].get("creationTimestamp") or last_seen(event))[:_TO_THE_SECOND]

    return sorted((each for each in found if written(each) >= made), key=last_seen)


def page(document: Mapping[str, Any]) -> str:
    """Return the document of :func:`describe` as text for a person."""
    parts = [table([{"what": name, "value": value} for name, value in _facts(document)]).partition("\n")[2]]
    if why := document["reason"] or "\n".join(document["verdict_reasons"]):
        parts.append(f"why:\n{_indented(why)}")
    for title, rows in (("conditions", document["conditions"]), ("pods", document["pod_list"])):
        parts.append(f"{title}:\n{_indented(table(rows))}")
    if document["events"]:
        parts.append(f"events:\n{_indented(table(document['events']))}")
    else:
        parts.append("events: none; the cluster keeps them for about an hour")
    return "\n\n".join(parts)


def _facts(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    state = JobState(**{name: value for name, value in document.items() if name in JobState.__dataclass_fields__})
    facts = {
        "job": f"{state.name} in namespace {state.namespace}",
        "model": state.model,
        "batch": state.batch,
        "image": document["image"],
        "state": f"{state.state}, {state.phase}",
        "progress": _progress(state),
        "verdict": state.verdict,
        **{f"test {name}": scores_text(values) for name, values in state.scores.items()},
        **{f"kept {name}": rates_text(values, KEPT) for name, values in state.scores.items()},
        **{f"errors {name}": rates_text(values, ERRORS) for name, values in state.scores.items()},
        "restarts": restarts_text(state),
        "pods": f"{state.pods} of {state.pods_wanted} running, {state.gpus} GPUs",
        "queue": state.queue,
        "run": state.run_id,
        "age": duration(state.age_s),
        "last start took": _took(state, document["ran_s"]),
    }
    return [(name, value) for name, value in facts.items() if value and value != "-"]


def _took(state: JobState, ran_s: float | None) -> str:
    """Return the time since the last start, which counts from before the pods have a node, and what ran of it."""
    ran = f", of which its last pods ran {duration(ran_s)}" if ran_s is not None else ", the wait for nodes included"
    return duration(state.took_s) + (ran if state.took_s is not None else "")


def _ran(pods: Sequence[Object], now: datetime) -> float | None:
    """Return the seconds from the first start of a trainer in these pods to the last end, or to now."""
    spans = [span for pod in pods if (span := ran_from_to(pod, now))]
    return (max(end for _, end in spans) - min(start for start, _ in spans)).total_seconds() if spans else None


def _progress(state: JobState) -> str | None:
    if state.percent is None:
        return None
    return (
        f"{state.percent:.0f}% (step {state.step} of {state.total_steps}), {duration(state.eta_s)} left, "
        f"loss {state.loss if state.loss is not None else '-'}, {state.tokens_per_second or '-'} tokens/s"
    )


def _condition(condition: Object, now: datetime) -> dict[str, Any]:
    return {
        "since": _ago(condition.get("lastTransitionTime"), now),
        "condition": condition["type"],
        "holds": "yes" if condition["status"] == "True" else "no",
        "message": condition.get("message", ""),
    }


def _pod(pod: Object, failures: Mapping[str, str], now: datetime) -> dict[str, Any]:
    status, ended = pod.get("status") or {}, ending(pod)
    return {
        "rank": rank_of(pod),
        "pod": pod["metadata"]["name"],
        "phase": status.get("phase", "Unknown"),
        "node": (pod.get("spec") or {}).get("nodeName") or "-",
        "since": _ago(status.get("startTime"), now),
        "note": first_words((ended.reason if ended else waiting_reason(pod, failures)) or "-"),
    }


def _event(event: Object, now: datetime) -> dict[str, Any]:
    seen = event.get("count") or (event.get("series") or {}).get("count") or 1
    return {
        "last": _ago(last_seen(event), now),
        "times": seen,
        "kind": event.get("type", "Normal"),
        "about": f"{event['involvedObject'].get('kind', '').lower()}/{event['involvedObject']['name']}",
        "reason": event.get("reason", ""),
        "message": (event.get("message") or "").strip().replace("\n", " "),
    }


def _ago(text: str | None, now: datetime) -> str:
    then = parse_time(text or None)
    return f"{duration((now - then).total_seconds())} ago" if then else "-"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
