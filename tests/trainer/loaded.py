"""What the process that trainers are forked from has loaded (:mod:`tests.forks`)."""

from __future__ import annotations

import gc
import importlib

for _name in ("torch.distributed.run", "trainer.ranks", "trainer.supervisor", "tests.trainer.workers"):
    importlib.import_module(_name)
gc.freeze()  # else each fork's first collection copies all of it
