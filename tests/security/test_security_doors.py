"""Which clusters are joined: those that demand Ray's token, and open ones only as far as they are
this node, or where the user accepts it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from coordinator.fleet.doors import CHECK_ALIVE, OPT_OUT, TOKENS, is_open, of_embedded, refuse_open
from gemmcast.errors import InputError

DANGER = "whoever reaches its ports runs programs on every node"
Answer = Callable[[bytes, grpc.ServicerContext], bytes]


class Head(grpc.GenericRpcHandler):
    """Answers the one call that is made of a head."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method != CHECK_ALIVE:
            return None
        return grpc.unary_unary_rpc_method_handler(self._answer)


@contextmanager
def head(answer: Answer) -> Iterator[str]:
    with ThreadPoolExecutor(max_workers=1) as threads:
        server = grpc.server(threads, handlers=[Head(answer)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


def _answers(_request: bytes, _context: grpc.ServicerContext) -> bytes:
    return b""


def _demands_a_token(_request: bytes, context: grpc.ServicerContext) -> bytes:
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
    return b""


@pytest.fixture(scope="module")
def open_head() -> Iterator[str]:
    with head(_answers) as address:
        yield address


@pytest.fixture(scope="module")
def guarded_head() -> Iterator[str]:
    with head(_demands_a_token) as address:
        yield address


def test_a_head_is_open_if_it_answers_without_a_token(open_head: str, guarded_head: str) -> None:
    assert is_open(open_head)
    assert not is_open(guarded_head)


def test_several_nodes_without_a_token_are_refused(open_head: str) -> None:
    with pytest.raises(InputError) as refused:
        refuse_open("auto", open_head, nodes=2, without_token=False)
    line = str(refused.value)
    assert line.startswith(f"--address = 'auto': 2 nodes that ask for no token: {DANGER}; ")
    assert "RAY_AUTH_MODE=token" in line
    assert OPT_OUT in line


def test_the_opt_out_is_logged(open_head: str, caplog: pytest.LogCaptureFixture) -> None:
    assert not refuse_open("auto", open_head, nodes=2, without_token=True)
    assert caplog.messages == [f"--address = 'auto': this cluster asks for no token: {DANGER}"]
    assert caplog.records[0].levelno == logging.WARNING


def test_of_an_open_cluster_of_one_node_no_other_is_used_later(
    open_head: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert refuse_open("auto", open_head, nodes=1, without_token=False)
    assert "only its first node is used" in caplog.text


@pytest.mark.parametrize("nodes", [1, 50])
def test_a_cluster_that_demands_a_token_is_joined_without_a_word(
    guarded_head: str, nodes: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert not refuse_open("auto", guarded_head, nodes=nodes, without_token=False)
    assert caplog.messages == []


def test_a_cluster_of_our_own_has_a_token_that_is_new_and_on_no_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in TOKENS:
        monkeypatch.delenv(name, raising=False)
    first, second = of_embedded(), of_embedded()
    assert len(first["RAY_AUTH_TOKEN"]) == 64
    assert first["RAY_AUTH_TOKEN"] != second["RAY_AUTH_TOKEN"]


@pytest.mark.parametrize("name", TOKENS)
def test_a_token_of_the_user_is_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "mine")
    assert "RAY_AUTH_TOKEN" not in of_embedded()
