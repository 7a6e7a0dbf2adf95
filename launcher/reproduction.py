"""From the record of a run to the job that made it, or to a rerun of the same; pure but for the installed versions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from mtft.errors import InputError
from mtft.naming import DNS_LABEL, alone
from mtft.settings import merge, resolve

Manifest = dict[str, Any]
_HASH = r"[0-9a-f]{10}"


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a run's ``provenance.json`` says of the job that made it.

    Attributes:
        model: key of the model.
        job: name of the job.
        document: the configuration as the user wrote it.
        pod: what the first pod knew of itself: namespace, batch and the hash of its labels; None without a cluster.
        record: the whole of it.
    """

    model: str
    job: str
    document: dict[str, Any]
    pod: dict[str, Any] | None
    record: Mapping[str, Any]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Recorded:
        """Read ``provenance.json``.

        Raises:
            InputError: it is of an earlier mtft, which did not keep the document, or damaged.
        """
        asked = record.get("request")
        if asked is None:
            raise InputError(
                "the run was made by an mtft that did not keep its document; its config.yaml says the same"
            )
        for part in ("data", "base", "versions"):
            if not isinstance(record.get(part) or {}, Mapping):
                raise InputError(f"provenance.json: {part} cannot be understood: it is no mapping")
        try:
            pod = asked["pod"] and dict(asked["pod"])
            if pod is not None:
                _matches(pod["namespace"], DNS_LABEL)
                _matches(pod["run"], _HASH)
            return cls(
                model=str(asked["model"]),
                job=str(record["job"]),
                document=dict(asked["document"]),
                pod=pod,
                record=record,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"provenance.json: request cannot be understood: {error!r}") from None

    def objects(self, namespace: str | None, nonce: str | None = None) -> list[Manifest]:
        """Return ConfigMap and PyTorchJob as they were sent.

        Args:
            namespace: where they go; None: where they were.
            nonce: makes them those of another job of the same configuration that accepts only the same data and base.

        Raises:
            ConfigError: the document is not one of this mtft.
            InputError: the run was made without a cluster.
        """
        from launcher.pytorchjob import render

        if self.pod is None:
            raise InputError(f"run of job {self.job} was made without a cluster, so there are no objects of it")
        place, batch = namespace or self.pod["namespace"], self.pod["batch"]
        if nonce is not None:
            return render(self.pinned(), self.model, batch=batch, nonce=nonce, namespace=place)
        return render(self.document, self.model, name=self.job, batch=batch, run=self.pod["run"], namespace=place)

    def pinned(self) -> dict[str, Any]:
        """Return the document of this model alone, with the recorded SHA-256 of the data and commit of the base."""
        found = {
            "data.sha256": (self.record.get("data") or {}).get("train"),
            "model.revision": (self.record.get("base") or {}).get("revision"),
        }
        return merge(alone(self.document, self.model), flags={path: each for path, each in found.items() if each})

    def remarks(self) -> Iterator[str]:
        """Yield what may make a rerun come out otherwise."""
        made_by = (self.record.get("versions") or {}).get("mtft")
        if made_by != version("mtft"):
            yield f"the run was made by mtft {made_by}, this is {version('mtft')}: labels and pods may differ"
        if self.record.get("earlier_code"):
            yield "the code of mtft changed while the run was made: no rerun comes out exactly the same"
        config = resolve(self.document, model=self.model).config
        image = config.cluster.image or ""
        if self.pod is not None and "@" not in image:
            yield f"cluster.image {image} is a tag, which may mean another image now; @sha256:... never does"
        unpinned = [name for name in config.data_paths() if name != "data.train"]
        if config.model.path is not None:
            unpinned.append(f"model.path {config.model.path}")
        if unpinned:
            yield f"{', '.join(unpinned)}: nothing holds a rerun to the same; provenance.json has the SHA-256"


def _matches(text: object, form: str) -> None:
    if not isinstance(text, str) or not re.fullmatch(form, text):
        raise ValueError(f"{text!r} does not match {form}")
