"""What the process that launchers and their trainers are forked from has loaded (:mod:`tests.forks`)."""

from __future__ import annotations

import gc
import importlib

from chaos import warm

warm.load()
for _name in ("launcher.backends.local", "launcher.verbs.run"):
    importlib.import_module(_name)
gc.freeze()  # else each fork's first collection copies all of it
