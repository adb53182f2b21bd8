"""The page docs/reference/clients.md, made from what a run found. Pure."""

from __future__ import annotations

from clients.results import CallResult, ClientResult, Receipt

_HEAD = """\
# Clients

Which clients were tried against Gristmill, with which version, and what came of it. `make test-clients` made this page:
it installs each client in an environment of its own (from PyPI or npm, pinned), points it at a real server process by
base URL and key alone, and makes the calls in [tests/clients](../../tests/clients). Rows marked *embedded* were
answered by a real model (SmolLM2 135M on the embedded engine); the others, where only the shape of an answer matters,
by the simulated engine. The requests are those that were seen on the wire. The same as JSON:
[clients.json](clients.json).

`make test-clients CLIENT=dspy` tries one. It is not part of `make test`, since it installs some gigabytes; there, the
official clients are tried in depth.
"""


def page(receipt: Receipt) -> str:
    clients = list(receipt.clients.values())
    calls = [call for client in clients for call in client.calls]
    passed = sum(call.outcome == "passed" for call in calls)
    lines = [_HEAD]
    days = sorted({client.tried for client in clients})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    runtimes = ", ".join(f"{name} {version}" for name, version in receipt.runtimes.items())
    lines.append(f"Tried {when} with {runtimes}: {len(clients)} clients, {len(calls)} calls, {passed} passed.\n")
    lines += ["| client | version | call | requests | result |", "|---|---|---|---|---|"]
    for client in clients:
        lines += [_row(client, call) for call in client.calls]
    lines += _reasons(clients)
    lines.append("\n## How each is pointed at Gristmill\n")
    lines += [f"**{client.client}**: {client.setup}\n" for client in clients]
    return "\n".join(lines).rstrip() + "\n"


def _row(client: ClientResult, call: CallResult) -> str:
    version = ", ".join(f"{name} {version}" for name, version in client.versions.items())
    requests = ", ".join(f"`{each}`" for each in call.requests)
    result = {"passed": "works", "failed": "**fails**", "cannot": "cannot"}[call.outcome]
    if call.engine == "embedded":
        result += " (*embedded*)"
    return f"| {client.client} | {version} | {_cell(call.call)} | {requests} | {result} |"


def _reasons(clients: list[ClientResult]) -> list[str]:
    told = [(client, call) for client in clients for call in client.calls if call.outcome != "passed"]
    if not told:
        return []
    lines = ["\n## What does not work, and why\n"]
    return lines + [f"- {client.client}, {call.call}: {_cell(call.reason)}" for client, call in told]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
