"""``gristmill completion``: what a shell offers when Tab is pressed.

The scripts hand over the words up to the cursor, and get suggestions back, a line each with a tab before what it is;
the last line says whether names of files are wanted besides.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from gristmill.user_error import UserError


class Suggestion(NamedTuple):
    value: str
    about: str = ""


class Suggestions(NamedTuple):
    """``files``: names of files fit, too."""

    suggestions: list[Suggestion]
    files: bool = False


def complete(root: Any, words: Sequence[str], current: str, values: dict[str, Callable[[], list[str]]]) -> Suggestions:
    """``words`` are those between the command and ``current``, at whose end the cursor is. ``root`` is the command as
    typer made it; ``values`` gives the values of options and arguments, by their names."""
    command, given, expects = _walk(root, words)
    if expects is not None:
        return _values(expects, current, "", values)
    name, equals, value = current.partition("=")
    if current.startswith("-"):
        if equals:
            named = _option(command, name)
            return _values(named, value, f"{name}=", values) if named is not None else Suggestions([])
        options = [
            Suggestion(each, _summary(param))
            for param in command.params
            if param.param_type_name == "option" and not getattr(param, "hidden", False)
            for each in (*param.opts, *param.secondary_opts)
        ]
        options.append(Suggestion("--help", "Show what it does."))
        return Suggestions([each for each in options if each.value.startswith(current)])
    if hasattr(command, "commands"):
        found = [Suggestion(name, _summary(each)) for name, each in command.commands.items() if not each.hidden]
        return Suggestions([each for each in found if each.value.startswith(current)])
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    if not arguments or (given >= len(arguments) and arguments[-1].nargs != -1):
        return Suggestions([])
    return _values(arguments[min(given, len(arguments) - 1)], current, "", values)


def _walk(command: Any, words: Sequence[str]) -> tuple[Any, int, Any]:
    """The innermost command, how many arguments it has been given, and the option whose value comes next, if any."""
    given, expects = 0, None
    for word in words:
        if expects is not None:
            expects = None
        elif word.startswith("-") and word != "-":
            param = _option(command, word)
            expects = param if param is not None and not param.is_flag else None
        elif word in getattr(command, "commands", {}):
            command, given = command.commands[word], 0
        else:
            given += 1
    return command, given, expects


def _option(command: Any, name: str) -> Any:
    return next((param for param in command.params if name in (*param.opts, *param.secondary_opts)), None)


def _values(param: Any, current: str, before: str, values: dict[str, Callable[[], list[str]]]) -> Suggestions:
    known = values.get(param.name, list)()
    found = [Suggestion(before + value) for value in known if value.startswith(current)]
    return Suggestions(found, files=not known or param.name in ("model", "tokenizer", "name"))


def _summary(thing: Any) -> str:
    """The first sentence of its help."""
    text = " ".join((getattr(thing, "help", None) or "").split())
    return text.partition(". ")[0].rstrip(".")


def _engines() -> list[str]:
    from gristmill.engines.registry import ENGINES

    return list(ENGINES)


def _models() -> list[str]:
    from gristmill.models.describe import known_models

    return [row.name for row in known_models()]


def _pulled_models() -> list[str]:
    from gristmill.models.describe import known_models

    return [row.name for row in known_models() if row.pulled]


def _strategies() -> list[str]:
    from gristmill.bench.strategies import STRATEGIES

    return [each.name for each in STRATEGIES]


def _endpoints() -> list[str]:
    from gristmill.inference.endpoints import ENDPOINTS

    return list(ENDPOINTS)


#: By the name of an option or argument. Nothing here asks a server: a Tab must not wait for one.
VALUES: dict[str, Callable[[], list[str]]] = {
    "engine": _engines,
    "escalate_engine": _engines,
    "model": _pulled_models,
    "tokenizer": _pulled_models,
    "name": _models,
    "log_level": lambda: ["debug", "info", "warning", "error"],
    "method": lambda: ["labels", "generate"],
    "strategies": _strategies,
    "endpoint": _endpoints,
    "shell": lambda: ["bash", "zsh", "fish"],
}

_BASH = """\
_gristmill() {
    local IFS=$'\\n' lines current=${COMP_WORDS[COMP_CWORD]}
    [[ $current == [=:] ]] && current=
    lines=($(gristmill completion bash --line "${COMP_LINE:0:COMP_POINT}" 2>/dev/null))
    local count=${#lines[@]}
    (( count )) || return
    COMPREPLY=("${lines[@]:0:count-1}")
    if [[ ${lines[count-1]} == files ]]; then
        compopt -o filenames 2>/dev/null
        COMPREPLY+=($(compgen -f -- "$current"))
    fi
}
complete -F _gristmill gristmill
"""

_ZSH = """\
#compdef gristmill
_gristmill() {
    local -a lines suggestions
    local line
    lines=("${(@f)$(gristmill completion zsh --words -- "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
    for line in "${(@)lines[1,-2]}"; do
        suggestions+=("${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}")
    done
    (( $#suggestions )) && _describe gristmill suggestions
    if [[ $lines[-1] == files ]]; then
        compset -P '--*='
        _files
    fi
}
if (( ! $+functions[compdef] )); then
    autoload -Uz compinit && compinit
fi
compdef _gristmill gristmill
"""

_FISH = """\
function __gristmill_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l lines (gristmill completion fish --words -- $words[2..] "$current" 2>/dev/null)
    test (count $lines) -gt 1; and printf '%s\\n' $lines[1..-2]
    test "$lines[-1]" = files; and __fish_complete_path "$current"
end
complete -c gristmill -f -a '(__gristmill_complete)'
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def completion(
    context: typer.Context,
    shell: Annotated[str, typer.Argument(help="bash, zsh or fish; else the one in $SHELL.")] = "",
    words: Annotated[bool, typer.Option("--words", hidden=True)] = False,
    line: Annotated[str | None, typer.Option(hidden=True)] = None,
    typed: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
) -> None:
    """Print what makes Tab complete commands, options, engines and models.

    For a shell's settings file: eval "$(gristmill completion bash)", the same with zsh, and for fish: gristmill
    completion fish | source.
    """
    shell = shell or Path(os.environ.get("SHELL", "")).name
    if shell not in SCRIPTS:
        what = f"There is no completion for '{shell}'. Name" if shell else "Name your shell,"
        raise UserError(f"{what} one of: {', '.join(SCRIPTS)}.")
    root = context.find_root().command
    if line is not None:
        before, current = split_line(line)
        _print(trimmed(complete(root, before, current, VALUES), current), about=False)
    elif words:
        *before, current = typed or [""]
        _print(complete(root, before, current, VALUES), about=True)
    else:
        sys.stdout.write(SCRIPTS[shell])


def split_line(line: str) -> tuple[list[str], str]:
    """The words of a command line behind the command itself; the last one is what the cursor is at, perhaps empty."""
    try:
        words = shlex.split(line)
    except ValueError:
        words = line.split()
    if not words or line[-1:].isspace():
        words.append("")
    return words[1:-1], words[-1] if len(words) > 1 else ""


def trimmed(found: Suggestions, current: str) -> Suggestions:
    """For bash, which takes what is behind the last colon or equals sign for the word."""
    at = max(current.rfind(":"), current.rfind("=")) + 1
    return found._replace(suggestions=[each._replace(value=each.value[at:]) for each in found.suggestions])


def _print(found: Suggestions, about: bool) -> None:
    lines: Iterable[str] = (f"{each.value}\t{each.about}" if about else each.value for each in found.suggestions)
    sys.stdout.write("".join(f"{line}\n" for line in (*lines, "files" if found.files else "none")))
