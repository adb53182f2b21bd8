"""The engines that ``docs/contributing/engine.md`` adds, as they stand there."""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import signal
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from aiohttp import web

from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.protocol import LabelRequest
from gristmill.wire.completions import CompletionRequest

PAGE = (Path(__file__).parents[2] / "docs/contributing/engine.md").read_text()


@pytest.fixture(scope="module", autouse=True)
def modules(tmp_path_factory: pytest.TempPathFactory):
    """The page's two files, as modules of their own that a worker process finds, too."""
    folder = tmp_path_factory.mktemp("added")
    for name, begin in (("shouting", '"""An engine that drives'), ("alphabet", '"""An embedded engine that')):
        (code,) = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if block.startswith(begin)]
        (folder / f"added_{name}.py").write_text(code.replace(f"gristmill.engines.embedded.{name}", f"added_{name}"))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        before = os.environ.get("PYTHONPATH")
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), before])))
        yield


def complete(prompt: str, model: str, **parameters: Any) -> CompletionRequest:
    return msgspec.convert({"prompt": prompt, "model": model} | parameters, CompletionRequest)


async def test_the_engine_over_http_answers_and_its_errors_are_of_the_right_kind():
    async def shout(request: web.Request) -> web.StreamResponse:
        text = (await request.json())["text"]
        if text == "busy":
            return web.Response(status=429, headers={"Retry-After": "7"})
        if text == "odd":
            return web.Response(text="no JSON")
        if text == "break":
            assert request.transport is not None
            request.transport.close()
        return web.json_response({"text": text.upper(), "words_in": 2, "words_out": 2})

    app = web.Application()
    app.router.add_post("/shout", shout)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    engine = importlib.import_module("added_shouting").ShoutingEngine(url, "shout")
    await engine.start()
    try:
        answer = await engine.complete(complete("hey you", "shout", max_tokens=5))
        assert answer.choices[0].text == "HEY YOU"
        kinds = {}
        for text in ("busy", "odd", "break"):
            with pytest.raises(EngineError) as caught:
                await engine.complete(complete(text, "shout"))
            kinds[text] = (caught.value.kind, caught.value.retry_after, caught.value.crashed)
        assert kinds == {
            "busy": (ErrorKind.OVERLOADED, 7.0, None),
            "odd": (ErrorKind.INTERRUPTED, None, None),
            "break": (ErrorKind.INTERRUPTED, None, url),
        }
        with pytest.raises(EngineError) as caught:
            await engine.complete(complete("x", "shout", temperature=0.5))
        assert caught.value.param == "temperature"
        await runner.cleanup()
        with pytest.raises(EngineError) as caught:
            await engine.complete(complete("x", "shout"))
        assert caught.value.kind is ErrorKind.UNAVAILABLE
    finally:
        await engine.stop()
        await runner.cleanup()


async def test_the_embedded_engine_has_all_that_embedded_engines_have():
    pytest.importorskip("llguidance", reason="the extra 'embedded' is not installed")
    module = importlib.import_module("added_alphabet")
    engine = module.AlphabetEngine(module.AlphabetOptions.parse({"kv_cache_gb": "0.001"}), "alphabet")
    others = set(psutil.Process().children())
    await engine.start()
    try:
        assert engine.capabilities.context_length == 2048
        answer = await engine.complete(complete("uvw", "alphabet", temperature=0))
        assert answer.choices[0].text == "xyz"
        assert answer.choices[0].finish_reason == "stop"
        # Rows behind one rubric, each as if alone, with the rubric computed once.
        rubric = "The alphabet goes on. " * 20
        rows = [complete(f"{rubric}{letter}", "alphabet", temperature=0, max_tokens=3) for letter in "abcdefgh" * 5]
        answers = await asyncio.gather(*map(engine.complete, rows))
        letters = "abcdefghijklmnop"
        assert [each.choices[0].text for each in answers] == [letters[i % 8 + 1 : i % 8 + 4] for i in range(40)]
        assert sorted(each.cached_tokens for each in answers)[1] >= len(rubric) // 16 * 16
        forced = await engine.complete(
            complete("a", "alphabet", temperature=0, structured_outputs={"regex": "bx+y"}, max_tokens=6)
        )
        assert forced.choices[0].text == "bxy"
        scores = await engine.score(LabelRequest("alphabet", "ab", ["cd", "dc"]))
        assert scores.logprobs[0] > -0.1 > scores.logprobs[1]
        (worker,) = set(psutil.Process().children()) - others
        os.kill(worker.pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            while engine.down_reason is None:
                await asyncio.sleep(0.01)
        assert (await engine.complete(complete("uvw", "alphabet", temperature=0))).choices[0].text == "xyz"
    finally:
        await engine.stop()
