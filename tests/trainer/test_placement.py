"""Where a job runs may change between two starts of it; nothing else of its configuration does."""

from __future__ import annotations

import shutil

import yaml

from mtft.runs import RunPaths
from tests.trainer.supervising import Bench


def test_the_ranks_read_where_the_job_runs_now_and_what_it_was_claimed_with(bench: Bench) -> None:
    def start(seconds: int) -> None:
        bench.configure(cluster={"processes_per_node": 1, "longest_step_seconds": seconds})
        assert bench.run({"preparation": "signal 15"})[0] == 143

    start(30)
    path = RunPaths.of(bench.folder).config
    claimed = yaml.safe_load(path.read_text())
    claimed["train"]["label_smoothing"] = 0.3  # the default of the image that claimed the run, say
    path.write_text(yaml.safe_dump(claimed))
    before = path.stat().st_mtime_ns
    start(30)
    assert path.stat().st_mtime_ns == before
    start(45)
    claimed["cluster"]["longest_step_seconds"] = 45
    assert yaml.safe_load(path.read_text()) == claimed
    assert len(bench.record["attempts"]) == 3


def test_a_run_that_was_removed_before_its_end_is_named_with_the_way_on(bench: Bench) -> None:
    bench.configure(cluster={"processes_per_node": 1})
    assert bench.run({"preparation": "signal 15"})[0] == 143
    shutil.rmtree(bench.folder)
    code, said = bench.run({})
    assert code == 2
    assert f"{bench.folder}: the run of this job was removed before it was finished; put it back, or" in said
    assert "--rerun" in said and "mtft-launch init" not in said
