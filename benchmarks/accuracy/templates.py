"""Write ``tests/engines/embedded/chat_templates.json``: what transformers makes of conversations, by each template in
``tests/engines/embedded/chat_templates``.

    python benchmarks/accuracy/templates.py

It needs transformers (the tests do not). SmolLM2's template is its own (Apache-2.0); the others are written in the
manner of well-known ones.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import jinja2
import tokenizers
import transformers

TESTS = Path(__file__).resolve().parents[2] / "tests" / "engines" / "embedded"

SYSTEM = {"role": "system", "content": " You grade answers.\n"}
USER = {"role": "user", "content": "What is 2 + 2?"}
CONVERSATIONS: dict[str, list[dict[str, str]]] = {
    "user": [USER],
    "system and user": [SYSTEM, USER],
    "several turns": [SYSTEM, USER, {"role": "assistant", "content": "4"}, {"role": "user", "content": "Sure?"}],
    "without system": [USER, {"role": "assistant", "content": " Four. "}, {"role": "user", "content": "Why?"}],
    "thought": [
        USER,
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\n4"},
        {"role": "user", "content": "Really?"},
    ],
    "unicode": [
        {"role": "system", "content": "Antworte auf Deutsch — bitte! 🙂"},
        {
            "role": "user",
            "content": "日本語, العربية, naïve \u00a0 \u2028 'quotes' \"double\" <b>&amp;</b> {{ braces }} {% if %}",
        },
    ],
    "empty": [{"role": "system", "content": ""}, {"role": "user", "content": ""}],
    "whitespace": [{"role": "user", "content": "\n\n  indented\ttabs \n trailing  \n"}],
    "tool results": [
        USER,
        {"role": "assistant", "content": "I add."},
        {"role": "tool", "content": '{"sum": 4}', "tool_call_id": "call_1"},
        {"role": "tool", "content": "4", "tool_call_id": "call_2"},
    ],
    "named": [{"role": "user", "content": "Hi", "name": "Ada"}, {"role": "assistant", "content": "Hi", "name": "Bot"}],
    "two users": [USER, {"role": "user", "content": "STOP"}, USER],
    "begun": [SYSTEM, USER, {"role": "assistant", "content": "Score: "}],
    "begun in the middle": [USER, {"role": "assistant", "content": '{"score":'}],
    "begun with nothing": [USER, {"role": "assistant", "content": ""}],
    "only an assistant": [{"role": "assistant", "content": "Hello"}],
}
OPTIONS: list[dict[str, bool]] = [
    {"add_generation_prompt": True, "continue_final_message": False},
    {"add_generation_prompt": False, "continue_final_message": False},
    {"add_generation_prompt": False, "continue_final_message": True},
]


def render(tokenizer: Any, template: str, messages: list[dict[str, str]], options: dict[str, bool]) -> dict[str, Any]:
    try:
        return {"prompt": tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **options)}
    except jinja2.TemplateError as error:
        return {"refusal": str(error)}
    except ValueError as error:
        assert "continue_final_message is set but" in str(error)
        return {"cannot_continue": True}


def main() -> None:
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizers.models.BPE()), bos_token="<s>", eos_token="</s>"
    )
    files = sorted((TESTS / "chat_templates").glob("*.jinja"))
    cases = [
        {
            "template": file.stem,
            "conversation": name,
            **options,
            **render(tokenizer, file.read_text(), messages, options),
        }
        for file, (name, messages), options in itertools.product(files, CONVERSATIONS.items(), OPTIONS)
    ]
    fixture = {"transformers": transformers.__version__, "conversations": CONVERSATIONS, "cases": cases}
    path = TESTS / "chat_templates.json"
    path.write_text(json.dumps(fixture, indent=1, ensure_ascii=False) + "\n")
    print(f"{path}: {len(cases)} cases, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
