"""What ends an attempt before any rank starts, and what becomes of a finished run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from mtft import files, provenance, runs, store
from mtft.naming import config_hash, job_name
from mtft.runs import TIME_FORMAT
from tests.trainer import workers
from tests.trainer.supervising import CHECKOUT, MODEL, WORKERS, Bench, Start, until
from trainer import supervisor
from trainer.console import Console
from trainer.ingredients import Ingredients
from trainer.processes import Stop, Stopped


def starting(bench: Bench, job: str = "job") -> supervisor.Supervisor:
    """Return a start of a job, in this process."""
    modules = {"preparation_module": WORKERS, "worker_module": WORKERS}
    config = bench.root / "job.yaml"
    request = supervisor.Request(config=config, model=MODEL, job=job, root=None, attended=True, **modules)
    return supervisor.Supervisor(request, Stop(), Console())


def named(bench: Bench, batch: str = "") -> str:
    """Return the name that says no more than what the job is made of."""
    return job_name(batch, MODEL, config_hash(yaml.safe_load((bench.root / "job.yaml").read_text()), MODEL))


def test_config_error_is_2_with_every_problem(bench: Bench) -> None:
    bench.configure(train={"epochz": 1, "seed": -1})
    code, output = bench.run({})
    assert code == 2
    assert "train.epochz" in output and "train.seed" in output
    assert "Traceback" not in output and not (bench.root / "outputs").exists()


def test_missing_data_is_2_and_nothing_is_written(bench: Bench) -> None:
    (bench.root / "rows.jsonl").unlink()
    code, output = bench.run({})
    assert (code, "rows.jsonl: no such file" in output) == (2, True)
    assert not list((bench.root / "outputs").rglob("*.json"))


def test_bad_data_is_2_and_no_rank_starts(bench: Bench) -> None:
    code, output = bench.run({"preparation": "input", "0": "raise"})
    assert code == 2
    assert "bad input (exit 2): data.train: line 7 is no JSON" in output and "Traceback" not in output
    assert bench.record["attempts"][0]["exit_code"] == 2


def test_unwritable_storage_is_2(bench: Bench) -> None:
    (bench.root / "outputs").write_text("a file in the way")
    code, output = bench.run({})
    assert code == 2 and "outputs" in output and "Traceback" not in output


def test_a_preparation_that_is_killed_is_named(bench: Bench) -> None:
    code, output = bench.run({"preparation": "signal 9"})
    assert code == 143 and "preparing the data: killed by SIGKILL" in output


def test_a_record_that_cannot_be_written_changes_no_verdict(bench: Bench) -> None:
    """A preempted attempt on a volume that is full by now is still retried."""
    code, output = bench.run({"preparation": "fill-jobs 15"})
    assert code == 143 and "could not be recorded" in output


def test_a_volume_that_fails_the_supervisor_is_recorded_as_the_pod_ends(bench: Bench) -> None:
    code, output = bench.run({"preparation": "lose-attempt"})
    attempt = bench.record["attempts"][0]
    assert code == attempt["exit_code"] == 2
    assert "check storage.root" in attempt["reason"] and attempt["reason"] in output


def test_a_volume_that_takes_no_provenance_ends_the_attempt_with_the_reason(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bool:
        raise OSError(28, "No space left on device", "provenance.json")

    monkeypatch.setattr(Ingredients, "take_code", full)
    assert starting(bench).attempt().exit_code == 2
    [attempt] = bench.record["attempts"]
    assert attempt["exit_code"] == 2 and "provenance.json: No space left on device" in attempt["reason"]


@pytest.mark.parametrize("job", ["../escape", "Upper", "a" * 51, ""])
def test_a_job_name_that_is_none_is_refused(bench: Bench, job: str) -> None:
    command = [sys.executable, "-m", "trainer", "--config", "job.yaml", "--model", MODEL, "--job", job]
    done = subprocess.run(
        command,
        cwd=bench.root,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    assert done.returncode == 2 and "lower-case letters" in done.stderr and "Traceback" not in done.stderr
    assert not (bench.root / "outputs").exists()


def test_spent_budget_and_passed_deadline_are_permanent(bench: Bench) -> None:
    bench.configure(cluster={"processes_per_node": 1, "max_restarts": 1, "deadline_minutes": 5})
    assert bench.run({"preparation": "signal 9"})[0] == 143
    assert bench.run({"preparation": "signal 15"})[0] == 143
    code, output = bench.run({})
    assert code == 1 and "restart budget spent: 2 attempts, cluster.max_restarts is 1" in output
    page = (bench.root / "outputs" / "report.html").read_text()
    assert "Failed" in page and "restart budget spent" in page and "Not finished" not in page
    assert [attempt["exit_code"] for attempt in bench.record["attempts"]] == [143, 143]

    (bench.root / "retried").write_text("2030-01-02T03:04:05Z")
    assert bench.run({"preparation": "signal 9"})[0] == 143
    assert len(bench.record["attempts"]) == 3 and bench.record["refused"] is None


@pytest.mark.parametrize(("last", "named"), [("signal 9", True), ("signal 15", False)])
def test_a_budget_spent_on_kills_names_memory(last: str, named: bool, bench: Bench) -> None:
    bench.configure(cluster={"processes_per_node": 1, "max_restarts": 0})
    assert bench.run({"preparation": last})[0] == 143
    code, output = bench.run({})
    assert code == 1 and "goes on with a fresh budget" in output
    assert ("and a larger cluster.memory_gib if memory ran out" in output) == named


def ran(bench: Bench, minutes: int) -> None:
    """Let the job's one attempt have begun a day ago and, where it was not killed, have run so long."""
    begun = datetime.now(UTC) - timedelta(days=1)
    record = bench.record
    attempt = record["attempts"][0]
    attempt["started"] = begun.strftime(TIME_FORMAT)
    if attempt["ended"]:
        attempt["ended"] = (begun + timedelta(minutes=minutes)).strftime(TIME_FORMAT)
    else:
        said = (begun + timedelta(minutes=minutes)).timestamp()
        os.utime(bench.folder / "console_output.txt", (said, said))
    runs.job_file(bench.root, MODEL, "job").write_text(json.dumps(record | {"first_started": attempt["started"]}))


def test_time_between_the_attempts_is_not_counted(bench: Bench) -> None:
    bench.configure(cluster={"processes_per_node": 1, "deadline_minutes": 5})
    assert bench.run({"preparation": "signal 15"})[0] == 143
    ran(bench, 6)
    code, output = bench.run({})
    assert code == 1 and "deadline passed: cluster.deadline_minutes is 5; `mtft-launch retry job`" in output
    ran(bench, 4)
    assert bench.run({})[0] == 0


def test_a_stop_ends_the_reading_of_the_inputs(bench: Bench) -> None:
    """Before there is a run; a slow volume would otherwise take longer than a pod is given."""
    with (bench.root / "rows.jsonl").open("r+b") as rows:
        rows.truncate(1 << 40)  # zeros without blocks: minutes of hashing
    early = runs.early_starts_file(bench.root, MODEL, "job", locked_out=False)
    with bench.started({}) as process:
        while not early.exists():
            assert process.returncode is None
            time.sleep(0.05)
        process.terminate()
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "stopped by SIGTERM while data and base were read" in output


def test_a_larger_bound_of_the_same_job_lets_it_go_on(bench: Bench) -> None:
    def bound(**cluster: int) -> None:
        bench.configure(cluster={"processes_per_node": 1, **cluster})

    bound(max_restarts=0, deadline_minutes=5)
    assert bench.run({"preparation": "signal 9"})[0] == 143
    code, output = bench.run({})
    more = "so does a larger cluster.max_restarts: set it, and a larger cluster.memory_gib if memory ran out, delete"
    assert code == 1 and more in output
    bound(max_restarts=1, deadline_minutes=5)
    ran(bench, 6)
    code, output = bench.run({})
    assert code == 1 and "so does a larger cluster.deadline_minutes: set it, delete the job" in output
    bound(max_restarts=1, deadline_minutes=7)
    assert bench.run({})[0] == 0
    assert [attempt["exit_code"] for attempt in bench.record["attempts"]] == [143, 0]


def test_an_attempt_that_was_killed_counts_up_to_its_last_sign_of_life(bench: Bench) -> None:
    bench.configure(cluster={"processes_per_node": 1, "deadline_minutes": 5})
    with bench.started({"preparation": "wait"}) as process:
        until(process, "ready")
        process.kill()
    ran(bench, 6)
    code, output = bench.run({})
    assert code == 1 and "deadline passed" in output
    ran(bench, 4)
    assert bench.run({})[0] == 0
    killed = bench.record["attempts"][0]
    lasted = runs.parse_time(killed["ended"]) - runs.parse_time(killed["started"])
    assert lasted == timedelta(minutes=4) and killed["exit_code"] is None


def test_another_configuration_under_the_same_job_is_refused(bench: Bench) -> None:
    bench.run({"preparation": "input"})
    bench.configure(train={"seed": 7}, cluster={"processes_per_node": 1})
    code, output = bench.run({})
    assert code == 2
    assert f"with another configuration (run {bench.record['run_id']}; train.seed was not given, is 7); give" in output


def test_a_run_is_not_continued_on_other_data(bench: Bench) -> None:
    assert bench.run({"0": "signal 15"})[0] == 143
    (bench.folder / "prepared.json").write_text("{}")
    with (bench.root / "rows.jsonl").open("a") as data:
        data.write('{"source": "Hake.", "target": "Merluche.", "source_lang": "en"}\n')
    code, output = bench.run({})
    assert code == 2
    assert "data.train changed since run" in output and "--rerun" in output
    assert len(bench.record["attempts"]) == 1
    (bench.folder / "prepared.json").unlink()  # nothing was learned from the old rows yet: a mended file is taken
    assert bench.run({})[0] == 0
    written = json.loads((bench.folder / "provenance.json").read_text())
    assert written["data"]["train"] == files.sha256_file(bench.root / "rows.jsonl")


def test_code_that_changed_is_told_and_kept_on_record(bench: Bench) -> None:
    def worked_on_by(code: str) -> None:
        files.write_json(record, {**files.read_json(record), "code_sha256": code})

    def kept() -> tuple[bool, list[str] | None]:
        found = files.read_json(record)
        return found["code_sha256"] == provenance.code_hash(), found.get("earlier_code")

    bench.configure(cluster={"processes_per_node": 1, "max_restarts": 9})
    assert bench.run({"0": "signal 15"})[0] == 143
    record = bench.folder / "provenance.json"
    assert kept() == (True, None) and "the code of mtft" not in bench.run({"0": "signal 15"})[1]
    worked_on_by("v1")  # before there was anything of it in the run
    assert "the code of mtft" not in bench.run({"0": "signal 15"})[1] and kept() == (True, None)
    (bench.folder / "prepared.json").write_text("{}")
    for code in ("v2", "v3"):
        worked_on_by(code)
        assert "note: the code of mtft changed since run" in bench.run({"0": "signal 15"})[1]
    assert kept() == (True, ["v2", "v3"])
    assert "the code of mtft" not in bench.run({})[1] and kept() == (True, ["v2", "v3"])
    assert "the code of mtft" not in bench.run({})[1]
    worked_on_by("v4")
    output = bench.run({})[1]
    assert "the code of mtft changed" in output and "--rerun" in output and "finished already" in output
    assert kept() == (False, ["v2", "v3"])


def test_a_job_runs_once_at_a_time(bench: Bench) -> None:
    with bench.started({"preparation": "wait"}) as first:
        until(first, "ready")
        code, output = bench.run({})
        assert code == 143 and "running already" in output
        first.send_signal(signal.SIGINT)
        assert first.wait(timeout=60) == 143
    assert bench.record["attempts"][0]["reason"] == "stopped by SIGINT"


# ---- what becomes of a finished run


def test_a_promotion_that_was_cut_short_is_done_once_and_a_rollback_stands(bench: Bench) -> None:
    def start() -> str:
        code, output = bench.run({"0": "decide"})
        assert code == 0, output
        return output

    assert "is promoted" in start()
    folder = store.outputs(bench.root, MODEL)
    assert store.current_id(folder) == bench.folder.name
    (folder / "current").unlink()  # as a person who withdraws it by hand
    assert "is promoted" not in start()
    assert store.current_id(folder) is None


def test_a_stop_signal_ends_the_wait_for_the_store_and_the_next_start_promotes(bench: Bench) -> None:
    assert bench.run({"0": "decide"})[0] == 0
    folder = store.outputs(bench.root, MODEL)
    (folder / "current").unlink()
    shutil.rmtree(folder / "promotions")
    kept = folder / ".store.lease"
    kept.write_text(json.dumps({"owner": "far:17:x", "expires": 9e9}))
    with bench.started({}) as process:
        assert "process 17 on far" in until(process, "waiting for")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 143 and "stopped by SIGINT while another process held the store" in output
    kept.unlink()
    code, output = bench.run({})
    assert code == 0 and "is promoted" in output and store.current_id(folder) == bench.folder.name


def test_a_job_of_another_name_that_says_the_same_does_not_train_again(bench: Bench) -> None:
    bench.configure(model={"path": str(bench.root / "base")}, cluster={"processes_per_node": 1})
    (bench.root / "base").mkdir()
    (bench.root / "base" / "config.json").write_text("{}")
    first, second = (bench.run({"0": "decide"}, job=named(bench, batch)) for batch in ("", "night"))
    assert first[0] == second[0] == 0
    assert "nothing to retrain: run" in second[1]
    assert len(list((store.outputs(bench.root, MODEL) / "runs").iterdir())) == 1
    assert bench.run({"0": "decide"}, job="asked-for-by-name")[0] == 0
    assert len(list((store.outputs(bench.root, MODEL) / "runs").iterdir())) == 2


def test_a_stop_ends_the_hashing_of_a_run_that_may_be_the_same(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    start = starting(bench, named(bench))
    monkeypatch.setattr(supervisor, "same_run", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with start.stop.listening(), pytest.raises(Stopped, match="stopped by SIGTERM while data and base were read"):
        start._claim()


def test_a_run_that_is_removed_while_it_is_taken_over_is_trained_instead(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.configure(model={"path": str(bench.root / "base")})
    (bench.root / "base").mkdir()
    (bench.root / "base" / "config.json").write_text("{}")
    first = starting(bench, named(bench))._claim()
    done = runs.RunPaths.at(bench.root, MODEL, first.run_id)
    workers.leave(done)
    assert starting(bench, named(bench, "night"))._claim().run_id == first.run_id

    def claim_too_late(root: Path, job: runs.Job) -> runs.Job:
        shutil.rmtree(done.folder, ignore_errors=True)
        return runs.claim(root, job)

    monkeypatch.setattr(supervisor, "claim", claim_too_late)
    late = starting(bench, named(bench, "noon"))._claim()
    assert late.run_id != first.run_id and not late.finished
    assert runs.read_job(bench.root, MODEL, late.name) == late


def test_a_run_that_was_removed_is_not_trained_again_by_itself(bench: Bench) -> None:
    assert bench.run({"0": "decide"})[0] == 0
    shutil.rmtree(bench.folder)
    code, output = bench.run({"0": "decide"})
    assert code == 0 and "was removed; --rerun" in output and not bench.folder.exists()


def test_a_finished_job_whose_end_was_not_recorded_is_closed_by_the_next_start(
    bench: Bench, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its supervisor was killed between finished.json and the record; while that is open, nothing removes the run."""
    with monkeypatch.context() as killed:
        killed.setattr(supervisor.Supervisor, "_record", lambda *_: None)
        assert start()[0] == 0
    assert runs.runs_at_work(bench.root, MODEL) == {bench.folder.name} and not bench.record["finished"]
    code, output = start()
    assert code == 0 and "finished already" in output
    [attempt] = bench.record["attempts"]
    assert bench.record["finished"] and attempt["ended"] and attempt["reason"] == "killed without a word"
    assert not runs.runs_at_work(bench.root, MODEL)


def test_a_finished_job_whose_run_was_damaged_is_2(bench: Bench) -> None:
    assert bench.run({})[0] == 0
    finished = json.loads((bench.folder / "finished.json").read_text())
    listed = {store.FILES: files.listing(bench.folder / "lora")}
    (bench.folder / "finished.json").write_text(json.dumps(finished | listed))
    assert bench.run({})[0] == 0
    (bench.folder / "lora" / "adapter_model.safetensors").write_bytes(b"WEIGHTS")
    code, output = bench.run({})
    assert code == 2 and "is finished, but" in output and "has not the SHA-256" in output and "--rerun" in output


def test_a_finished_job_is_0_and_never_works_again(executed: Bench) -> None:
    code, output = executed.run({})
    assert code == 0 and "done (exit 0): finished" in output
    assert executed.record["finished"] and executed.record["attempts"][0]["exit_code"] == 0
    assert {"config.yaml", "provenance.json", "finished.json", "console_output.txt"} <= {
        path.name for path in executed.folder.iterdir()
    }
    code, output = executed.run({"preparation": "raise", "0": "raise"})
    assert code == 0 and "finished already" in output
    assert len(executed.record["attempts"]) == 1
