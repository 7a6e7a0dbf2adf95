"""Jobs and pods of a cluster in memory, for who watches and follows them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from launcher.cluster import Cluster
    from tests.unit.tiny_api import TinyApi


@pytest.fixture
def api() -> TinyApi:
    from tests.unit.tiny_api import TinyApi  # with the client's library, which few tests need

    return TinyApi()


@pytest.fixture
def cluster(api: TinyApi) -> Iterator[Cluster]:
    from tests.unit.tiny_api import serve

    with serve(api) as cluster:
        yield cluster
