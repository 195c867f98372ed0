"""Jupyter's REST API, as far as the tests need it."""

from __future__ import annotations

import json
import urllib.request


def ask(address: str, what: str, method: str = "GET", **content: object) -> object:
    """Answer of Jupyter's REST API, see its `/api`."""
    data = json.dumps(content).encode() if content else None
    with urllib.request.urlopen(
        urllib.request.Request(f"{address}/api/{what}", data, method=method), timeout=60
    ) as answer:
        return json.loads(answer.read() or "null")


def shut_down_sessions(address: str) -> None:
    """End the kernels of all notebooks: a closed page leaves its own running, with all it holds."""
    for session in ask(address, "sessions"):
        ask(address, f"sessions/{session['id']}", "DELETE")
