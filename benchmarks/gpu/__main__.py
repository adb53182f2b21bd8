"""Gristmill's llama_cpp engine beside Ollama, llama.cpp's server and vLLM, on the same rows and your GPU.

    python benchmarks/gpu --model ollama:gemma3:12b [--llama-server PATH] [--vllm-model MODEL] [--runs 3]

One rubric of about 1,700 tokens, about 45 varying tokens a row. Two kinds of work: label scores 0 to 10 (from the
servers one token with its most probable ones), and answers of 16 tokens. What is not installed is told and left out.
A GPU seldom holds a model twice, so one is loaded at a time: in each of ``--runs`` runs each is started, warmed up
with the rubric, measured on rows that nobody has seen, and stopped, one after another. Medians of the runs.

docs/how-to/gpu-benchmark.md says more, and where the receipt goes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "embedded"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "side_by_side"))
import receipt
import workload
from contenders import WORKS, Contender, EngineContender, Prompt, Work, measure
from gpu_facts import driver, gpus, placement, receipt_name
from llama_server import LlamaServer, Setting, settings_of, try_settings
from ollama_contender import OllamaContender
from vllm_server import VllmServer

from gristmill.cli.config import engine_settings
from gristmill.engines.registry import EngineSettings
from gristmill.models.gguf_header import read_header
from gristmill.models.locate import LocalModel, locate
from gristmill.models.ollama.name import PREFIX as OLLAMA_PREFIX
from gristmill.models.split import gguf_files
from gristmill.user_error import UserError
from server_process import stop_with_me

OURS, OLLAMA, SERVER, VLLM = "gristmill llama_cpp", "Ollama", "llama.cpp server", "vLLM"


class Bench:
    """What is installed of the contenders, and the rows for them."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Raises UserError where the model is not on this machine."""
        self._options = options
        self._model: LocalModel = locate(options.model)
        self._chat = self._has_chat_template()
        self.absent: dict[str, str] = {}
        #: Of llama.cpp's server, by the work: rows/s of each setting that was tried.
        self.settings_tried: dict[str, dict[str, float]] = {}

    def prompts(self, rows: range) -> list[Prompt]:
        shared = workload.rubric()
        if not self._chat:
            return [workload.plain_prompt(row, shared) for row in rows]
        system = {"role": "system", "content": shared}
        return [[system, {"role": "user", "content": workload.candidate(row)}] for row in rows]

    async def contenders(self, work: Work) -> dict[str, Contender]:
        """Those that can be started; why others are not is in ``absent``."""
        options = self._options
        # No prefixes from disk: the warm-up computes the rubric, for all alike.
        own = {"prefix_disk_gb": "0", "library": options.library} | engine_settings(
            "llama_cpp", None, None, options.option
        ).options
        found: dict[str, Contender] = {OURS: EngineContender(EngineSettings("llama_cpp", options.model, options=own))}
        if ollama_model := options.ollama_model or _ollama_name(options.model):
            found[OLLAMA] = OllamaContender(ollama_model, options.ollama_parallel)
        else:
            self.leave_out(OLLAMA, "the model is none of its own: name it with --ollama-model")
        if options.llama_server:
            if server := await self._best_server(Path(options.llama_server), work):
                found[SERVER] = server
        else:
            self.leave_out(SERVER, "there is no llama-server on the PATH: name it with --llama-server")
        if not options.vllm_model:
            self.leave_out(VLLM, "no model is named for it, with --vllm-model")
        elif not (vllm := shutil.which("vllm")):
            self.leave_out(VLLM, "there is no vllm on the PATH")
        else:
            found[VLLM] = VllmServer(vllm, options.vllm_model, options.vllm_arguments.split())
        return found

    async def _best_server(self, binary: Path, work: Work) -> LlamaServer | None:
        def make(setting: Setting) -> LlamaServer:
            more = ["-ngl", str(self._options.server_gpu_layers), *self._options.server_arguments.split()]
            return LlamaServer(binary, self._model.path, setting, more)

        try:
            trial = await try_settings(
                make, settings_of(self._options.server_slots), self.prompts, work, self._options.trial_rows
            )
        except (OSError, RuntimeError) as error:
            self.leave_out(SERVER, str(error))
            return None
        self.settings_tried[work.title] = trial.rates
        return make(trial.best)

    def leave_out(self, name: str, reason: str) -> None:
        if name not in self.absent:
            print(f"Left out: {name}: {reason.strip()}", flush=True)
            self.absent[name] = reason.strip()

    @property
    def model_facts(self) -> dict[str, Any]:
        path = self._model.path
        size = sum(file.stat().st_size for file in gguf_files(path))
        return {"name": self._model.name, "file": path.name, "size_gb": round(size / 1e9, 3), "chat": self._chat}

    def _has_chat_template(self) -> bool:
        own = "tokenizer.chat_template" in read_header(self._model.path).metadata
        return own or self._model.defaults.template is not None


def _ollama_name(model: str) -> str | None:
    return model.removeprefix(OLLAMA_PREFIX) if model.startswith(OLLAMA_PREFIX) else None


async def one_turn(bench: Bench, contender: Contender, rows: range, warm_up: int, work: Work) -> tuple[Any, Any]:
    """What was measured, and the contender's facts."""
    await contender.start()
    try:
        first = 2_000_000 + rows.start
        await contender.answer(bench.prompts(range(first, first + min(warm_up, 2 * contender.slots))), work)
        measured = await measure(contender, bench.prompts(rows), work)
        return measured, contender.facts()
    finally:
        await contender.stop()


async def compare(bench: Bench, options: argparse.Namespace, work: Work) -> dict[str, Any]:
    contenders = await bench.contenders(work)
    rates: dict[str, list[float]] = {}
    tokens: dict[str, list[int]] = {}
    facts: dict[str, Any] = {}
    for run in range(options.runs):
        rows = range(run * options.rows, (run + 1) * options.rows)
        for name, contender in list(contenders.items()):
            if name in bench.absent:
                continue
            try:
                measured, facts[name] = await one_turn(bench, contender, rows, options.warm_up, work)
            except Exception as error:
                if name == OURS:
                    raise
                # One that fails in the middle is out of all runs: its rows would be fewer than others'.
                bench.leave_out(name, str(error))
                for each in (rates, tokens, facts):
                    each.pop(name, None)
                continue
            rates.setdefault(name, []).append(measured.rows_per_second)
            tokens.setdefault(name, []).append(measured.completion_tokens)
            print(f"{work.title}, run {run + 1}: {name}: {measured.rows_per_second} rows/s", flush=True)
    medians = {name: round(statistics.median(each), 3) for name, each in rates.items()}
    return {
        "rows_per_second": rates,
        "medians": medians,
        "times_the_others": {name: round(medians[OURS] / rate, 3) for name, rate in medians.items() if name != OURS},
        "completion_tokens": tokens,
        "contenders": facts,
    }


def installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", required=True, help="a catalog name, a GGUF file, or one of Ollama's (ollama:NAME)")
    parser.add_argument("--library", default="", help="the llama.cpp library, instead of the installed package's")
    parser.add_argument("-O", dest="option", action="append", default=[], help="an option of the engine")
    parser.add_argument("--ollama-model", help="its name in Ollama, where --model is not ollama:NAME")
    parser.add_argument(
        "--ollama-parallel", type=int, default=int(os.environ.get("OLLAMA_NUM_PARALLEL") or 1),
        help="OLLAMA_NUM_PARALLEL of its server",
    )  # fmt: skip
    parser.add_argument("--llama-server", default=shutil.which("llama-server"), help="llama.cpp's server")
    parser.add_argument("--server-gpu-layers", type=int, default=999, help="fewer where the model does not fit")
    parser.add_argument("--server-arguments", default="", help="for llama-server, besides")
    parser.add_argument("--server-slots", default="8,32", help="numbers of slots of llama-server to try")
    parser.add_argument("--vllm-model", help="the same model as vLLM knows it")
    parser.add_argument("--vllm-arguments", default="", help="for vllm serve, besides")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--warm-up", type=int, default=64, help="rows, at most")
    parser.add_argument("--trial-rows", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--receipt", help="its name, gpu-NAME")
    options = parser.parse_args()
    stop_with_me()
    try:
        run(options)
    except UserError as error:
        raise SystemExit(str(error)) from None


async def compare_all(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    return {work.title: await compare(bench, options, work) for work in WORKS}


def run(options: argparse.Namespace) -> None:
    found = gpus(options.library)
    print(f"GPUs: {', '.join(each['name'] for each in found) or 'none that the llama.cpp library can use'}", flush=True)
    bench = Bench(options)
    results = asyncio.run(compare_all(bench, options))
    computes_on = results[WORKS[-1].title]["contenders"][OURS]["computes_on"]
    where = placement(computes_on)
    content = {
        "device": where.device,
        "layers_on_gpu": where.layers,
        "gpus": found,
        "driver": driver(),
        "model": bench.model_facts,
        "rows": options.rows,
        "warm_up_rows": options.warm_up,
        "runs": options.runs,
        "server_settings_tried": bench.settings_tried,
        "results": results,
    }
    packages = tuple(package for package in ("xllamacpp",) if installed(package))
    path = receipt.write(receipt_name(options.receipt, where, found), content, packages)
    print(f"{OURS} computes on {computes_on}")
    for title, each in results.items():
        print(f"{title}: {each['medians']} rows/s; {OURS} is {each['times_the_others']} times as fast")
    if where.device == "cpu":
        print("These are no figures of a GPU: the engine computed on the CPU, and the receipt says so.")
    print(f"receipt: {path}")


if __name__ == "__main__":
    main()
