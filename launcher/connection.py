"""From a kubeconfig, or the service account of a pod, to a client of the API server."""

from __future__ import annotations

import difflib
import logging
import os
import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.cluster_errors import NoConnection
from launcher.kubeconfig import faults
from launcher.proxies import proxy_of

if TYPE_CHECKING:
    from kubernetes.client import ApiClient, Configuration

DEFAULT_KUBECONFIG = "~/.kube/config"
_IMPERSONATION = ("as", "as-uid", "as-groups", "as-user-extra")
_ERRNO = re.compile(r"\[Errno \d+\] ")
# What the loader shows of the file around a fault; it may hold secrets.
_VALUES = re.compile(r"\{.*\}", re.DOTALL)
_NO_PROXY = "http://none.invalid:80"
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True)
class Connection:
    """A client of one API server.

    Attributes:
        client: the official client; it renews credentials that the kubeconfig can renew.
        namespace: the one the context names, else ``default``.
        context: name of the kubeconfig's context; ``in-cluster`` in a pod.
    """

    client: ApiClient
    namespace: str
    context: str


def open_connection(context: str | None = None) -> Connection:
    """Read the kubeconfig, or in a pod without one its service account; nothing is sent yet.

    Raises:
        NoConnection: there is neither, the context is unknown, or its credentials cannot be read.
    """
    if _files():
        return _from_kubeconfig(context)
    if os.environ.get("KUBERNETES_SERVICE_HOST") and _POD_NAMESPACE.exists():
        if context is not None:
            raise NoConnection(f"--context {context}: this pod has no kubeconfig, only its service account")
        return _from_service_account()
    given = os.environ.get("KUBECONFIG")
    looked = f"KUBECONFIG names {given}, which is no file" if given else f"{DEFAULT_KUBECONFIG} is not there"
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        raise NoConnection(
            f"this pod has neither a kubeconfig ({looked}) nor the token of its service account; "
            "give its specification automountServiceAccountToken: true"
        )
    raise NoConnection(
        f"there is no kubeconfig: {looked}; get one from your cluster's administrator and "
        "`export KUBECONFIG=FILE`, or train on this machine with --backend local"
    )


def _kubeconfig() -> str:
    return os.environ.get("KUBECONFIG") or DEFAULT_KUBECONFIG


def _files() -> list[Path]:
    """Return the files that KUBECONFIG names and that are there."""
    paths = [Path(path).expanduser() for path in _kubeconfig().split(os.pathsep) if path]
    return [path for path in dict.fromkeys(paths) if path.is_file()]


def _from_kubeconfig(context: str | None) -> Connection:
    from kubernetes import config

    value, files = _read()
    name, entry, proxy = _choose(value, context)
    configuration = _configuration()
    try:
        with _complaints() as complaints:
            config.load_kube_config(files, context=name, client_configuration=configuration)
        client = _client(configuration, proxy)
    except Exception as error:  # the loader lets KeyError, ValueError, binascii.Error and more through
        raise NoConnection(f"{_kubeconfig()}: context {name} cannot be used: {_words(error)}") from error
    if not configuration.host.startswith(("https://", "http://")):
        raise NoConnection(
            f"{_kubeconfig()}: context {name}: server {configuration.host!r} is no address of an API server; "
            "one begins with https://, such as https://10.0.0.1:6443"
        )
    if complaints and not configuration.api_key and not configuration.cert_file:
        said = _VALUES.sub("...", _ERRNO.sub("", "; ".join(complaints)))
        raise NoConnection(f"{_kubeconfig()}: the login program of context {name} failed: {said}")
    return Connection(client, entry.get("namespace") or "default", name)


def _from_service_account() -> Connection:
    from kubernetes import config

    configuration = _configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException as error:
        raise NoConnection(f"the service account of this pod cannot be used: {error}") from error
    return Connection(_client(configuration), _POD_NAMESPACE.read_text().strip() or "default", "in-cluster")


def _configuration() -> Configuration:
    import urllib3
    from kubernetes.client import Configuration

    configuration = Configuration()
    # Retries are ours (launcher/transport.py): urllib3's would hide how often and how long.
    configuration.retries = urllib3.Retry(total=0, respect_retry_after_header=False)
    return configuration


def _client(configuration: Configuration, proxy: str | None = None) -> ApiClient:
    from kubernetes.client import ApiClient

    through = proxy_of(configuration.host, proxy)
    # Never empty, or the libraries read the environment; the websocket's is told of no_proxy beside a proxy alone.
    configuration.proxy = through.url if through else _NO_PROXY
    configuration.no_proxy = "none.invalid" if through else "*"
    if through and through.login:
        login = b64encode(through.login.encode()).decode()
        configuration.proxy_headers = {"proxy-authorization": f"Basic {login}"}
    if not configuration.verify_ssl:
        import urllib3

        # Who wrote insecure-skip-tls-verify into the kubeconfig knows; it would be said with every request.
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    _keep_to_headers(configuration)
    client = ApiClient(configuration)
    client.user_agent = f"mtft-launch/{version('mtft')}"  # as audit logs name us
    return client


def _keep_to_headers(configuration: Configuration) -> None:
    """Take the newline that editors leave from a token, now and whenever it is renewed.

    Raises:
        NoConnection: what it holds cannot be sent; here or with the request it was renewed for.
    """
    renew = configuration.refresh_api_key_hook

    def clean(given: Configuration) -> None:
        if renew:
            renew(given)
            given.refresh_api_key_hook = clean  # the official one puts itself there again each time
        token = str(given.api_key.get("authorization") or "").strip()
        # What HTTP libraries refuse they print, and it is a secret.
        if not token.isprintable() or not token.isascii():
            raise NoConnection(
                "the token of the kubeconfig has characters that no token has; log in to the cluster again"
            )
        if token:
            given.api_key["authorization"] = token

    clean(configuration)
    configuration.refresh_api_key_hook = clean


def _choose(value: dict[str, Any], context: str | None) -> tuple[str, dict[str, Any], str | None]:
    """Return name, content and proxy of the context asked for, or of the current one."""
    contexts, current = _named(value, "contexts", "context"), value.get("current-context")
    name = context or current
    if not name:
        raise NoConnection(
            f"{_kubeconfig()} has no current context; choose one with --context: {', '.join(contexts) or 'it has none'}"
        )
    if name not in contexts:
        near = difflib.get_close_matches(name, contexts, n=1)
        hint = f"did you mean {near[0]}?" if near else f"contexts: {', '.join(sorted(contexts)) or 'none'}"
        raise NoConnection(f"{_kubeconfig()} has no context {name}; {hint}")
    for part, entry in (("clusters", "cluster"), ("users", "user")):
        known, meant = _named(value, part, entry), contexts[name].get(entry)
        if meant not in known and (meant or entry == "cluster"):
            says = f"names {entry} {meant}, which is not there" if meant else f"names no {entry}"
            raise NoConnection(f"{_kubeconfig()}: context {name} {says}; {part}: {', '.join(sorted(known)) or 'none'}")
    _refuse_impersonation(value, name, contexts[name].get("user"))
    cluster = _named(value, "clusters", "cluster")[contexts[name]["cluster"]]
    if not cluster.get("server"):
        raise NoConnection(f"{_kubeconfig()}: cluster {contexts[name]['cluster']} has no server")
    return name, contexts[name], cluster.get("proxy-url")


def _refuse_impersonation(value: dict[str, Any], context: str, user: str | None) -> None:
    """Refuse a user who acts as another: the official client would act as the one behind, who may do more."""
    content = _named(value, "users", "user").get(user or "", {})
    if given := [key for key in _IMPERSONATION if content.get(key)]:
        raise NoConnection(
            f"{_kubeconfig()}: context {context}: user {user} acts as another one ({', '.join(given)}), which mtft "
            "cannot pass on; use a kubeconfig with credentials of that one"
        )


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return _VALUES.sub("...", str(error))


def _read() -> tuple[dict[str, Any], str]:
    """Return what the files of KUBECONFIG say together, and which of them say anything.

    As for kubectl the first that names something decides; of current-context the official reader takes the last.
    """
    import yaml
    from kubernetes.config.kube_config import KubeConfigMerger

    try:
        each = {path: yaml.safe_load(path.read_bytes()) for path in _files()}
        wrong = [f"{path}: {fault}" for path, said in each.items() for fault in faults(said)]
        files = os.pathsep.join(str(path) for path, said in each.items() if said)
        value: dict[str, Any] = {} if wrong or not files else _plain(KubeConfigMerger(files).config)
    except Exception as error:  # whatever a file that is no kubeconfig leads to
        raise NoConnection(f"{_kubeconfig()} is not a kubeconfig: {str(error).splitlines()[0]}") from error
    if wrong:
        raise NoConnection("\n  ".join(["the kubeconfig cannot be used:", *wrong]))
    value["current-context"] = next(
        (said["current-context"] for said in each.values() if (said or {}).get("current-context")), None
    )
    return value, files


def _named(value: dict[str, Any], part: str, entry: str) -> dict[str, dict[str, Any]]:
    return {each["name"]: each.get(entry) or {} for each in value.get(part) or []}


def _plain(node: Any) -> Any:
    """Return what the merger keeps in nodes, each with the file it came from."""
    value = getattr(node, "value", node)
    if isinstance(value, dict):
        return {key: _plain(child) for key, child in value.items()}
    return [_plain(child) for child in value] if isinstance(value, list) else value


@contextmanager
def _complaints() -> Iterator[Sequence[str]]:
    """Collect what the loader logs: it does not raise when a login program fails."""
    said: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    handler = Collect(logging.ERROR)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield said
    finally:
        root.removeHandler(handler)
