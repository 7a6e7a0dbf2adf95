"""What differs between a live job and what would be sent in its place."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from launcher import labels, printed
from launcher.cluster_errors import ClusterError, Denied, Invalid
from launcher.pod import CONFIG_FILE
from launcher.queues import without_flavor
from launcher.resources import CONFIG_MAPS, JOBS
from launcher.submit import parts
from mtft.naming import alone

if TYPE_CHECKING:
    from launcher.cluster import Cluster

Manifest = dict[str, Any]
ABSENT = "(absent)"


@dataclass(frozen=True)
class Difference:
    """One value that is not the same.

    Attributes:
        path: where, such as ``config: train.epochs`` or ``spec.runPolicy.cleanPodPolicy``.
        live: as the cluster has it; ``ABSENT`` where it has none.
        wanted: as it would be sent.
    """

    path: str
    live: Any
    wanted: Any


def differences(cluster: Cluster, objects: Sequence[Manifest], job: Manifest) -> list[Difference]:
    """Compare a live job and its ConfigMap with objects that would be sent under its name.

    The server completes what would be sent as it completed what is there (a dry run), so its defaults do not show.
    Not compared: what a batch asks of other models, who holds the job back (``suspend``), when it was retried, what
    others and its queue have written on it, and which run it belongs to, because that follows from the configuration.

    Raises:
        ClusterError: the cluster refuses or cannot be reached.
    """
    config, wanted = parts(objects)
    meta = wanted["metadata"]
    held = cluster.find(CONFIG_MAPS, meta["name"], namespace=meta["namespace"])
    model = meta["labels"][labels.MODEL]
    found = list(_compare(_asked(held, model), _asked(config, model), "config: "))
    live = {**job, "spec": without_flavor(job, wanted["spec"])}
    found += _compare(_comparable(live), _comparable(_completed(cluster, wanted, job)), "")
    for key in ("labels", "annotations"):
        mine = {name: value for name, value in (meta.get(key) or {}).items() if name != labels.RUN}
        theirs = job["metadata"].get(key) or {}
        found += _compare({name: theirs[name] for name in mine if name in theirs}, mine, f"metadata.{key}.")
    return found


def _completed(cluster: Cluster, wanted: Manifest, job: Manifest) -> Manifest:
    spec = deepcopy(wanted["spec"])
    held_back = (job["spec"].get("runPolicy") or {}).get("suspend")
    if held_back is not None:
        spec.setdefault("runPolicy", {})["suspend"] = held_back
    name, place = job["metadata"]["name"], job["metadata"]["namespace"]
    try:
        return cluster.patch(
            JOBS, name, [{"op": "replace", "path": "/spec", "value": spec}], namespace=place, dry_run=True
        )
    except (Invalid, Denied):
        return {"spec": spec}  # what may not change in place: it differs, which is what is asked


def _comparable(job: Mapping[str, Any]) -> Any:
    spec = deepcopy(job["spec"])
    (spec.get("runPolicy") or {}).pop("suspend", None)
    for role in (spec.get("pytorchReplicaSpecs") or {}).values():
        ((role.get("template") or {}).get("metadata") or {}).get("labels", {}).pop(labels.RUN, None)
    return {"spec": spec}


def _asked(config_map: Mapping[str, Any] | None, model: str) -> Any:
    """Return what a ConfigMap asks of one model: what it says of others is not the job's."""
    document = _document(config_map)
    models = document.get("models") if isinstance(document, Mapping) else ()
    whole = isinstance(models, Mapping | None) and isinstance((models or {}).get(model), Mapping | None)
    return alone(document, model) if whole else document


def _document(config_map: Mapping[str, Any] | None) -> Any:
    text = ((config_map or {}).get("data") or {}).get(CONFIG_FILE)
    try:
        return json.loads(text) if text else {}
    except ValueError:
        return {"text": text}


def _compare(live: Any, wanted: Any, path: str) -> Iterator[Difference]:
    if isinstance(live, Mapping) and isinstance(wanted, Mapping):
        for name in sorted({*live, *wanted}):
            below = path + (name if not path or path.endswith((" ", ".")) else f".{name}")
            yield from _compare(live.get(name, ABSENT), wanted.get(name, ABSENT), below)
    elif isinstance(live, list) and isinstance(wanted, list):
        mine, theirs = _keyed(live), _keyed(wanted)
        for key in dict.fromkeys([*mine, *theirs]):
            yield from _compare(mine.get(key, ABSENT), theirs.get(key, ABSENT), f"{path}[{key}]")
    elif live != wanted:
        yield Difference(path, live, wanted)


def _keyed(items: Sequence[Any]) -> dict[str, Any]:
    """Return list entries under their ``name``, where each has one of its own, else under their place."""
    names = [item.get("name") if isinstance(item, Mapping) else None for item in items]
    if all(names) and len(set(names)) == len(names):
        return dict(zip(map(str, names), items, strict=True))
    return {str(index): item for index, item in enumerate(items)}


def placement_hint(cluster: Cluster, objects: Sequence[Manifest], job: Manifest) -> str | None:
    """Say in a line that a job that is there was sent with another placement; None where it was not, or who knows."""
    try:
        found = [each for each in differences(cluster, objects, job) if not each.path.startswith("metadata.")]
    except ClusterError:
        return None
    if not found:
        return None
    first = found[0]
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return (
        f"it runs with {first.path} = {_short(first.live)}, not {_short(first.wanted)}{more}: "
        f"`{printed.launch('diff', job)}` shows all, `{printed.launch('delete', job)}` and then run sends it anew"
    )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:39] + "…"
