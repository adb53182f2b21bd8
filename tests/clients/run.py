"""Tries the clients that people use against real Gristmill servers; writes docs/reference/clients.json and clients.md.

    PYTHONPATH=tests python -m clients.run [--client NAME]... [--docs FOLDER] [CALL]...

Exit code 0: every call passed, or failed for the reason that its script names.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gristmill
from clients import environments, results, table
from clients.environments import CACHE, Script, scripts
from clients.results import CallResult, ClientResult
from clients.tap import Exchange, Tap
from server_process import ServerProcess

DOCS = Path(__file__).parents[2] / "docs" / "reference"
#: What each engine serves. Clients that know OpenAI's names alone are answered by aliases.
_SERVED = {"simulated": ("simulated", "simulated"), "embedded": ("openvino", "smollm2-135m-instruct")}
_ALIASES = ("gpt-4o-mini", "gpt-4.1", "text-embedding-3-small", "claude-haiku-4-5")
#: Seconds for all calls of a client, from its first import on.
_LIMIT = 900
_ID = ("batch_", "file-", "upload_", "msgbatch_", "resp_")


def main() -> int:
    known = scripts()
    parser = argparse.ArgumentParser(description="Try clients against real Gristmill servers.")
    parser.add_argument("--client", action="append", choices=[each.name for each in known])
    parser.add_argument("--docs", type=Path, default=DOCS, help="where clients.json and clients.md are written")
    parser.add_argument("call", nargs="*", help="only calls whose name has this in it; nothing is written then")
    chosen = parser.parse_args()
    receipt = results.load(chosen.docs / "clients.json")
    receipt.clients = {name: found for name, found in receipt.clients.items() if name in [each.name for each in known]}
    receipt.runtimes = {"Python": sys.version.split()[0], "Node.js": _node_version()}
    fine = True
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # whatever was started is ended, too
    with contextlib.ExitStack() as stack:
        taps = {name: stack.enter_context(_server(name, stack)) for name in _SERVED}
        for script in known:
            if chosen.client and script.name not in chosen.client:
                continue
            found = _try(script, taps, chosen.call)
            fine = fine and all(each.outcome != "failed" for each in found.calls)
            if not chosen.call:
                receipt.clients[script.name] = found
                results.save(receipt, chosen.docs / "clients.json")
                (chosen.docs / "clients.md").write_text(table.page(receipt))
    return 0 if fine else 1


def _server(name: str, stack: contextlib.ExitStack) -> Tap:
    engine, model = _SERVED[name]
    CACHE.mkdir(exist_ok=True)
    data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="server-", dir=CACHE)))
    options = ["--engine", engine, "--model", model]
    for alias in _ALIASES:
        options += ["--alias", f"{alias}={model}"]
    server = stack.enter_context(ServerProcess(data, *options))
    return Tap(server.base_url)


def _try(script: Script, taps: dict[str, Tap], only: list[str]) -> ClientResult:
    print(f"{script.name} ({', '.join(f'{name} {version}' for name, version in script.versions.items())})", flush=True)
    found = ClientResult(
        script.title, script.versions, script.setup, datetime.date.today().isoformat(), gristmill.__version__, []
    )
    folder = CACHE / "runs" / script.name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "home").mkdir(parents=True)
    try:
        script.install()
        ended = _run(script, taps, only, folder)
    except subprocess.CalledProcessError as error:
        found.calls.append(CallResult("install", "", "failed", error.stderr.strip()[-1000:], []))
    else:
        found.calls += _calls(folder, taps, ended)
    for each in found.calls:
        print(f"  {each.outcome:7} {each.call} ({each.engine}) {each.reason[:300]}", flush=True)
    return found


def _run(script: Script, taps: dict[str, Tap], only: list[str], folder: Path) -> str:
    """Run a client's calls; how it ended, where that was not by itself."""
    variables = script.variables(folder / "home")
    places = {name: (tap.base_url, _SERVED[name][1]) for name, tap in taps.items()}
    variables |= {"CLIENTS_SERVERS": json.dumps(places), "CLIENTS_RESULTS": str(folder / "results.jsonl")}
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(
            [*script.command(), *only], env=variables, stdout=output, stderr=output, cwd=folder, start_new_session=True
        )
        try:
            code = process.wait(_LIMIT)
            return "" if code == 0 else f"ended with exit code {code}: {_last_line(folder / 'output.txt')}"
        except subprocess.TimeoutExpired:
            return f"no end within {_LIMIT} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _calls(folder: Path, taps: dict[str, Tap], ended: str) -> list[CallResult]:
    """What the client's script told, with what went over the wire meanwhile."""
    path = folder / "results.jsonl"
    told = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if not told:
        return [CallResult("import", "", "failed", ended or "no call was made", [])]
    calls = []
    for number, began in enumerate(told):
        if began["state"] != "began":
            continue
        last = told[number + 1] if number + 1 < len(told) else {"state": "failed", "reason": ended, "time": time.time()}
        exchanges = taps[began["engine"]].between(began["time"], last["time"])
        if last["state"] != "passed":
            _keep(folder / f"{began['call'].replace('/', '-')}.txt", exchanges)
        requests = list(dict.fromkeys(f"{each.method} {_without_ids(each.path)}" for each in exchanges))
        calls.append(CallResult(began["call"], began["engine"], last["state"], last.get("reason", ""), requests))
    return calls


def _keep(path: Path, exchanges: list[Exchange]) -> None:
    """What was sent and answered in a call that failed."""
    with path.open("w") as file:
        for each in exchanges:
            body, answer = (bytes(part).decode("utf-8", "replace") for part in (each.body, each.answer))
            file.write(f"{each.method} {each.path}\n{body}\n=> {each.status}\n{answer}\n\n")


def _without_ids(path: str) -> str:
    return "/".join("{id}" if part.startswith(_ID) else part for part in path.split("/"))


def _last_line(path: Path) -> str:
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:500] if lines else ""


def _node_version() -> str:
    command = [str(environments.node()), "--version"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().removeprefix("v")


if __name__ == "__main__":
    sys.exit(main())
