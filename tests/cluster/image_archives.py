"""Image archives in the OCI layout that leave out what an earlier image brought.

``ctr images import`` asks for the manifest, the configuration and those layers that containerd's store lacks. So an
image whose first layers are another image's is carried by an archive of the last ones: seconds instead of minutes.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_BLOBS = "blobs/sha256"


class Layout:
    """A folder in the OCI image layout that holds one image."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (self._descriptor,) = json.loads((folder / "index.json").read_text())["manifests"]
        self._manifest = json.loads(self._blob(self._descriptor["digest"]).read_text())

    def _blob(self, digest: str) -> Path:
        return self.folder / _BLOBS / digest.removeprefix("sha256:")

    def take_layers(self, base: Path) -> set[str]:
        """Describe the first layers as the archive of their image does, compressed; return their digests.

        Raises:
            ValueError: the image is not built upon that of the archive.
        """
        manifest, diffs = _manifest_and_diffs(base)
        own = json.loads(self._blob(self._manifest["config"]["digest"]).read_text())["rootfs"]["diff_ids"]
        if own[: len(diffs)] != diffs:
            raise ValueError(f"the image in {self.folder} is not built upon that of {base}")
        self._manifest["layers"][: len(diffs)] = manifest["layers"]
        content = json.dumps(self._manifest).encode()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self._blob(digest).write_bytes(content)
        self._descriptor |= {"digest": digest, "size": len(content)}
        return {layer["digest"] for layer in manifest["layers"]}

    def write(self, archive: Path, name: str, leave_out: set[str]) -> None:
        """Write the image as an archive that gives it this name."""
        named = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
        index = {"schemaVersion": 2, "manifests": [self._descriptor | {"annotations": named}]}
        digests = [self._descriptor["digest"], self._manifest["config"]["digest"]]
        digests += [layer["digest"] for layer in self._manifest["layers"] if layer["digest"] not in leave_out]
        with tarfile.open(archive, "w") as parts:
            _add(parts, "oci-layout", {"imageLayoutVersion": "1.0.0"})
            _add(parts, "index.json", index)
            for digest in dict.fromkeys(digests):
                blob = self._blob(digest)
                parts.add(blob, f"{_BLOBS}/{blob.name}")


def write_archive(
    push: Callable[[Path, bool], None], folder: Path, archive: Path, name: str, base: Path | None
) -> None:
    """Write an image as an archive, without the layers that the archive of its base image has.

    Args:
        push: writes the image to a folder in the OCI layout; True compresses its layers.
        folder: an empty folder, on the disk of the archive.
        archive: what is written.
        name: the name that the archive gives the image.
        base: archive of the image it is built upon; None to carry every layer.
    """
    if base is None:
        push(folder, True)
        Layout(folder).write(archive, name, set())
        return
    # A layer whose file is there already is not written again, whatever the file holds: 6 GB not read and compressed.
    _, diffs = _manifest_and_diffs(base)
    (folder / _BLOBS).mkdir(parents=True)
    for diff in diffs:
        (folder / _BLOBS / diff.removeprefix("sha256:")).touch()
    push(folder, False)
    layout = Layout(folder)
    layout.write(archive, name, leave_out=layout.take_layers(base))


def _manifest_and_diffs(archive: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the manifest of the one image of an archive and the digests of its layers before compression."""
    with tarfile.open(archive) as parts:

        def read(name: str) -> dict[str, Any]:
            member = parts.extractfile(name)
            assert member, "it is a file"
            value: dict[str, Any] = json.load(member)
            return value

        def blob(descriptor: Mapping[str, str]) -> dict[str, Any]:
            return read(f"{_BLOBS}/{descriptor['digest'].removeprefix('sha256:')}")

        manifest = blob(read("index.json")["manifests"][0])
        return manifest, blob(manifest["config"])["rootfs"]["diff_ids"]


def _add(parts: tarfile.TarFile, name: str, value: Mapping[str, Any]) -> None:
    content = json.dumps(value).encode()
    member = tarfile.TarInfo(name)
    member.size = len(content)
    parts.addfile(member, io.BytesIO(content))
