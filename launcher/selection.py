"""Which jobs a person means: by job name, by batch, or by model where one job only has it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from launcher import labels
from mtft.errors import InputError


def choose(names: Sequence[str], jobs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the jobs that ``names`` mean, each once, in the order of the names; without names, all.

    Raises:
        InputError: a name is unknown, or is that of a model with several jobs.
    """
    if not names:
        return list(jobs)
    found = {id(job): job for name in names for job in _meant(name, jobs)}
    return list(found.values())


def choose_one(name: str, jobs: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the one job that ``name`` means.

    Raises:
        InputError: it is unknown or means several.
    """
    found = choose([name], jobs)
    if len(found) > 1:
        raise InputError(f"{name} is a batch of {len(found)} jobs; name one: {_names(found)}")
    return found[0]


def refuse_shared_name(name: str, jobs: Sequence[Mapping[str, Any]], *, batch: bool = False) -> None:
    """Refuse one name for a job and for a batch: the verbs that take a NAME would mean the job alone.

    Args:
        name: of a job that is to be sent, or with ``batch`` of a batch.
        jobs: those that are there.
        batch: whether it is that of a batch.

    Raises:
        InputError: the other has it.
    """
    if batch and any(job["metadata"]["name"] == name for job in jobs):
        raise InputError(f"{name} is the name of a job that is there; give the batch another --name, or delete the job")
    if not batch and (found := [job for job in jobs if _label(job, labels.BATCH) == name]):
        raise InputError(
            f"{name} is the name of a batch that is there ({_names(found)}); choose another --job name, or delete it"
        )


def _meant(name: str, jobs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    if found := [job for job in jobs if job["metadata"]["name"] == name]:
        return found
    if found := [job for job in jobs if _label(job, labels.BATCH) == name]:
        return found
    found = [job for job in jobs if _label(job, labels.MODEL) == name]
    if len(found) > 1:
        raise InputError(f"{name} has {len(found)} jobs; name one: {_names(found)}")
    return found or _unknown(name, jobs)


def _unknown(name: str, jobs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    known = {job["metadata"]["name"] for job in jobs}
    known |= {label for job in jobs for key in (labels.BATCH, labels.MODEL) if (label := _label(job, key))}
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    hint = (
        f"did you mean {near[0]}?"
        if near
        else "look in another namespace with -n, or in all (if you may) with `mtft-launch list -A`"
    )
    where = f" ({len(jobs)} jobs were looked at)" if jobs else " (there is no job at all in this namespace)"
    raise InputError(f"there is no job, batch or model named {name}{where}; {hint}")


def _names(jobs: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(sorted(job["metadata"]["name"] for job in jobs))


def _label(job: Mapping[str, Any], key: str) -> str | None:
    value: str | None = (job["metadata"].get("labels") or {}).get(key)
    return value
