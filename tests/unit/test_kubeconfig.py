"""What a kubeconfig says, and what is wrong with one."""

from __future__ import annotations

import json
import socket
import stat
from base64 import b64encode
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from kubernetes.stream.ws_client import websocket_proxycare
from websocket._url import get_proxy_info

from launcher import cluster_errors
from launcher.cluster import connect
from launcher.connection import _keep_to_headers
from launcher.exec_stream import ExecStream
from launcher.resources import JOBS
from tests.unit.api_server import Answer, Server, thing, write_kubeconfig


def test_namespace_and_context_come_from_the_kubeconfig(server: Server) -> None:
    assert (connect().namespace, connect().context) == ("team", "work")
    assert connect("home").namespace == "default"
    assert connect("home", "other").namespace == "other"


def test_unknown_context_is_named_with_the_near_one(server: Server) -> None:
    with pytest.raises(cluster_errors.NoConnection, match="no context wrok; did you mean work"):
        connect("wrok")


def test_missing_and_broken_kubeconfigs_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(cluster_errors.NoConnection, match=r"there is no kubeconfig: KUBECONFIG names .*none"):
        connect()
    with monkeypatch.context() as pod:
        pod.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        with pytest.raises(
            cluster_errors.NoConnection, match=r"this pod has neither a kubeconfig \(KUBECONFIG names .*none"
        ):
            connect()
    for text in ("", "[1, 2]", "a: [", "kind: Config"):
        (tmp_path / "none").write_text(text)
        with pytest.raises(cluster_errors.NoConnection):
            connect()


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("users", "text", "users must be a list; it is text"),
        ("clusters", [1], "clusters[0] must be a mapping with name and cluster; it is a number"),
        ("contexts", [{"name": 5, "context": {}}], "contexts[0].name must be text; it is a number"),
        ("users", [{"name": "me", "user": "text"}], "users[0].user must be a mapping; it is text"),
        ("users", [{"name": "me", "user": {"token": 12345}}], "users[0].user.token must be text; it is a number"),
        ("users", [{"name": "me", "user": {"exec": "x"}}], "users[0].user.exec must be a mapping; it is text"),
        (
            "clusters",
            [{"name": "one", "cluster": {"server": ["a"]}}],
            "clusters[0].cluster.server must be text; it is a list",
        ),
        (
            "clusters",
            [{"name": "one", "cluster": {"insecure-skip-tls-verify": "no"}}],
            "clusters[0].cluster.insecure-skip-tls-verify must be true or false; it is text",
        ),
        ("current-context", ["work"], "current-context must be text; it is a list"),
        ("clusters", None, "context work names cluster one, which is not there; clusters: none"),
        ("users", [{"name": "you", "user": {}}], "context work names user me, which is not there; users: you"),
        ("clusters", [{"name": "one", "cluster": {}}], "cluster one has no server"),
        (
            "clusters",
            [{"name": "one", "cluster": {"server": "https://127.0.0.1:1", "proxy-url": "nonsense"}}],
            "context work cannot be used: proxy-url is no address of a proxy: http:// or https://, host and port",
        ),
        (
            "users",
            [{"name": "me", "user": {"tokenFile": "/none"}}],
            "context work cannot be used: /none: No such file or directory",
        ),
    ],
)
def test_a_fault_in_a_kubeconfig_is_told_with_its_place(server: Server, part: str, value: object, words: str) -> None:
    document = json.loads(server.kubeconfig.read_text())
    server.kubeconfig.write_text(json.dumps({**document, part: value}))
    with pytest.raises(cluster_errors.NoConnection) as caught:
        connect()
    assert words in str(caught.value) and str(server.kubeconfig) in str(caught.value)
    assert "12345" not in str(caught.value)


def test_a_fault_in_a_kubeconfig_shows_no_secret(server: Server) -> None:
    document = json.loads(server.kubeconfig.read_text())
    document["users"][0]["user"] = {"token": None, "client-key-data": "a-secret"}
    server.kubeconfig.write_text(json.dumps(document))
    with pytest.raises(cluster_errors.NoConnection) as caught:
        connect()
    assert "token" in str(caught.value) and "a-secret" not in str(caught.value)


@pytest.mark.filterwarnings("error")
def test_server_without_a_scheme_is_told(server: Server) -> None:
    write_kubeconfig(server.kubeconfig, "nonsense")
    with pytest.raises(cluster_errors.NoConnection, match=r"context work: server 'nonsense' is no address .*https://"):
        connect()


@pytest.mark.parametrize(
    ("login", "words"),
    [
        ({"args": ["--secret", "a-secret"], "env": [{"name": "A"}]}, "exec.env[0].value must be text; it is nothing"),
        ({"args": ["a-secret", 5]}, "exec.args[1] must be text; it is a number"),
        ({"args": "a-secret"}, "exec.args must be a list; it is text"),
        ({"env": ["a-secret"]}, "exec.env[0] must be a mapping with name and value; it is text"),
        ({"apiVersion": None, "args": ["a-secret"]}, "login program of context work failed"),
    ],
)
def test_a_fault_in_how_a_login_program_is_called_shows_no_secret(
    server: Server, login: dict[str, Any], words: str
) -> None:
    document = json.loads(server.kubeconfig.read_text())
    document["users"][0]["user"] = {"exec": {"command": "login", "apiVersion": "v1", **login}}
    if login.get("apiVersion", "v1") is None:
        del document["users"][0]["user"]["exec"]["apiVersion"]
    server.kubeconfig.write_text(json.dumps(document))
    with pytest.raises(cluster_errors.NoConnection) as caught:
        connect()
    assert words in str(caught.value) and "a-secret" not in str(caught.value)


def test_login_program_that_fails_is_told_with_its_words(server: Server, tmp_path: Path) -> None:
    program = tmp_path / "login"
    program.write_text("#!/bin/sh\necho 'the session is over, log in again' >&2\nexit 1\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    text = server.kubeconfig.read_text().replace(
        '{"token": "not-a-secret"}',
        f'{{"exec": {{"apiVersion": "client.authentication.k8s.io/v1", "command": "{program}"}}}}',
    )
    server.kubeconfig.write_text(text)
    with pytest.raises(cluster_errors.NoConnection, match=r"login program of context work failed.*log in again"):
        connect()


def test_proxy_of_the_kubeconfig_is_used(server: Server) -> None:
    write_kubeconfig(server.kubeconfig, "http://cluster.invalid", **{"proxy-url": server.url})
    server.answers = [Answer(body=thing("a", "1"))]
    assert connect().get(JOBS, "a")["metadata"]["name"] == "a"
    assert server.asked[0].headers["host"] == "cluster.invalid"


@pytest.mark.parametrize(
    ("environment", "server", "proxy"),
    [
        ({"HTTPS_PROXY": "http://a:1", "HTTP_PROXY": "http://b:2"}, "https://k8s.example.org:6443", "http://a:1"),
        ({"HTTPS_PROXY": "http://a:1", "HTTP_PROXY": "http://b:2"}, "http://k8s.example.org", "http://b:2"),
        ({"http_proxy": "http://b:2", "ALL_PROXY": "socks5://c:3"}, "https://k8s.example.org", None),
        ({"https_proxy": "http://a:1", "NO_PROXY": "example.org"}, "https://k8s.example.org", None),
        ({"https_proxy": "http://a:1", "NO_PROXY": "*.example.org"}, "https://k8s.example.org", None),
        ({"https_proxy": "http://a:1", "NO_PROXY": ".k8s.example.org"}, "https://k8s.example.org", "http://a:1"),
        ({"https_proxy": "http://a:1", "NO_PROXY": "x, k8s.example.org:6443"}, "https://k8s.example.org:6443", None),
        ({"https_proxy": "http://a:1", "NO_PROXY": "k8s.example.org:1"}, "https://k8s.example.org:6443", "http://a:1"),
        ({"https_proxy": "http://a:1", "no_proxy": "10.0.0.0/8"}, "https://10.1.2.3:6443", None),
        ({"https_proxy": "http://a:1", "no_proxy": "10.1.2.3"}, "https://10.1.2.3:6443", None),
        ({"https_proxy": "http://a:1", "no_proxy": "fd00::/8"}, "https://[fd00::7]:6443", None),
        ({"https_proxy": "http://a:1"}, "https://127.0.0.1:6443", None),
        ({"HTTPS_PROXY": "a:1", "https_proxy": "http://c:3"}, "https://k8s.example.org", "http://a:1"),
        ({"HTTPS_PROXY": "", "https_proxy": "http://c"}, "https://k8s.example.org", "http://c:80"),
        ({}, "https://k8s.example.org", None),
    ],
)
def test_the_proxy_of_the_environment_is_the_one_that_kubectl_takes(
    environment: dict[str, str], server: str, proxy: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    write_kubeconfig(tmp_path / "config", server)
    configuration = connect().client.configuration
    through = getattr(connect().client.rest_client.pool_manager, "proxy", None)
    assert (through and through.url) == proxy
    for_exec: Any = {}  # what the official client hands to its websocket library
    if configuration.proxy:
        for_exec = websocket_proxycare({}, configuration, "", {})
    found = get_proxy_info(
        urlsplit(server).hostname or "",
        server.startswith("https"),
        for_exec.get("http_proxy_host"),
        for_exec.get("http_proxy_port", 0),
        no_proxy=for_exec.get("http_no_proxy"),
    )
    assert (f"http://{found[0]}:{found[1]}" if found[0] else None) == proxy


def test_a_proxy_gets_user_and_password(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    write_kubeconfig(server.kubeconfig, "http://cluster.invalid")
    monkeypatch.setenv("HTTP_PROXY", server.url.replace("http://", "http://m%C3%A9:s%23cret@"))
    server.answers = [Answer(body=thing("a", "1"))]
    configuration = connect().client.configuration
    assert connect().get(JOBS, "a")["metadata"]["name"] == "a"
    assert server.asked[0].headers["proxy-authorization"] == f"Basic {b64encode('mé:s#cret'.encode()).decode()}"
    assert websocket_proxycare({}, configuration, "", {})["http_proxy_auth"] == ("mé", "s#cret")


@pytest.mark.parametrize(
    "value", ["socks5://a-secret:1", "http://me:a-sec#ret@a:1", "http://me:a-sec/ret@a:1", "http://a:b", "http://"]
)
def test_a_proxy_that_cannot_be_used_is_named_by_its_variable(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    write_kubeconfig(tmp_path / "config", "https://k8s.example.org")
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(cluster_errors.NoConnection, match="HTTPS_PROXY is no address of a proxy: http:// or") as told:
        connect()
    assert "a-sec" not in str(told.value)
    monkeypatch.setenv("NO_PROXY", "example.org")
    assert connect().client.configuration.host == "https://k8s.example.org"


@pytest.mark.parametrize("value", ["https://me:a-secret@127.0.0.1:1", "http://me:se#cret@127.0.0.1:1"])
def test_a_login_never_goes_out_unencrypted_and_a_proxy_that_does_not_serve_is_not_read(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("HTTPS_PROXY", value)
    write_kubeconfig(tmp_path / "config", "https://k8s.example.org")
    if value.startswith("https"):
        with pytest.raises(cluster_errors.NoConnection, match="through a proxy at http:// alone") as told:
            ExecStream(connect(), "p", "team", "pytorch", ["true"])
        assert "a-secret" not in str(told.value)
    with socket.create_server(("127.0.0.1", 0)) as closing:
        write_kubeconfig(tmp_path / "config", f"https://127.0.0.1:{closing.getsockname()[1]}")
    with pytest.raises(cluster_errors.NoConnection, match=r"127.0.0.1:\d+ cannot be reached") as told:
        ExecStream(connect(), "p", "team", "pytorch", ["true"])
    assert "cret" not in str(told.value)


def test_the_proxy_of_the_kubeconfig_serves_whatever_the_environment_leaves_out(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    write_kubeconfig(server.kubeconfig, "http://cluster.invalid", **{"proxy-url": server.url})
    server.answers = [Answer(body=thing("a", "1"))]
    assert connect().get(JOBS, "a")["metadata"]["name"] == "a"


@pytest.mark.parametrize("blank", [{}, {"current-context": ""}, {"current-context": "home"}])
def test_of_several_kubeconfigs_the_first_that_names_something_decides(
    server: Server, blank: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = json.loads(server.kubeconfig.read_text())
    other = {**document, "clusters": [{"name": "one", "cluster": {"server": "https://other.invalid"}}]}
    del other["current-context"]
    files = {"empty": "", "blank": '{"current-context": ""}', "second": json.dumps({**other, **blank})}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    paths = [tmp_path / "none", tmp_path / "empty", tmp_path / "blank", server.kubeconfig, tmp_path / "second"]
    monkeypatch.setenv("KUBECONFIG", ":".join(map(str, paths)))
    assert connect().context == "work"
    assert connect().client.configuration.host == server.url
    assert connect("home").context == "home"


@pytest.mark.parametrize("key", ["as", "as-uid", "as-groups", "as-user-extra"])
def test_a_user_who_acts_as_another_is_refused(server: Server, key: str) -> None:
    document = json.loads(server.kubeconfig.read_text())
    document["users"][0]["user"][key] = {"as-groups": ["ops"], "as-user-extra": {"a": ["b"]}}.get(key, "bob")
    server.kubeconfig.write_text(json.dumps(document))
    with pytest.raises(cluster_errors.NoConnection, match=rf"user me acts as another one \({key}\)"):
        connect()
    assert not server.asked


@pytest.mark.parametrize(("content", "sent"), [("a-secret\n", "Bearer a-secret"), ("a-sécret", None), ("a\nb", None)])
def test_a_token_is_sent_as_headers_are_or_not_shown(server: Server, tmp_path: Path, content: str, sent: str) -> None:
    (tmp_path / "token").write_text(content)
    document = json.loads(server.kubeconfig.read_text())
    document["users"][0]["user"] = {"tokenFile": str(tmp_path / "token")}
    server.kubeconfig.write_text(json.dumps(document))
    if sent:
        server.answers = [Answer(body=thing("a", "1")) for _ in range(3)]
        cluster = connect()
        for _ in range(3):  # the official client reads the file again, and sets itself up again, each time
            cluster.get(JOBS, "a")
        assert [each.headers["authorization"] for each in server.asked] == [sent] * 3
        return
    with pytest.raises(cluster_errors.NoConnection, match="characters that no token has") as told:
        connect()
    assert content not in str(told.value)


def test_a_token_that_is_renewed_is_looked_at_too(server: Server) -> None:
    cluster = connect()
    configuration = cluster.client.configuration
    configuration.refresh_api_key_hook = lambda given: given.api_key.update(authorization="new\n")
    _keep_to_headers(configuration)
    server.answers = [Answer(body=thing("a", "1"))]
    cluster.get(JOBS, "a")
    assert server.asked[0].headers["authorization"] == "new"
