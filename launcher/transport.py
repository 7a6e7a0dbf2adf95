"""Requests to the API server: retried where that is safe, and every failure in words."""

from __future__ import annotations

import base64
import json
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from launcher.answers import is_object
from launcher.cluster_errors import (
    Busy,
    ClusterError,
    Denied,
    Forbidden,
    NoConnection,
    NotYetAllowed,
    Request,
    Unauthorized,
    WebhookSilent,
    from_status,
)
from launcher.outage import Outage

if TYPE_CHECKING:
    from kubernetes.client import ApiClient
    from urllib3 import BaseHTTPResponse
    from urllib3.exceptions import HTTPError

ATTEMPTS = 5
_STARTING_SECONDS = 15.0  # after a lost connection: a server that starts may not know its roles yet
_NOT_READY = "not yet ready to handle request"  # of a rule that is the server's own
_ATTEMPTS_AT_A_WEBHOOK = 2  # that hangs: the server waits for it each time
_FIRST_PAUSE = 0.5  # seconds, doubled each time
_LONGEST_PAUSE = 30.0  # seconds; a server that asks for more is asked again after this
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
_CLOCKS_AGREE = timedelta(seconds=5)  # the header has whole seconds
_NO_CLOCK = timedelta(days=36_500)

Query = Sequence[tuple[str, Any]]
Body = Mapping[str, Any] | Sequence[Any] | None


@dataclass(frozen=True)
class _Call:
    """One request as it goes over the wire, and what it is for."""

    request: Request
    path: str
    method: str
    query: Query
    body: Body
    content_type: str
    answer_seconds: float


class Transport:
    """Sends requests over one client.

    Attributes:
        client: the official client.
        calls: requests sent so far, retries included.
        ahead: what to add to this machine's time for the server's; zero where they agree within seconds.
    """

    def __init__(self, renew: Callable[[], ApiClient], *, pause: Callable[[float], None] = time.sleep) -> None:
        self._renew, self._pause = renew, pause
        self.client = renew()
        self.calls = 0
        self.ahead = timedelta()
        self._reached = False
        self._lost_at = -math.inf  # moment of time.monotonic of the last lost connection
        self._outage = Outage()

    @property
    def server(self) -> str:
        """Return the address of the API server."""
        return str(self.client.configuration.host)

    def renew(self) -> None:
        """Log in anew with what the kubeconfig says now."""
        self.client = self._renew()

    def refusal(self, code: int, body: bytes | str | None, request: Request) -> ClusterError:
        """Return what the server's answer with a status of 400 or more means; a 403 of one that starts may pass."""
        text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body or ""
        try:
            status = json.loads(text)
        except ValueError:
            status = None
        found = from_status(code, status if isinstance(status, dict) else None, text, request)
        if isinstance(found, Unauthorized) and (ended := _token_end(self.client.configuration)):
            return Unauthorized(f"{found}\nthe token ended at {ended}")
        starting = time.monotonic() - self._lost_at < _STARTING_SECONDS
        by_rules = isinstance(found, Denied) and _NOT_READY not in str(found)
        return NotYetAllowed(str(found)) if isinstance(found, Forbidden) and starting and not by_rules else found

    def lost(self) -> None:
        """Note that the connection was lost."""
        self._lost_at = time.monotonic()

    @contextmanager
    def awaited(self, other: str) -> Iterator[None]:
        """Tell a person when the block, which asks the server, and through it another, is not answered."""
        with self._outage.awaited(f"{self.server}, or {other},"):
            yield
        self._outage.over(self.server)

    def json(
        self, request: Request, path: str, *, fits: Callable[[Any, Request], bool] = is_object, **options: Any
    ) -> dict[str, Any]:
        """Send a request as ``open`` does and return the object it is answered with.

        Args:
            request: what it is for.
            path: where it goes.
            fits: whether an answer is one to this request (``launcher/answers.py``).
            options: those of ``open``.

        Raises:
            ClusterError: as ``open``, or the answer is not what an API server gives.
        """
        response = self.open(request, path, **options)
        try:
            answer: Any = json.loads(response.data)
        except ValueError as error:
            raise ClusterError(f"{request}: {self.server} did not answer with JSON; is it an API server?") from error
        if not fits(answer, request):
            raise ClusterError(f"{request}: {self.server} answered something else; is it an API server?")
        return dict(answer)

    def open(
        self,
        request: Request,
        path: str,
        *,
        method: str = "GET",
        query: Query = (),
        body: Body = None,
        content_type: str = "application/json",
        answer_seconds: float = ANSWER_SECONDS,
        stream: bool = False,
        attempts: int = ATTEMPTS,
    ) -> BaseHTTPResponse:
        """Send a request and return the answer; of a stream only the head has been read.

        429 and 5xx are retried, as is a lost connection to a server that answered before; ``attempts`` bounds it. Of
        what a webhook did not answer there is one more attempt.

        Raises:
            ClusterError: whatever the server, or the way to it, has against it.
        """
        call = _Call(request, path, method, query, body, content_type, answer_seconds)
        whom = self.server if method == "GET" else f"{self.server}, or a webhook it asks,"
        attempt, renewed = 1, False
        while True:
            try:
                # A stream may be quiet for as long as nothing happens.
                with nullcontext() if stream else self._outage.awaited(whom):
                    response = self._send(call)
                    self.ahead = _ahead(response)  # before the body, which may take seconds
                    if not stream:
                        self._read(response)
                self._reached = True
                self._outage.over(self.server)
                return response
            except Unauthorized:
                # Once: the login may have ended during a long watch, and the kubeconfig can renew it.
                if not self._reached or renewed:
                    raise
                self.renew()
                renewed = True
            except _Later as later:
                if attempt >= min(attempts, later.most) or not later.retry:
                    if isinstance(later.error, WebhookSilent):
                        self._outage.forget()  # the server itself has answered
                    raise later.error from later.__cause__
                pause = min(_LONGEST_PAUSE, later.after or _backoff(attempt))
                self._outage.goes_on(whom, later.error, pause)
                self._pause(pause)
                attempt += 1

    def _send(self, call: _Call) -> BaseHTTPResponse:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        self.calls += 1
        try:
            response: BaseHTTPResponse = self.client.call_api(
                call.path,
                call.method,
                query_params=list(call.query),
                header_params={"Accept": "application/json", "Content-Type": call.content_type},
                body=call.body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _return_http_data_only=True,
                _request_timeout=(CONNECT_SECONDS, call.answer_seconds),
            )
            return response
        except ApiException as error:
            if not error.status:  # how the client hands on a TLS failure
                raise NoConnection(_unreachable(self.server, str(error.reason))) from error
            found = self.refusal(error.status, error.body, call.request)
            self._reached = self._reached or not isinstance(found, Unauthorized)
            if not isinstance(found, Busy):
                self._outage.over(self.server)
                raise found from error
            raise _Later(found, after=_seconds((error.headers or {}).get("Retry-After"))) from error
        except HTTPError as error:
            self.lost()
            lost = NoConnection(_unreachable(self.server, _reason(error)))
            raise _Later(lost, retry=self._reached and not _is_tls(error)) from error
        except ValueError as error:
            if "header value" not in str(error) and not isinstance(error, UnicodeError):
                raise
            # Its words hold the token.
            raise NoConnection(f"{call.request}: the credentials of the kubeconfig cannot be sent") from None

    def _read(self, response: BaseHTTPResponse) -> None:
        from urllib3.exceptions import HTTPError

        try:
            _ = response.data
        except HTTPError as error:
            raise _Later(NoConnection(_unreachable(self.server, f"the answer was cut off: {error}"))) from error


class _Later(Exception):
    """The request may succeed when it is sent again.

    Attributes:
        error: what to raise when it is not.
        retry: False where sending it again is of no use.
        after: seconds the server asked to wait; None: it did not say.
        most: attempts it is worth, the first one included.
    """

    def __init__(self, error: ClusterError, *, retry: bool = True, after: float | None = None) -> None:
        super().__init__(str(error))
        self.error, self.retry, self.after = error, retry, after
        self.most = _ATTEMPTS_AT_A_WEBHOOK if isinstance(error, WebhookSilent) and error.hangs else ATTEMPTS


def _backoff(attempt: int) -> float:
    # Jitter keeps many launchers that were refused together from coming back together.
    return _FIRST_PAUSE * 2.0 ** (attempt - 1) * random.uniform(0.75, 1.25)


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdecimal() else None


def _ahead(response: BaseHTTPResponse) -> timedelta:
    """Return by how much the clock of who answered is ahead of this machine's."""
    try:
        found = parsedate_to_datetime(response.headers["Date"]) - datetime.now(UTC)
    except (KeyError, TypeError, ValueError, OverflowError):  # it says no time
        return timedelta()
    return found if _CLOCKS_AGREE < abs(found) < _NO_CLOCK else timedelta()


def _token_end(configuration: Any) -> str | None:
    """Return when the token that was sent ended; None where it has not, or does not say."""
    token = str(configuration.api_key.get("authorization") or "").rpartition(" ")[2]
    try:
        _, body, _ = token.split(".")
        end = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["exp"]
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(end)) if end < time.time() else None
    except (ValueError, KeyError, TypeError):
        return None  # not every token is a JWT


def _is_tls(error: HTTPError) -> bool:
    from urllib3.exceptions import MaxRetryError, SSLError

    return isinstance(error.reason if isinstance(error, MaxRetryError) else error, SSLError)


def _reason(error: HTTPError) -> str:
    from urllib3.exceptions import MaxRetryError

    return str(error.reason if isinstance(error, MaxRetryError) and error.reason else error)


def _unreachable(server: str, reason: str) -> str:
    if "not valid for" in reason or "doesn't match" in reason:
        return (
            f"{server}: the secure connection failed: {reason}; the server's certificate has other names than this "
            "address: give the kubeconfig's cluster a server address that it has, or name one of them beside it: "
            "kubectl config set-cluster CLUSTER --tls-server-name=NAME"
        )
    if "CERTIFICATE" in reason or "certificate" in reason or "SSL" in reason:
        return (
            f"{server}: the secure connection failed: {reason}; the kubeconfig's certificate-authority does not fit "
            "this server (a new cluster under an old name?), or something between you and it answers in its place"
        )
    return (
        f"{server} cannot be reached: {reason}; is the address in the kubeconfig right, the cluster up, "
        "and a VPN or proxy needed?"
    )
