"""What the log says of an agent, as fields: its node, its device, and the reason."""

from __future__ import annotations


def agent_event(event: str, agent: str, reason: str = "") -> dict[str, object]:
    """`extra` of a call of a logger (coordinator/logs.py).

    Args:
        agent: HOST-NODE/DEVICE.
        reason: for people; empty: there is none.
    """
    node, _, device = agent.rpartition("/")
    fields = {"agent": agent, "node": node, "device": device}
    if reason:
        fields["reason"] = reason
    return {"event": event, "fields": fields}
