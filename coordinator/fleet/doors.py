"""Who may come in: a cluster of our own on the loopback only, others with Ray's token.

Ray runs what it is sent. A cluster that answers without a token runs it for whoever reaches its
ports (docs/security.md), so such a cluster is joined only as far as it is this one node, or where
the user says so. Whether a cluster demands a token is tried, because the settings of this process
do not tell: a process with a token may join a cluster that asks for none.
"""

from __future__ import annotations

import logging
import os
import secrets

import grpc  # type: ignore[import-untyped]

from gemmcast.errors import InputError

log = logging.getLogger(__name__)

TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""What Ray reads a token from, before its file in the home folder."""
TOKEN_BYTES = 32
LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""What makes Ray take 127.0.0.1 as the address of a node, and listen there and nowhere else, with
its ports for metrics too. So it starts where it must not form clusters, on macOS and Windows."""
CHECK_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
"""The call that any process may make of a head that asks for no token."""
ANSWER_S = 10.0
OPT_OUT = "--without-token"


def of_embedded() -> dict[str, str]:
    """The environment of a cluster that this process starts for itself.

    Whoever else has an account on this machine reaches the loopback too, and lacks the token, which
    is made here: Ray would write one into the home folder, in a file that others may read.
    """
    environment = dict(LOOPBACK_ONLY)
    if not any(name in os.environ for name in TOKENS):
        environment[TOKENS[0]] = secrets.token_hex(TOKEN_BYTES)
    return environment


def is_open(head: str) -> bool:
    """Whether a head answers a process without a token.

    Args:
        head: HOST:PORT of Ray's GCS.
    """
    with grpc.insecure_channel(head) as channel:
        try:
            channel.unary_unary(CHECK_ALIVE)(b"", timeout=ANSWER_S)
        except grpc.RpcError:
            # UNAUTHENTICATED; or Ray's TLS, which asks for a certificate.
            return False
    return True


def refuse_open(target: str, head: str, nodes: int, *, without_token: bool) -> bool:
    """Refuse a cluster of several nodes that asks for no token.

    Args:
        target: what the user calls the cluster.
        head: HOST:PORT of its GCS.
        nodes: how many it has.
        without_token: the user accepts it.

    Returns:
        Whether nodes that join later must not be used.

    Raises:
        InputError: it is such a cluster, and the user has not accepted it.
    """
    if not is_open(head):
        return False
    danger = "whoever reaches its ports runs programs on every node"
    if without_token:
        log.warning("--address = %r: this cluster asks for no token: %s", target, danger)
        return False
    if nodes > 1:
        rule = f"{nodes} nodes that ask for no token: {danger}"
        way_out = f"start each with RAY_AUTH_MODE=token (docs/security.md), or accept it: {OPT_OUT}"
        raise InputError("--address", target, rule, way_out)
    text = "--address = %r: this cluster asks for no token: only its first node is used"
    log.warning(text, target)
    return True
