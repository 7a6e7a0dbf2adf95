"""torchrun, with the exit status of every rank written down.

``python -m trainer.ranks FILE <arguments of torchrun>`` is torchrun; when ranks fail it writes FILE as
``{"statuses": {"<rank>": <exit status, below 0 minus the signal>}, "error": <text or null>}``.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from functools import partial
from pathlib import Path

from mtft import exit_codes, files
from trainer.processes import PARENT_VARIABLE, end_with_parent, heed_interrupts

# torchrun waits 300 s for the other nodes' ranks once its own are done. Rank 0 is the last, so whoever is missing then
# was lost; the other nodes' supervisors wait for node 0 themselves.
_OTHERS_SECONDS = 15.0
_HEEDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)  # by torchrun, which raises wherever it is


def main(arguments: list[str]) -> int:
    """Run torchrun; return 0, 1 for a failed rank, 143 when it was told to stop or other nodes are gone."""
    heed_interrupts()
    end_with_parent()
    try:
        return _run(arguments)
    except KeyboardInterrupt:  # torchrun heeds signals from its first rank on
        return exit_codes.RETRY


def _run(arguments: list[str]) -> int:
    os.environ[PARENT_VARIABLE] = str(os.getpid())  # of the ranks
    # The supervisor says what happened; torchrun's own warnings would say it twice.
    logging.disable(logging.ERROR)
    from torch.distributed import DistNetworkError, DistStoreError
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.launcher import api
    from torch.distributed.run import parse_args, run

    # Nothing on torchrun's command line says it.
    agent = partial(LocalElasticAgent, exit_barrier_timeout=_OTHERS_SECONDS)
    api.LocalElasticAgent = agent  # type: ignore[attr-defined, assignment]
    statuses: dict[str, int] = {}
    error: str | None = None
    code = exit_codes.FAILED
    try:
        try:
            run(parse_args(arguments[1:]))  # type: ignore[no-untyped-call]
        finally:  # a signal that comes later would take the place of how the ranks ended
            for number in _HEEDED:
                signal.signal(number, signal.SIG_IGN)
        return exit_codes.DONE
    except ChildFailedError as failed:
        statuses = {str(rank): failure.exitcode for rank, failure in failed.failures.items()}
    except SignalException as stopped:
        error, code = str(stopped), exit_codes.RETRY
    except (DistNetworkError, DistStoreError, RendezvousError) as lost:
        error, code = f"{type(lost).__name__}: {lost}", exit_codes.RETRY
    try:
        files.write_json(Path(arguments[0]), {"statuses": statuses, "error": error})
    except OSError:
        pass  # a full volume: the ranks' own reason files or this exit status have to do
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
