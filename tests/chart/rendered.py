"""A whole release as the cluster would get it: its objects, the pods they make, and what stands in a pod."""

from __future__ import annotations

from typing import Any

import yaml

from tests.chart.helm import CHART, Helm

Objects = dict[tuple[str, str], dict[str, Any]]
Pod = dict[str, Any]
SMALL = ("launcher", "prefetch", "self-test")
"""The pods that only the chart makes, by their component."""


def whole(helm: Helm, values: dict[str, Any], *, release: str = "night", namespace: str = "home") -> Objects:
    """Return every object of a release by kind and name, the pod of ``helm test`` too."""
    text = helm("template", release, CHART, "--namespace", namespace, values=values)
    objects = [each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each]
    found = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    assert len(found) == len(objects), "two objects of one name"
    return found


def of_kind(objects: Objects, kind: str) -> list[dict[str, Any]]:
    return [each for (other, _), each in objects.items() if other == kind]


def small_pods(objects: Objects) -> dict[str, Pod]:
    """Return metadata and specification of the pods that only the chart makes, by component."""
    made = [each["spec"]["jobTemplate"]["spec"]["template"] for each in of_kind(objects, "CronJob")]
    made += [each["spec"]["template"] for each in of_kind(objects, "Job")]
    made += of_kind(objects, "Pod")
    return {each["metadata"]["labels"]["app.kubernetes.io/component"]: each for each in made}


def trainer_pods(objects: Objects) -> dict[str, Pod]:
    """Return the pod of each job by the job's name, with the label that the training operator adds."""
    made = {}
    for job in of_kind(objects, "PyTorchJob"):
        pod = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
        name = job["metadata"]["name"]
        labels = {**pod["metadata"]["labels"], "training.kubeflow.org/job-name": name}
        made[name] = {"metadata": {**pod["metadata"], "labels": labels}, "spec": pod["spec"]}
    return made


def variables(container: dict[str, Any]) -> dict[str, Any]:
    """Return what a container is told: the text of a variable, or where it comes from."""
    return {each["name"]: each["value"] if "value" in each else each["valueFrom"] for each in container["env"]}


def mounted(pod: Pod) -> dict[str, dict[str, Any]]:
    """Return the volume at each path of the pod's first container, with whether it is read-only."""
    volumes = {each["name"]: each for each in pod["spec"]["volumes"]}
    mounts = pod["spec"]["containers"][0]["volumeMounts"]
    return {each["mountPath"]: {**volumes[each["name"]], "readOnly": each.get("readOnly", False)} for each in mounts}
