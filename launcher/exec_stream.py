"""A program run in a pod: bytes in, bytes out, over the API server's websocket."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

from launcher.cluster_errors import ClusterError, Cut, NoConnection, NotFound, Request, Unauthorized
from launcher.resources import PODS
from launcher.transport import ANSWER_SECONDS

if TYPE_CHECKING:
    from launcher.cluster import Cluster

STDIN, STDOUT, STDERR, STATUS = range(4)
CHUNK = 1 << 18  # bytes of one websocket message
_COMPLAINT_BYTES = 2000  # of standard error, for the message when the program fails
_SILENCE = 120.0  # seconds after which a connection that says nothing counts as cut


class ExecStream:
    """One program in one container; stdin cannot be closed before the end, so the program must know how much comes.

    Raises:
        NotFound: the pod is gone.
        ClusterError: the API server refuses, or cannot be reached.
    """

    def __init__(self, cluster: Cluster, pod: str, namespace: str, container: str, command: Sequence[str]) -> None:
        wanted = [("container", container), *(("command", word) for word in command)]
        wanted += [(channel, "true") for channel in ("stdin", "stdout", "stderr")]
        path = f"{PODS.path(namespace, pod, 'exec')}?{urlencode(wanted)}"
        # A websocket begins with GET, so RBAC asks for `get`; newer servers ask for `create` as well.
        request = Request(verb="get", resource=PODS, namespace=namespace, name=pod, part="exec", server=cluster.server)
        try:
            self._socket = _answered(cluster, path, request)
        except Unauthorized:
            # As in Transport.open: the login may have ended during a long transfer.
            cluster.transport.renew()
            self._socket = _answered(cluster, path, request)
        self._socket.settimeout(_SILENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close(timeout=1)

    def send(self, data: bytes) -> None:
        """Write to the program's stdin.

        Raises:
            Cut: the connection is gone.
        """
        from websocket import WebSocketException

        try:
            self._socket.send_binary(bytes([STDIN]) + data)
        except (OSError, WebSocketException) as error:
            raise Cut(f"the connection to the pod was cut: {error}") from error

    def receive(self) -> Iterator[tuple[int, bytes]]:
        """Yield (channel, data) until the program has ended.

        Raises:
            Cut: the connection is gone before that.
            ClusterError: the program could not be started, or failed.
        """
        from websocket import ABNF, WebSocketException

        ended, complaint = False, b""
        try:
            while True:
                code, frame = self._socket.recv_data_frame(control_frame=True)
                if code == ABNF.OPCODE_CLOSE:
                    break
                if code not in (ABNF.OPCODE_BINARY, ABNF.OPCODE_TEXT) or len(frame.data) < 2:
                    continue
                channel, data = frame.data[0], bytes(frame.data[1:])
                if channel == STATUS:
                    ended = True
                    _check_status(data, complaint)
                else:
                    complaint = (complaint + data)[-_COMPLAINT_BYTES:] if channel == STDERR else complaint
                    yield channel, data
        except (OSError, WebSocketException) as error:
            if not ended:
                raise Cut(f"the connection to the pod was cut: {error}") from error
        if not ended:
            raise Cut("the connection to the pod was cut")


def _answered(cluster: Cluster, path: str, request: Request) -> Any:
    """Open the connection in a thread of its own: the official client waits without end for an answer.

    Raises:
        NoConnection: none came.
    """
    came: Queue[Any] = Queue()
    given_up = threading.Event()

    def opening() -> None:
        try:
            found = _open(cluster, path, request)
        except BaseException as error:
            came.put(error)
            return
        came.put(found)
        if given_up.is_set():
            found.close()

    threading.Thread(target=opening, daemon=True).start()
    try:
        with cluster.transport.awaited(f"the node of pod {request.name}"):
            found = came.get(timeout=ANSWER_SECONDS)
            if isinstance(found, BaseException):
                raise found
            return found
    except Empty:
        given_up.set()
        cluster.transport.lost()
        raise NoConnection(f"{request}: {cluster.server} did not answer within {ANSWER_SECONDS:.0f} s") from None


def _open(cluster: Cluster, path: str, request: Request) -> Any:
    from kubernetes.stream.ws_client import create_websocket
    from websocket import WebSocketBadStatusException, WebSocketException

    client = cluster.client
    if (client.configuration.proxy or "").startswith("https://"):
        raise NoConnection(
            f"{request}: what runs in a pod is reached through a proxy at http:// alone, and the login of this one, at "
            "https://, would go out unencrypted; name another in HTTPS_PROXY or proxy-url, or the server in NO_PROXY"
        )
    headers: dict[str, str] = {}
    client.update_params_for_auth(headers, [], ["BearerToken"])
    try:
        return create_websocket(client.configuration, f"ws{cluster.server.removeprefix('http')}{path}", headers)
    except WebSocketBadStatusException as error:
        found = cluster.transport.refusal(error.status_code, error.resp_body, request)
        # The words for a pod that is listed still: the kubelet's where it was evicted, the server's where it ended.
        if isinstance(found, NotFound) or any(each in str(found) for each in ("container not found", "completed pod")):
            raise NotFound(
                f"pod {request.name} in namespace {request.namespace} is gone: it was deleted or evicted, or it ended; "
                "give the same command again"
            ) from error
        raise found from error
    except (OSError, WebSocketException) as error:
        cluster.transport.lost()
        raise NoConnection(f"{request}: {cluster.server} cannot be reached: {error}") from error


def _check_status(data: bytes, complaint: bytes) -> None:
    status = json.loads(data)
    if status.get("status") != "Success":
        # The message repeats the whole command.
        causes = (status.get("details") or {}).get("causes") or []
        codes = [each["message"] for each in causes if each.get("reason") == "ExitCode"]
        why = f"exit code {codes[0]}" if codes else str(status.get("message", status))[-200:]
        last = complaint.decode("utf-8", "replace").strip().rpartition("\n")[2]
        guess = f"it said: {last}" if last else "was the pod deleted, or out of memory?"
        raise ClusterError(f"the program in the pod failed: {why}; {guess}")
