"""What `run`, `batch` and the verbs that act say of a job that is there."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from launcher import acting, labels
from launcher.backends import kubernetes
from launcher.backends.kubernetes import Job
from launcher.cluster_errors import Forbidden
from launcher.submit import Submission
from launcher.verbs import batch
from mtft.settings import resolve


def prepared(**data: str) -> Job:
    train = {"train": "/mnt/mtft/t.jsonl", **data}
    document = {"model": "m2m100_418m", "data": train, "cluster": {"image": "localhost/none:1"}}
    return kubernetes.prepare(document, resolve(document), "team")


class Late:
    """A cluster whose clock is two hours after all jobs were made."""

    def now(self) -> datetime:
        return datetime(2030, 1, 2, 5, 0, tzinfo=UTC)


CLUSTER: Any = Late()


def next_step(job: Job, found: Submission) -> str:
    return str(kubernetes._next_step(job, found, kubernetes.state_of(CLUSTER, found.job)))


def there(job: Job, condition: str) -> Submission:
    """Return what sending a job comes to that is there in this condition."""
    status = {"conditions": [{"type": condition, "status": "True"}]}
    found = copy.deepcopy(job.objects[-1])
    found["metadata"]["creationTimestamp"] = "2030-01-02T03:00:00Z"
    return Submission(job={**found, "status": status}, outcome="already there")


def test_what_a_launcher_that_sees_no_data_says_of_a_finished_job() -> None:
    def said(**data: str) -> str:
        job = prepared(**data)
        return next_step(job, there(job, "Succeeded"))

    assert "the same configuration and data" in said(sha256="0" * 64)
    assert "the same configuration on the data that are there now" in said()


@pytest.mark.parametrize(("annotations", "word"), [({}, "held back"), ({labels.CANCELLED: "now"}, "cancelled")])
def test_sending_a_job_that_was_stopped_tells_how_to_go_on(annotations: dict[str, str], word: str) -> None:
    job = prepared()
    stopped = copy.deepcopy(job.objects[-1])
    stopped["metadata"].setdefault("annotations", {}).update(annotations)
    stopped["spec"]["runPolicy"]["suspend"] = True
    said = next_step(job, Submission(job=stopped, outcome="already there"))
    assert f"it is {word}: `mtft-launch resume {job.name} -n team`" in said


def test_a_refusal_with_a_rule_stands_below_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = "me may not patch pytorchjobs in namespace team\na rule of a Role that allows it:\n  - apiGroups: [...]"

    def refused(_: object, job: dict[str, Any]) -> str:
        raise Forbidden(rule)

    jobs: list[dict[str, Any]] = [{"metadata": {"name": name}} for name in ("a", "b")]
    cluster: Any = None
    assert acting.act(cluster, jobs, refused, "table") == 3
    head, first, second, rest = capsys.readouterr().out.split("\n", 3)
    assert head.split() == ["NAME", "RESULT"]
    assert first.split(None, 1)[1] == second.split(None, 1)[1] == rule.partition("\n")[0]
    assert rest == f"\na, b:\n{rule}\n"
    assert acting.act(cluster, jobs, refused, "json") == 3
    assert [row["result"] for row in json.loads(capsys.readouterr().out)] == [rule, rule]


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("Failed", "`mtft-launch describe {} -n team` tells why, `mtft-launch retry {} -n team` continues it"),
        ("Suspended", "`mtft-launch resume {} -n team` continues it"),
    ],
)
def test_the_next_step_names_the_namespace(condition: str, words: str) -> None:
    job = prepared()
    found = there(job, condition)
    assert words.replace("{}", job.name) in next_step(job, found)
    said = batch._there(CLUSTER, found)
    assert words.rpartition(", ")[2].replace("{}", job.name) in said
    assert f"{condition}, made 2h00m ago" in said, "by the cluster's clock"
