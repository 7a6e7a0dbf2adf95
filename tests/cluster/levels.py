"""The two levels of test cluster, started and ended as a whole."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.cluster import network
from tests.cluster.cluster import Cluster
from tests.cluster.containerd import import_image, runs_pods, start_containerd
from tests.cluster.control_plane import ControlPlane
from tests.cluster.fake_nodes import start_fake_nodes
from tests.cluster.leftovers import refuse_other_nodes, remove_node
from tests.cluster.node import start_kubelet
from tests.cluster.parts import CACHE, CONTROL_PLANE, NODE, MissingPart, ensure_packages
from tests.cluster.processes import Processes, running, write_pid
from tests.cluster.toolchain import built_tools
from tests.cluster.training_operator import install_operator, start_operator

CHECKOUT = Path(__file__).resolve().parents[2]
# Named in jobs that never run.
_INIT_IMAGE = "localhost/mtft-init"
FAILED_LOGS = CACHE / "failed-start"
# Where the one full cluster of this machine lives and who started it; a later start finds what an earlier one left.
_FULL = CACHE / "full"


def start_bare(state: Path) -> Cluster:
    """Start an API server alone: nothing is done about what it stores, and it knows no PyTorchJobs.

    Raises:
        MissingPart: this machine cannot.
        ClusterFailed: a part did not start; nothing is left running.
    """
    with _control_plane(state) as plane:
        plane.start_api_server()
        return replace(plane.cluster, shutdown=lambda: end(state))


def start_control_plane(state: Path) -> Cluster:
    """Start the level whose pods are created and bound, but do not run.

    Raises:
        MissingPart: this machine cannot.
        ClusterFailed: a part did not start; nothing is left running.
    """
    with _control_plane(state) as plane:
        _start_controllers(plane, _INIT_IMAGE)
        start_fake_nodes(plane)
        start_operator(plane, template=False)
        return replace(_reached(plane), shutdown=lambda: end(state))


def start_full(state: Path) -> Cluster:
    """Start the level whose pods run on this machine; one at a time.

    Raises:
        MissingPart: this machine cannot, or one runs already.
        ClusterFailed: a part did not start; nothing is left running.
    """
    # The control plane alone needs no images and nothing that makes them.
    from tests.cluster.images import base_image, pause_image

    if os.geteuid() != 0:
        raise MissingPart("pods run in containers of this machine, which only root can start")
    ensure_packages({**CONTROL_PLANE, **NODE})
    plane = ControlPlane(state, built_tools(), address=network.GATEWAY, port=network.API_PORT)
    pause, base = pause_image(), base_image()
    _take_this_machine(state)
    with _ended_on_failure(state):
        network.start_bridge()
        network.route_api_service()
        _start_controllers(plane, base.name)
        start_containerd(plane, pause.name)
        cluster = replace(_reached(plane), shutdown=lambda: end(state))
        for image in (pause, base):
            cluster.import_image(image.archive, image.name)
        network.start_name_server(plane)
        start_operator(plane, template=True)
        start_kubelet(plane)
        return cluster


LEVELS: dict[str, Callable[[Path], Cluster]] = {"control-plane": start_control_plane, "full": start_full}


def end(state: Path) -> None:
    """End whatever runs for a state folder and remove it; what is already gone is no fault."""
    with _alone():
        _end(state)


def _end(state: Path) -> None:
    processes = Processes(state)
    full = _full_state() == state
    if full:
        processes.stop("kubelet")
        remove_node(state)
    processes.stop()
    shutil.rmtree(state, ignore_errors=True)
    if full:
        (_FULL / "state").unlink()


@contextmanager
def for_tests(start: Callable[[Path], Cluster]) -> Iterator[Cluster]:
    """Give the cluster of ``MTFT_TEST_KUBECONFIG``, or a started one that ends with this process at the latest."""
    if given := os.environ.get("MTFT_TEST_KUBECONFIG"):
        cluster = _given(Path(given))
        try:
            yield cluster
        finally:
            cluster.stop()
        return
    state = Path(tempfile.mkdtemp(prefix="mtft-cluster-"))
    with _ended_with_us(state):
        cluster = start(state)
        try:
            yield cluster
        finally:
            cluster.stop()


def _start_controllers(plane: ControlPlane, init_image: str) -> None:
    plane.start_api_server()
    install_operator(plane, init_image)
    plane.start_controllers()


def _given(kubeconfig: Path) -> Cluster:
    """Return the cluster that ``MTFT_TEST_KUBECONFIG`` names: one of ``python -m tests.cluster up``, or somebody's."""
    if not kubeconfig.is_file():
        raise MissingPart(f"MTFT_TEST_KUBECONFIG names {kubeconfig}, which is not a file")
    state = kubeconfig.resolve().parent.parent
    if not (state / "pids").is_dir():
        client = shutil.which("kubectl")
        return Cluster(kubeconfig, Path(client) if client else built_tools()["kubectl"])
    return _reached(ControlPlane(state, built_tools()))


def _reached(plane: ControlPlane) -> Cluster:
    """Return a cluster of ours as tests see it; nothing ends it yet."""
    importer = partial(import_image, plane.state) if runs_pods(plane.state) else None
    return replace(
        plane.cluster,
        importer=importer,
        templates=partial(start_operator, plane),
        api_server=partial(plane.processes.restart, "kube-apiserver"),
    )


@contextmanager
def _control_plane(state: Path) -> Iterator[ControlPlane]:
    """Give a control plane that still has to be started; what was started ends when that fails."""
    ensure_packages(CONTROL_PLANE)
    plane = ControlPlane(state, built_tools())
    with _ended_on_failure(state):
        yield plane


@contextmanager
def _ended_on_failure(state: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        _keep_logs(state)
        end(state)
        raise


def _keep_logs(state: Path) -> None:
    """Keep the logs of a start that failed; those of the one before go."""
    shutil.rmtree(FAILED_LOGS, ignore_errors=True)
    if (state / "logs").is_dir():
        shutil.copytree(state / "logs", FAILED_LOGS)


@contextmanager
def _ended_with_us(state: Path) -> Iterator[None]:
    """Run a reaper beside: it ends the cluster when this process is gone, however it went."""
    # The reaper reads from a pipe that only this process holds open.
    reaper = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster", "reap", str(state)],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        reaper.communicate()


def _take_this_machine(state: Path) -> None:
    """Claim the machine's one place for a node; clear away what a killed cluster left in it."""
    with _alone():
        other = _full_state()
        if other and (running(_FULL / "starter") or Processes(other).running("kube-apiserver")):
            raise MissingPart(
                f"a full test cluster runs already ({other}), and there can be one; wait for its tests, end it (`make "
                f"cluster-down` when it is your own), or use it: MTFT_TEST_KUBECONFIG={other / 'kubeconfigs' / 'admin'}"
            )
        if other:
            _end(other)
        refuse_other_nodes()
        write_pid(_FULL / "starter", os.getpid())
        (_FULL / "state").write_text(str(state))


@contextmanager
def _alone() -> Iterator[None]:
    """Keep two processes from starting or ending at once what a machine has but one of."""
    _FULL.mkdir(parents=True, exist_ok=True)
    with (_FULL / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _full_state() -> Path | None:
    """Return the folder of the full cluster that was started last and not ended."""
    file = _FULL / "state"
    return Path(file.read_text()) if file.is_file() else None
