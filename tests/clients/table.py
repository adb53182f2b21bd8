"""The page docs/reference/clients.md, made from what a run found. Pure."""

from __future__ import annotations

import re

from clients.results import CallResult, ClientResult, Receipt

_HEAD = """\
# Clients

Which clients were tried against Gristmill, with which version, and what came of it. `make test-clients` made this page:
it installs each client in an environment of its own (from PyPI or npm, pinned), points it at a real server process by
base URL and key alone, and makes the calls in [tests/clients](../../tests/clients). Rows marked *embedded* were
answered by a real model (SmolLM2 135M on the embedded engine); the others, where only the shape of an answer matters,
by the simulated engine. The requests are those that were seen on the wire. The same as JSON:
[clients.json](clients.json).

`make test-clients CLIENT=dspy` tries one. It is not part of `make test`, since it installs two gigabytes (into
`.clients/`); there, the official clients are tried in depth. What was sent and answered in a call that failed is in
`.clients/runs/`. To add a client, write a script like [try_dspy.py](../../tests/clients/python/try_dspy.py).
"""


def page(receipt: Receipt) -> str:
    clients = sorted(receipt.clients.values(), key=lambda each: each.client.lower())
    days = sorted({client.tried for client in clients})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    runtimes = ", ".join(f"{name} {version}" for name, version in receipt.runtimes.items())
    served = ", ".join(sorted({client.gristmill for client in clients}))
    lines = [_HEAD, f"Tried {when} with Gristmill {served}, {runtimes}.\n"]
    lines += ["| client | version | calls that work |", "|---|---|---|"]
    for client in clients:
        passed = sum(call.outcome == "passed" for call in client.calls)
        anchor = re.sub(r"[^a-z0-9 -]", "", client.client.lower()).replace(" ", "-")
        lines.append(f"| [{client.client}](#{anchor}) | {_versions(client)} | {passed} of {len(client.calls)} |")
    for client in clients:
        lines += _section(client)
    return "\n".join(lines) + "\n"


def _section(client: ClientResult) -> list[str]:
    lines = [f"\n## {client.client}\n", f"{client.setup}\n", "| call | requests | result |", "|---|---|---|"]
    lines += [_row(call) for call in client.calls]
    reasons = dict.fromkeys(call.reason for call in client.calls if call.outcome == "cannot")
    return lines + [f"\n{_cell(reason)}" for reason in reasons]


def _row(call: CallResult) -> str:
    requests = ", ".join(f"`{each}`" for each in call.requests)
    result = {"passed": "works", "failed": "**fails**", "cannot": "cannot, see below"}[call.outcome]
    if call.engine == "embedded":
        result += " (*embedded*)"
    if call.outcome == "failed":
        result += f": {_cell(call.reason)[:300]}"
    return f"| {_cell(call.call)} | {requests} | {result} |"


def _versions(client: ClientResult) -> str:
    return ", ".join(f"{name} {version}" for name, version in client.versions.items())


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
