"""Both Helms, for every test that asks for ``helm``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chart.helm import VERSIONS, Helm
from tests.cluster.toolchain import ROOT
from tests.conftest import require


def find_helm(version: str, home: Path, kubeconfig: Path | None = None) -> Helm:
    """Return one Helm; skip the test where it is not built."""
    program = ROOT / "current" / "bin" / version
    if not program.is_file():
        require("chart", f"there is no {version}; `make tools` builds it")
    return Helm(program, home, kubeconfig)


@pytest.fixture(scope="session", params=VERSIONS)
def helm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return find_helm(request.param, tmp_path_factory.mktemp(request.param))
