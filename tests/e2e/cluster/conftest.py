"""The cluster whose pods run."""

from __future__ import annotations

from tests.cluster.conftest import full_cluster as full_cluster
