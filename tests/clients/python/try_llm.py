# /// script
# dependencies = ["llm==0.36"]
# ///
"""LLM (Simon Willison's)

In `extra-openai-models.yaml`: `model_id: gristmill`, `model_name: MODEL`, `api_base: http://127.0.0.1:4080/v1`, and
`supports_tools: true`, `supports_schema: true`; `responses: true` for the Responses API.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from calls import SERVERS, Server, call, check, run_calls

WEATHER = """
def get_weather(city: str) -> str:
    "The weather in a city."
    with open("asked", "w") as file:
        file.write(city)
    return "Sunny in " + city
"""


def configure() -> None:
    """Both servers, each as chat completions and as responses."""
    folder = Path("llm").absolute()
    folder.mkdir(exist_ok=True)
    os.environ["LLM_USER_PATH"] = str(folder)
    models = [
        {
            "model_id": name + suffix,
            "model_name": server.model,
            "api_base": server.url,
            "supports_tools": True,
            "supports_schema": True,
            "responses": bool(suffix),
        }
        for name, server in SERVERS.items()
        for suffix in ("", "-responses")
    ]
    # YAML is a superset of JSON.
    (folder / "extra-openai-models.yaml").write_text(json.dumps(models))


def llm(*arguments: str) -> str:
    done = subprocess.run(
        [Path(sys.executable).with_name("llm"), *arguments], capture_output=True, text=True, check=False
    )
    check(done.returncode == 0, done.stderr)
    return done.stdout


for kind, suffix in {"chat completions": "", "responses: true": "-responses"}.items():

    @call(f"{kind}: llm 'PROMPT' (streamed)", "embedded")
    def prompt(server: Server, suffix: str = suffix) -> None:
        told = llm("-m", "embedded" + suffix, "-o", "temperature", "0", "What is the capital of France?")
        check("Paris" in told, told)

    @call(f"{kind}: llm --no-stream", "embedded")
    def whole(server: Server, suffix: str = suffix) -> None:
        told = llm("-m", "embedded" + suffix, "--no-stream", "-o", "temperature", "0", "What is the capital of France?")
        check("Paris" in told, told)

    @call(f"{kind}: llm --schema", "embedded")
    def schema(server: Server, suffix: str = suffix) -> None:
        told = llm("-m", "embedded" + suffix, "--schema", "score int, good bool", "How good is a cook, from 0 to 10?")
        check(isinstance(json.loads(told)["score"], int), told)

    @call(f"{kind}: llm --functions (tools)")
    def tools(server: Server, suffix: str = suffix) -> None:
        Path("asked").unlink(missing_ok=True)
        told = llm("-m", "simulated" + suffix, "--functions", WEATHER, "What is the weather in Paris?")
        check(Path("asked").exists() and told.strip(), told)


if __name__ == "__main__":
    configure()
    run_calls()
