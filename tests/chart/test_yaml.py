"""Names that YAML 1.1, which Helm reads, takes for something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chart.helm import Helm, HelmFailed

DOCUMENT = (
    "{data: {train: /mnt/a}, cluster: {image: example.org/mtft:1.0, %s}, gate: {guard_sets: {%s}}, "
    "models: {opus_mt_en_fr: {%s}}}"
)


@pytest.mark.parametrize(
    ("cluster", "guard_sets", "one", "name", "path"),
    [
        ("env: {NAME: '1'}", "", "", "NO", "cluster.env.false"),
        ("labels: {NAME: x}", "", "", "on", "cluster.labels.true"),
        ("node_selector: {NAME: x}", "", "", "off", "cluster.node_selector.false"),
        ("affinity: {required: {NAME: [x]}}", "", "", "on", "cluster.affinity.required.true"),
        ("affinity: {preferred: {NAME: [x]}}", "", "", "no", "cluster.affinity.preferred.false"),
        ("secrets: {NAME: {name: hub, key: token}}", "", "", "Yes", "cluster.secrets.true"),
        ("", "NAME: /mnt/mtft/data/no.jsonl", "", "no", "gate.guard_sets.false"),
        ("annotations: {NAME: x}", "", "", "yes", "cluster.annotations.true"),
        ("", "", "cluster: {labels: {NAME: x}}", "yes", "models.opus_mt_en_fr.cluster.labels.true"),
    ],
)
def test_a_name_that_yaml_rereads_is_refused(
    helm: Helm, tmp_path: Path, cluster: str, guard_sets: str, one: str, name: str, path: str
) -> None:
    file = tmp_path / "values.yaml"
    text = DOCUMENT % (cluster, guard_sets, one)
    file.write_text(text.replace("NAME", name))
    with pytest.raises(HelmFailed, match="write the name in quotes") as refused:
        helm.template("weekly", "-f", file)
    assert f"  {path}: is no name" in str(refused.value)
    file.write_text(text.replace("NAME", f'"{name}"'))
    assert helm.template("weekly", "-f", file)
