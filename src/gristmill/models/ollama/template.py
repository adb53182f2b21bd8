"""The template of an Ollama model: the prompt of a chat, as Ollama would write it.

Rules: https://github.com/ollama/ollama/blob/main/template/template.go.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from typing import Any, NamedTuple

from gristmill.models.ollama.go_template.execution import GoTemplate
from gristmill.models.ollama.go_template.nodes import (
    Action,
    Branch,
    Call,
    Command,
    Field,
    Pipeline,
    Text,
    Tree,
    Variable,
)
from gristmill.models.ollama.go_template.values import JsonList, JsonMap, NilList, Struct
from gristmill.models.ollama.tool_values import PROPERTY, tool_value, typescript_type


class TemplateCall(NamedTuple):
    """Of a tool, made in an earlier message."""

    id: str
    name: str
    arguments: dict[str, Any]


class TemplateMessage(NamedTuple):
    """``tool_name`` and ``tool_call_id`` of a message of the role tool say what it answers."""

    role: str
    content: str
    thinking: str = ""
    calls: tuple[TemplateCall, ...] = ()
    tool_name: str = ""
    tool_call_id: str = ""


class OllamaTemplate:
    """``names`` are those of fields and variables in it, in small letters: what it knows of. ``thinks``: it has a place
    for a message's thoughts."""

    def __init__(self, source: str) -> None:
        """Raises TemplateError."""
        self._template = GoTemplate(source, _FUNCTIONS)
        tree = self._template.tree
        self.names = _names(tree)
        if not self.names & {"messages", "response"}:
            tree.body.append(Action(Pipeline([Command([Field(["Response"])], 0)])))
        self._opening = Tree(_until_response(tree.body), tree.defined)
        tags = _Tags(tree.body)
        self.thinks = bool(tags.opening and tags.closing)

    @property
    def takes_messages(self) -> bool:
        """A template that does not is of the old kind: it is executed for each question and answer by itself."""
        return "messages" in self.names

    def render(self, messages: Sequence[TemplateMessage], tools: Sequence[dict[str, Any]] = ()) -> str:
        """``tools`` as in a request. The prompt ends where the answer begins. A model that can think is told not to.
        Raises TemplateError."""
        system, collated = _collate(messages)
        thinking = {"Think": False, "ThinkLevel": "", "IsThinkSet": self.thinks}
        if self.takes_messages:
            values: dict[str, Any] = {
                "System": system,
                "Messages": [_message_value(message) for message in collated],
                "Tools": JsonList(map(tool_value, tools)) if tools else None,
                "Response": "",
            }
            return self._template.execute(values | thinking)
        return "".join(self._old_prompt(collated, thinking))

    def _old_prompt(self, messages: Sequence[TemplateMessage], thinking: dict[str, Any]) -> Iterator[str]:
        """A part for each question with its answer; of the last, what comes before the answer."""
        part = {"System": "", "Prompt": "", "Response": ""}
        for message in messages:
            ended = message.role == "user" and part["Response"]
            ended = ended or (message.role == "system" and (part["Prompt"] or part["Response"]))
            if ended:
                yield self._template.execute(part | thinking)
                part = dict.fromkeys(part, "")
            match message.role:
                case "system":
                    part["System"] = message.content
                case "user":
                    part["Prompt"] = message.content
                case "assistant":
                    part["Response"] = message.content
        yield self._template.execute(part | thinking, self._opening)


def _date(days_ago: int) -> Callable[..., str]:
    # It takes a format, and ignores it, as Ollama does.
    return lambda *form: str(date.today() - timedelta(days=days_ago))


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "currentDate": _date(0),
    "yesterdayDate": _date(1),
    "toTypeScriptType": lambda value: (
        typescript_type(value) if isinstance(value, Struct) and value.tags is PROPERTY else "any"
    ),
}


def _collate(messages: Sequence[TemplateMessage]) -> tuple[str, list[TemplateMessage]]:
    """All system messages as one text; and the messages, those of one role that follow each other as one."""
    collated: list[TemplateMessage] = []
    for message in messages:
        last = collated[-1] if collated else None
        if last is not None and last.role == message.role != "tool":
            collated[-1] = last._replace(content=f"{last.content}\n\n{message.content}")
        else:
            collated.append(message)
    return "\n\n".join(message.content for message in messages if message.role == "system"), collated


def _message_value(message: TemplateMessage) -> Struct:
    calls = [
        Struct(
            {
                "ID": call.id,
                "Function": Struct({"Index": index, "Name": call.name, "Arguments": go_map(call.arguments)}),
            }
        )
        for index, call in enumerate(message.calls)
    ]
    return Struct(
        {
            "Role": message.role,
            "Content": message.content,
            "Thinking": message.thinking,
            "Images": NilList(),
            "ToolCalls": calls,
            "ToolName": message.tool_name,
            "ToolCallID": message.tool_call_id,
        }
    )


def go_map(value: dict[str, Any]) -> JsonMap:
    return JsonMap({name: go_value(each) for name, each in value.items()})


def go_value(value: Any) -> Any:
    """What Go reads of JSON: its numbers are all floats."""
    if isinstance(value, dict):
        return {name: go_value(each) for name, each in value.items()}
    if isinstance(value, list):
        return [go_value(each) for each in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


# What a template consists of, as Ollama looks at it.


def _names(tree: Tree) -> frozenset[str]:
    found = [name for body in (tree.body, *tree.defined.values()) for node in body for name in _identifiers(node)]
    return frozenset(name.lower() for name in found)


def _identifiers(node: Any) -> list[str]:
    match node:
        case Action(pipe=Pipeline() as pipe):
            return _identifiers(pipe)
        case Call(pipe=pipe):
            return _identifiers(pipe) if pipe is not None else []
        case Branch(pipe=pipe, body=body, otherwise=otherwise):
            return [name for each in (pipe, *body, *(otherwise or ())) for name in _identifiers(each)]
        case Pipeline(commands=commands):
            return [name for command in commands for word in command.words for name in _identifiers(word)]
        case Field(names=names):
            return names
        case Variable(name=name, names=names):
            return [name, *names]
    return []


class _Cut:
    """Takes everything behind the first use of ``.Response`` out of a body."""

    def __init__(self) -> None:
        self._passed = False

    def body(self, nodes: list[Any]) -> list[Any]:
        return [kept for node in nodes if (kept := self._node(node)) is not None]

    def _node(self, node: Any) -> Any:
        if isinstance(node, Field) and "Response" in node.names:
            self._passed = True
            return node
        if self._passed:
            return None
        match node:
            case Branch():
                node.body = self.body(node.body)
                if node.otherwise is not None:
                    node.otherwise = self.body(node.otherwise)
            case Action():
                node.pipe.commands = self._commands(node.pipe.commands)
                if not node.pipe.commands:
                    return None
        return node

    def _commands(self, commands: list[Command]) -> list[Command]:
        kept: list[Command] = []
        for command in commands:
            command.words = [word for each in command.words if (word := self._word(each)) is not None]
            if not command.words:
                return []
            kept.append(command)
        return kept

    def _word(self, word: Any) -> Any:
        if isinstance(word, Pipeline) and not self._passed:
            word.commands = self._commands(word.commands)
            return word if word.commands else None
        return self._node(word)


def _until_response(body: list[Any]) -> list[Any]:
    return _Cut().body(copy.deepcopy(body))


class _Tags:
    """What stands around a message's thoughts, as ``InferTags`` in Ollama's thinking/template.go guesses it; empty
    where there is none."""

    def __init__(self, body: list[Any]) -> None:
        self.opening = self.closing = ""
        self._look(body, in_messages=False)

    def _look(self, body: list[Any], in_messages: bool) -> None:
        for node in body:
            if isinstance(node, Action | Branch) and in_messages and _uses(node.pipe, "Thinking"):
                first, last = body[0], body[-1]
                self.opening = first.text.strip() if isinstance(first, Text) else self.opening
                self.closing = last.text.strip() if isinstance(last, Text) else self.closing
            if isinstance(node, Branch):
                inner = _uses(node.pipe, "Messages") if node.keyword == "range" else in_messages
                self._look(node.body, inner)
                self._look(node.otherwise or [], inner)


def _uses(pipe: Pipeline, name: str) -> bool:
    """Whether a field of the values, or of a message, begins with ``name``."""
    return any(
        (isinstance(word, Field) and word.names[0] == name) or (isinstance(word, Pipeline) and _uses(word, name))
        for command in pipe.commands
        for word in command.words
    )
