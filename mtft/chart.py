"""What is generated of the Helm chart, so that it says nothing twice that the schema or the models say.

``files/facts.json`` tells the templates the defaults of ``cluster``, ``storage`` and ``chart``, the keys of the models,
the old names and the forms of what is refused.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from mtft.chart_config import ChartConfig, ScheduleConfig
from mtft.chart_schema import values_schema
from mtft.cluster_config import ClusterConfig, SecretRef
from mtft.cluster_names import OUR_KEYS, PATTERNS, SET_VARIABLES
from mtft.config import StorageConfig
from mtft.fields import Field, fields, fields_of, sections, sections_of
from mtft.legacy import OLD_NAMES
from mtft.models import MODELS
from mtft.redaction import SECRET_NAMES, SECRET_VALUES, SWITCHES
from mtft.reference import settings_tables, starter_lines

_SUMMARY = "Retrains EN-FR translation models on a GPU cluster: one PyTorchJob for each enabled model"
_BY_CARD = {
    path: replace(fields()[path], description=f"{fields()[path].description} Default: the model card's.")
    for path in ("train.batch_size", "train.learning_rate")
}


def files(project: str) -> dict[str, str]:
    """Return the generated files of the chart by their names in it; ``project`` is the text of pyproject.toml."""
    version = tomllib.loads(project)["project"]["version"]
    return {
        "Chart.yaml": _chart(version),
        "README.md": "\n".join(_readme()) + "\n",
        "values.yaml": "\n".join(_values()) + "\n",
        "values.schema.json": json.dumps(values_schema(), ensure_ascii=False, indent=2) + "\n",
        "files/facts.json": json.dumps(_facts(), ensure_ascii=False, indent=2) + "\n",
    }


def _chart(version: str) -> str:
    return f"""# Written by `make generate`; the version is the project's.
apiVersion: v2
name: mtft
description: "{_SUMMARY}"
type: application
version: {version}
appVersion: "{version}"
keywords: [translation, fine-tuning, lora, pytorchjob, kubeflow]
"""


def _facts() -> dict[str, Any]:
    return {
        "models": list(MODELS),
        "cluster": ClusterConfig().model_dump(mode="json"),
        "storage": StorageConfig().model_dump(mode="json"),
        "chart": ChartConfig().model_dump(mode="json"),
        "old_names": OLD_NAMES,
        "forms": forms(),
    }


def forms() -> dict[str, Any]:
    """Return the patterns of what templates refuse, and in words what is allowed where the schema does not say it."""
    properties = SecretRef.model_json_schema()["properties"]
    cluster = ClusterConfig.model_json_schema()["properties"]
    (variable,) = cluster["secrets"]["patternProperties"]
    image = cluster["image"]["anyOf"][0]["pattern"]
    cron = ScheduleConfig.model_json_schema()["properties"]["cron"]["anyOf"][0]["pattern"]
    return {
        "secret_value": SECRET_VALUES.pattern,
        "secret_name": SECRET_NAMES.pattern,
        "switch": _whole(SWITCHES),
        "set_variable": _whole(SET_VARIABLES),
        "our_key": _whole(OUR_KEYS),
        "secret_ref": {name: _form(said.get("pattern", "")) for name, said in properties.items()},
        "variable": _form(variable),
        "cron": _form(cron),
        "image": _form(image),
    }


def _form(pattern: str) -> dict[str, str]:
    return {"pattern": pattern, "allowed": PATTERNS.get(pattern, "")}


def _whole(pattern: re.Pattern[str]) -> str:
    return f"^({pattern.pattern})$"


def _parts() -> dict[str, str]:
    """Return every part of the values and its description."""
    own = {f"chart.{part}": text for part, text in sections_of(ChartConfig).items()}
    return {**sections(), "chart": str(ChartConfig.__doc__), **own}


def _settings() -> dict[str, Field]:
    own = {f"chart.{path}": replace(field, path=f"chart.{path}") for path, field in fields_of(ChartConfig).items()}
    return fields() | _BY_CARD | own


def _values() -> Iterator[str]:
    """Yield values.yaml. It sets nothing but the models' keys: where a value has a default, Helm drops a null."""
    yield "## Values of the mtft chart: the document of `mtft-launch batch` (mtft.yaml) and the key `chart`."
    yield "## Written by `make generate`. Lines with ## explain, lines with # show the defaults."
    yield "##"
    yield "## helm install retrain helm/mtft --set data.train=/mnt/mtft/data/train.jsonl.gz \\"
    yield "##   --set cluster.image=example.org/mtft:1.0"
    yield "##"
    yield "## --set reads whole numbers only; a fraction goes into a file or is given with --set-json train.epochs=0.5"
    yield ""
    yield "## The models to train; each may override any setting below, such as"
    yield "##   m2m100_418m: {train: {epochs: 2}, cluster: {nodes: 2}}"
    yield "## `enabled: false` leaves one out. `model: KEY` (or {key, path, revision}) beside them trains that one."
    yield "models:"
    yield from (f"  {key}: {{}}" for key in MODELS)
    settings = _settings()
    for path in ("preset", "method"):
        yield ""
        yield f"## {settings[path].description} Allowed: {settings[path].allowed}."
        yield f"#{path}: {json.dumps(settings[path].default)}"
    shown = {"data.train": "/mnt/mtft/data/train.jsonl.gz"}
    parts = {part: text for part, text in _parts().items() if part != "model"}
    yield from starter_lines(parts, settings, shown)


def _readme() -> Iterator[str]:
    yield "# mtft"
    yield ""
    yield f"{_SUMMARY},"
    yield "equal to what `mtft-launch batch --all --name RELEASE` sends. Written by `make generate`; do not edit."
    yield ""
    yield "```sh"
    yield "helm install retrain helm/mtft --set data.train=/mnt/mtft/data/train.jsonl.gz \\"
    yield "  --set cluster.image=example.org/mtft:1.0"
    yield "```"
    yield ""
    yield from _NOTES.strip().splitlines()
    yield from settings_tables(_parts(), _settings())


_NOTES = """
Values are the document of `mtft-launch` (`mtft.yaml`), the same keys with the same meaning, and one key more: `chart`.
docs/recipes/helm.md of the checkout goes through installing, upgrading, scheduling, GitOps and removing.

- **Models.** All are enabled; `--set models.m2m100_418m.enabled=false` leaves one out, any other key below
  `models.<key>` goes over the shared part. `model: KEY` trains that one alone.
- **The volume.** Jobs mount the claim `cluster.claim` (`mtft`), ReadWriteMany, with the data on it. It has to be there:
  `--set chart.claim.create=true` makes it, empty.
- **Several pods** (`cluster.nodes`) in a namespace that enforces Pod Security `restricted` take an operator that an
  administrator has given `manifests/operator` of the checkout, once; else no worker is made.
- **Names.** A job is called `<release>-<model>-<hash>`; the hash covers all but `cluster`, `storage` and `chart`.
  An upgrade with the same configuration changes nothing; with another one it makes new jobs and removes the old ones
  from the cluster. What they have written stays on the volume, and a rollback finds a finished run finished.
- **Another number of pods** (`cluster.nodes`) of a job that trains is refused by `helm upgrade`. Nothing refuses it in
  `helm rollback`, or where `kubectl apply` takes what `helm template` prints; render with `--no-hooks` there.
- **A queue** (`cluster.queue`) chooses the nodes: leave `node_selector` and `tolerations` to its flavors. Where values
  give any too, Helm 4 upgrades and rolls back with `--server-side=false` (docs/recipes/helm.md).
- **New data under an old name** make no new job, because Helm does not see them: give `data.sha256`, or let
  `chart.schedule` hash them in the cluster.
- **Numbers.** `--set` reads whole numbers only: `--set-json train.epochs=0.5`, or a values file.
- **null** keeps its meaning, in files and in `--set`; `models.<key>: null` is a model without overrides, and a part
  left empty (`eval:`) is as if it were not there. Of an umbrella chart's own `values.yaml` Helm 4 drops a null and
  Helm 3 does not: there give nulls with `-f` or `--set`. Over `helm upgrade --reuse-values` a null counts for nothing
  and the former value stays: give all values with `-f` instead. Of two values files the second cannot empty a map of
  the first (`env`, `labels`, `node_selector`, `secrets`): leave it out of the first.
- **Umbrella charts.** A dependency's `condition` is a path outside this chart's own key, such as `training.enabled`:
  its values are closed, and `mtft.enabled` is refused. One release holds the chart once: two aliases of it would make
  objects of the same names, so make two releases.
- **The prefetch and `helm test`** know the shared part alone: a model's own `storage.root`, `cluster.claim` or
  `cluster.secrets` are not filled and not looked at.
- **Old names** of settings (`lora_r`, `grad_accum`, ...) are refused with the new name.
- **Namespace.** Objects name one only where `cluster.namespace` does; give `-n` to Helm, and to kubectl where it
  applies what `helm template` prints.
- Tested with Helm 3.22 and 4.2, and a cluster with the Kubeflow training operator (v1). `chart.schedule` needs
  Kubernetes 1.27.
"""
