"""What vLLM is told, and what is said where it cannot start. Needs no vLLM."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import aiohttp.web
import pytest

from gristmill.engines.http import HttpClient
from gristmill.engines.ray.options import RayOptions
from gristmill.engines.registry import EngineSettings, create_engine
from gristmill.engines.vllm.engine import VllmEngine, VllmOptions
from gristmill.engines.vllm.server import environment_of, how_it_died
from gristmill.user_error import UserError


def test_options_that_are_not_ours_are_vllms() -> None:
    options = VllmOptions.parse(
        {"parallel": "64", "max_model_len": "2048", "enforce-eager": "true", "enable_chunked_prefill": "false",
         "compilation_config": '{"level": 0}', "body.top_k": "20"}
    )  # fmt: skip
    assert options.parallel == 64 and options.body_fields[0].path == ("top_k",)
    assert options.command_line() == [
        "--max-model-len=2048", "--enforce-eager", "--no-enable-chunked-prefill", '--compilation-config={"level": 0}',
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["port", "uds", "api-key", "model"])
def test_where_it_listens_is_ours_to_say(name: str) -> None:
    with pytest.raises(UserError, match="not yours to set"):
        VllmOptions.parse({name: "1"})


def test_the_key_of_another_vllm_is_not_asked_of_us() -> None:
    told = environment_of({"VLLM_API_KEY": "of another", "HF_TOKEN": "hf", "VLLM_NO_USAGE_STATS": "0"})
    assert told == {"HF_TOKEN": "hf", "VLLM_NO_USAGE_STATS": "0", "DO_NOT_TRACK": "1"}


@pytest.mark.parametrize("name", ["hf_token", "hf-token"])
def test_a_token_goes_into_no_command_line(name: str) -> None:
    with pytest.raises(UserError, match="HF_TOKEN") as refused:
        VllmOptions.parse({name: "hf_secret"})
    assert "hf_secret" not in str(refused.value)


def test_a_replica_reserves_the_gpus_that_its_vllm_computes_on() -> None:
    def gpus(**options: str) -> float:
        return RayOptions.split({"replica_engine": "vllm", **options})[0].gpus

    assert gpus() == 1 and gpus(tensor_parallel_size="4", pipeline_parallel_size="2") == 8
    assert gpus(tensor_parallel_size="2", data_parallel_size="2") == 4
    assert gpus(tensor_parallel_size="4", replica_gpus="0.5") == 0.5
    assert RayOptions.split({"replica_engine": "llama_cpp"})[0].gpus == 0
    with pytest.raises(UserError, match="must be a number of GPUs"):
        gpus(tensor_parallel_size="all")


def test_without_a_model_it_asks_for_one() -> None:
    with pytest.raises(UserError, match="Say which model"):
        create_engine(EngineSettings("ray", options={"replica_engine": "vllm"}))


def test_a_model_is_called_by_its_folder_or_its_name_on_the_hub() -> None:
    assert VllmEngine(VllmOptions(), "/models/smollm2/").models == ("smollm2",)
    assert VllmEngine(VllmOptions(), "Qwen/Qwen3-8B").models == ("Qwen/Qwen3-8B",)
    assert VllmEngine(VllmOptions.parse({"served_model_name": "judge"}), "/models/a").models == ("judge",)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
async def test_where_it_is_missing_one_sentence_says_for_which_python() -> None:
    with pytest.raises(UserError) as raised:
        await VllmEngine(VllmOptions(), "Qwen/Qwen3-8B").start()
    assert str(raised.value) == f"vLLM is not installed for {sys.executable}: run {sys.executable} -m pip install vllm."


def test_of_what_its_processes_print_the_cause_is_told() -> None:
    # As vLLM 0.32 prints it.
    printed = """\
(EngineCore pid=7) ERROR 11-26 08:17:01 [core.py:90] Traceback (most recent call last):
(EngineCore pid=7) ERROR 11-26 08:17:01 [core.py:90] ValueError: Free memory on device is less than desired.
(APIServer pid=5) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
    assert how_it_died(1, printed).endswith("it printed last: ValueError: Free memory on device is less than desired.")
    printed = """\
(APIServer pid=5) pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
(APIServer pid=5)   Value error, User-specified max_model_len (200000) is greater than the derived one
"""
    assert "ModelConfig: Value error, User-specified max_model_len (200000)" in how_it_died(1, printed)
    said = how_it_died(2, "usage: vllm serve\nvllm: error: unrecognized arguments: --max-modl-len=3\n")
    assert said.endswith("it printed last: vllm: error: unrecognized arguments: --max-modl-len=3")
    assert how_it_died(-9, "") == "signal SIGKILL: by hand, or because memory ran out"


async def test_a_server_at_a_unix_socket_is_asked_like_any_other(tmp_path: Path) -> None:
    async def answer(request: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.Response(text=request.path)

    application = aiohttp.web.Application()
    application.router.add_get("/{path}", answer)
    runner = aiohttp.web.AppRunner(application)
    await runner.setup()
    await aiohttp.web.UnixSite(runner, str(tmp_path / "socket")).start()
    client = HttpClient("the server", "http://here", socket=str(tmp_path / "socket"))
    assert (await client.fetch("/health")).body == b"/health"
    await runner.cleanup()
    with pytest.raises(Exception, match="the server at http://here does not answer: Connection refused"):
        await client.fetch("/health")
    await client.close()
