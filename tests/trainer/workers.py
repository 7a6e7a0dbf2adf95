"""Tiny workers for the supervisor: ``MTFT_TEST_PLAN`` says what the preparation and each rank do.

The plan is JSON: ``{"preparation": "<action>", "0": "<action>", "1": "<action>"}``; what is left out finishes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from mtft import files
from mtft.errors import Diverged, InputError, Retry
from mtft.runs import RunPaths
from trainer.processes import end_with_parent
from trainer.reasons import guard, tell_alone

PLAN = "MTFT_TEST_PLAN"
PROMOTED = {"verdict": "promoted", "reasons": ["en-fr: chrf +1.00"], "published": None}


def main() -> None:
    """Do what the plan says for this process."""
    end_with_parent()
    rank = os.environ.get("RANK")
    action, _, argument = json.loads(os.environ[PLAN]).get(rank or "preparation", "finish").partition(" ")
    with guard(rank=int(rank or 0)):
        if action == "finish":
            if rank == "0":
                leave(RunPaths.of(Path(sys.argv[-1])))
        elif action == "finish-when-told":
            paths = RunPaths.of(Path(sys.argv[-1]))
            print("ready", flush=True)
            while not (paths.folder / "told").exists():
                time.sleep(0.05)
            leave(paths)
        elif action == "decide":
            # As a rank that is killed before it can promote what it decided to.
            leave(RunPaths.of(Path(sys.argv[-1])), gate=PROMOTED)
        elif action == "input":
            raise InputError("data.train: line 7 is no JSON")
        elif action == "diverge":
            raise Diverged("the loss became nan at step 3")
        elif action == "raise":
            raise ValueError("a mistake in the program")
        elif action == "say-nothing":
            pass
        elif action == "signal":
            os.kill(os.getpid(), int(argument))
        elif action == "fill-jobs":
            # The folder of the job's record takes no new file any more, as a full volume does; root may still write.
            jobs = RunPaths.of(Path(sys.argv[-1])).root / "outputs" / "opus_mt_en_fr" / "jobs"
            jobs.rename(jobs.with_name("elsewhere"))
            jobs.write_text("")
            os.kill(os.getpid(), int(argument))
        elif action == "lose-attempt":
            # Nothing can be left in the attempt's folder any more, as on a volume that is full or gone.
            logs = RunPaths.of(Path(sys.argv[-1])).logs
            logs.mkdir(exist_ok=True)
            logs.rename(logs.with_name("elsewhere"))
            logs.write_text("")
        elif action == "kill-torchrun":
            print(f"rank {os.getpid()}", flush=True)
            os.kill(os.getppid(), signal.SIGKILL)
            signal.pause()
        elif action == "eat-memory":
            eaten = []
            while True:
                eaten.append(b"x" * (1 << 24))
        elif action in ("wait", "wait-alone"):
            if action == "wait-alone":
                tell_alone()
            wait()
        elif action == "refuse-to-leave":
            signal.signal(signal.SIGTERM, lambda *_: print("told to stop", flush=True))
            print(f"ready {os.getpid()}", flush=True)
            while True:
                signal.pause()
        else:
            meet(action)


def leave(paths: RunPaths, **finished: object) -> None:
    """Leave a finished run."""
    paths.lora.mkdir()
    (paths.lora / "adapter_model.safetensors").write_bytes(b"weights")
    files.write_json(paths.finished, {"status": "finished", "deliverable": "lora", "scores": {}, **finished})


def wait() -> NoReturn:
    """Wait for SIGTERM, then leave as a worker does that has saved its work."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    print("ready", flush=True)
    signal.sigwait([signal.SIGTERM])
    print("saved", flush=True)
    raise Retry("stopped, checkpoint written")


def meet(action: str) -> None:
    """Join a gloo group; then die, raise, or wait for the others in a collective."""
    import torch
    import torch.distributed as dist

    # The broken connection is to be seen, not torchrun's signal to the rank that is left.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    dist.init_process_group("gloo")
    dist.barrier()
    if action == "meet-and-die":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "meet-and-raise":
        raise ValueError("a mistake in the program")
    dist.all_reduce(torch.ones(1))


if __name__ == "__main__":
    main()
