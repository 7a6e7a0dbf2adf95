"""What goes into a run: written down when a job claims it, compared at every later start."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mtft import files, provenance
from mtft.config import Config
from mtft.errors import InputError, Retry
from mtft.models import ModelCard
from mtft.runs import Job, RunPaths, new_run_id, now


@dataclass(frozen=True)
class Ingredients:
    """Data, base, configuration and code of one job.

    Attributes:
        config: the effective configuration.
        card: of its model.
        request: what made the job (``mtft.provenance.request``).
        reading: around what may read for minutes.
    """

    config: Config
    card: ModelCard
    request: Mapping[str, Any]
    reading: Callable[[], AbstractContextManager[None]] = nullcontext

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """The identity of what the run reads: data, guard sets and base; read once.

        Raises:
            InputError: something is not there.
            Retry: it cannot be read at the moment.
        """
        config = self.config
        guards = sorted(config.gate.guard_sets.items())
        with self.reading():
            return {
                "data": {
                    "train": provenance.data_identity(config.data.train, config.data.sha256),
                    "dev": provenance.data_identity(config.data.dev),
                    "test": provenance.data_identity(config.data.test),
                },
                "guard_sets": {
                    name: provenance.data_identity(paths, setting=f"gate.guard_sets.{name}") for name, paths in guards
                },
                "base": provenance.base_identity(self.card.base, config.model.path, config.model.revision),
            }

    def changed(self, paths: RunPaths) -> list[str]:
        """Return what of data and base is no longer what the run began with, as far as that can be told."""
        try:
            recorded, current = files.read_json(paths.provenance), self.inputs
            changed = [f"data.{name}" for name, digest in current["data"].items() if digest != recorded["data"][name]]
            guards = recorded.get("guard_sets", {})
            changed += [
                f"gate.guard_sets.{name}"
                for name, digest in current["guard_sets"].items()
                if digest != guards.get(name)
            ]
            # A base from the hub is known only when it is fetched: trainer.hub compares it.
            other_base = self.config.model.path is not None and current["base"] != recorded["base"]
            return changed + (["the base checkpoint"] if other_base else [])
        except (OSError, ValueError, KeyError, InputError, Retry):
            return []  # no record, or an input is gone: reading it will say so better

    def code_changed(self, paths: RunPaths) -> bool:
        """Whether the code here is not what last worked on the run, as far as that can be told."""
        try:
            recorded = files.read_json(paths.provenance)["code_sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return bool(recorded != provenance.code_hash())

    def all_changed(self, paths: RunPaths) -> list[str]:
        """Return what of data, base and code is no longer what the run was made of, as far as that can be told."""
        return [*self.changed(paths), *(["the code of mtft"] if self.code_changed(paths) else [])]

    def take_inputs(self, job: Job, paths: RunPaths) -> None:
        """Write down inputs that changed before the run learned anything from them.

        Raises:
            InputError: it learned from others already.
        """
        changed = self.changed(paths)
        if changed and not paths.prepared.exists():
            files.write_json(paths.provenance, provenance.read(paths.provenance) | self.inputs)
        elif changed:
            raise InputError(
                f"{' and '.join(changed)} changed since run {job.run_id} of job {job.name} began; "
                "start another run with --rerun, or restore what was there"
            )

    def take_code(self, paths: RunPaths) -> bool:
        """Write down that the code here goes on with the run; return whether other code left something in it."""
        if not self.code_changed(paths):
            return False
        record = provenance.read(paths.provenance)
        begun = paths.prepared.exists()
        earlier = [*record.get("earlier_code", []), *([record["code_sha256"]] if begun else [])]
        files.write_json(
            paths.provenance,
            {**record, "code_sha256": provenance.code_hash(), **({"earlier_code": earlier} if earlier else {})},
        )
        return begun

    def of_new_job(self, name: str, config_hash: str) -> tuple[Job, dict[str, Any]]:
        """Return the record of a job that claims a run, and the provenance of that run."""
        parts = {**self.inputs, "config_hash": config_hash, "code_sha256": provenance.code_hash()}
        job = Job(
            name=name,
            model=self.card.key,
            # The job is part of the hash: two jobs of one second never share a folder.
            run_id=new_run_id(provenance.text_hash(name, json.dumps(parts))),
            config_hash=config_hash,
            first_started=now(),
        )
        record = {"run_id": job.run_id, "job": name, "created": job.first_started, "seed": self.config.train.seed}
        where = {"versions": provenance.versions(), "machine": provenance.machine()}
        return job, record | parts | where | {"request": self.request}
