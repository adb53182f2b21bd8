"""How model families write calls of tools, told from a chat template's own text. Pure.

Only what a model's template shows of its calls is relied on:

- Hermes, Qwen 2.5 and 3: https://huggingface.co/NousResearch/Hermes-2-Pro-Llama-3-8B#prompt-format-for-function-calling
- Llama 3.1 and later: https://www.llama.com/docs/model-cards-and-prompt-formats/llama3_1/#json-based-tool-calling
- Mistral: https://docs.mistral.ai/guides/tokenization/
"""

from __future__ import annotations

import re
from typing import NamedTuple


class ToolFormat(NamedTuple):
    """Calls are ``opening``, then each ``before_name``, the name, ``after_name``, the arguments as a JSON object and
    ``after_arguments``, with ``between`` between two of them, then ``closing``.

    ``trigger`` is how the first begins: what no text for the user holds. ``alone``: they are the whole answer; else
    text may come before. ``between`` is None where an answer holds one call only.
    """

    name: str
    trigger: str
    before_name: str
    after_name: str
    after_arguments: str
    opening: str = ""
    between: str | None = None
    closing: str = ""
    alone: bool = False

    @property
    def beginning(self) -> str:
        """All that comes before the first name."""
        return self.opening + self.before_name

    @property
    def marks(self) -> tuple[str, ...]:
        """What in it may be a special token of the vocabulary."""
        return tuple(mark for mark in _MARKS if mark in "".join((*self[1:5], self.opening, self.closing)))


_TOOLS = re.compile(r"\btools\b")
_MARKS = ("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]")

HERMES = ToolFormat(
    "hermes", "<tool_call>", '<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>", between="\n"
)
LLAMA = ToolFormat("llama", "{", '{"name": "', '", "parameters": ', "}", alone=True)
MISTRAL = ToolFormat(
    "mistral", "[TOOL_CALLS]", '{"name": "', '", "arguments": ', "}", "[TOOL_CALLS][", between=", ", closing="]"
)
MISTRAL_SPACED = MISTRAL._replace(name="mistral-spaced", opening="[TOOL_CALLS] [")
MISTRAL_ARGS = ToolFormat("mistral-args", "[TOOL_CALLS]", "[TOOL_CALLS]", "[ARGS]", "", between="")


def format_of(template: str) -> ToolFormat | None:
    """By a Jinja template's text; None where it puts no tools into prompts, or writes calls in none of these ways."""
    return written_format(template) if _TOOLS.search(template) else None


def written_format(template: str) -> ToolFormat | None:
    """Of a template, in whatever language, that puts tools into prompts."""
    if "[TOOL_CALLS]" in template and "[CALL_ID]" not in template:
        if "[ARGS]" in template:
            return MISTRAL_ARGS
        return MISTRAL_SPACED if "[TOOL_CALLS] [" in template else MISTRAL
    # Qwen 3 Coder writes "<function=name>" within the same marks.
    if "<tool_call>" in template and "<function=" not in template and '"arguments"' in template:
        return HERMES
    if '"parameters": ' in template and "ipython" in template:
        return LLAMA
    return None
