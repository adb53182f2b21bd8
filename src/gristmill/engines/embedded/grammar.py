"""Constrained output: which tokens a JSON schema, a regular expression or a choice allows next, and which it forces.

llguidance (https://github.com/guidance-ai/llguidance) compiles the grammars and follows them.
"""

from __future__ import annotations

import functools
import math
import threading
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gristmill.engines.embedded.model_runner import Vocabulary
from gristmill.engines.embedded.tokenizer import TextCache
from gristmill.engines.embedded.tools.tool_format import ToolFormat
from gristmill.engines.embedded.tools.tool_grammar import text_grammar, tool_grammar
from gristmill.engines.errors import EngineError, ErrorKind, invalid_value, unsupported_parameter
from gristmill.engines.structured_outputs import Constraint, invalid
from gristmill.engines.tools.offer import Offer
from gristmill.extras import require

#: Compact JSON, as OpenAI's structured outputs are: where whitespace is free, no byte of it could be forced.
#: A schema may say otherwise under "x-guidance".
_COMPACT = {"whitespace_flexible": False}
#: How large a grammar may be: llguidance's time grows with the square of it, half a second here.
MOST_CHOICES = 1000
MOST_BYTES = 128 * 1024
#: A fifth of llguidance's own: it holds Python's global lock for as long as it follows what a grammar forces, and a
#: grammar of 15 characters may force a hundred thousand tokens.
_LEXER_FUEL = 200_000
#: The least common multiple of a schema's ``multipleOf``: the compiler builds a state for each remainder.
MOST_REMAINDERS = 10_000
#: Bytes of the grammars' texts that are kept compiled, and of forced texts whose tokens are.
_KEPT_GRAMMARS = 2 * 2**20
_KEPT_FORCED = 4 * 2**20
#: Offers of tools whose grammars' texts are kept, of ``MOST_BYTES`` each at most.
_KEPT_TOOL_TEXTS = 16
#: Compilers repeat what they were given; no more of it than this goes into an error.
_REASON_CHARS = 500


class _AskedTools:
    """What the text of a grammar depends on; two are equal where their keys are."""

    def __init__(self, key: bytes, offer: Offer, form: ToolFormat, content: str | None) -> None:
        self._key = key
        self.offer = offer
        self.form = form
        self.content = content

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _AskedTools) and self._key == other._key


class Matcher:
    """Where one answer stands in its grammar."""

    def __init__(self, matcher: Any, vocabulary_size: int, param: str) -> None:
        """``param``: the parameter that asked for the grammar, for errors."""
        self._matcher = matcher
        self._size = vocabulary_size
        self._param = param

    @property
    def finished(self) -> bool:
        """Whether nothing can follow but the end of the answer."""
        stopped: bool = self._matcher.is_stopped()
        return stopped

    def forced(self) -> list[int]:
        """The tokens that must come next, as the model's tokenizer would split their text. None is entered yet."""
        tokens: list[int] = self._matcher.compute_ff_tokens()
        return tokens

    def allowed(self) -> NDArray[np.bool_]:
        """Shape (vocabulary,). Raises EngineError when the grammar has become too complex to follow."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        return np.unpackbits(bits, bitorder="little")[: self._size].view(np.bool_)

    def accept(self, token: int) -> None:
        """Enter a token that ``allowed`` or ``forced`` named. Raises EngineError as ``allowed`` does."""
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            # After the reason, llguidance prints its state.
            reason = _clip(self._matcher.get_error().partition("\n<state>")[0])
            message = f"The grammar of '{self._param}' is too complex to be followed to the answer's end: {reason}"
            raise EngineError(ErrorKind.INVALID_REQUEST, message, param=self._param, code="grammar_too_complex")


class Grammar:
    """A compiled grammar, from which every answer gets a matcher of its own."""

    def __init__(self, start: Any, vocabulary_size: int, param: str) -> None:
        self._start = start
        self._size = vocabulary_size
        self._param = param

    def matcher(self) -> Matcher:
        return Matcher(self._start.deep_copy(), self._size, self._param)


class Grammars:
    """Compiles grammars for one vocabulary, and keeps those that were used last: the rows of a batch share theirs.
    Safe from several threads."""

    def __init__(self, vocabulary: Vocabulary, ends: frozenset[int]) -> None:
        """``ends``: the token ids that may end an answer."""
        self._vocabulary = vocabulary
        self._ends = ends
        self._special = {
            vocabulary.special_text(token).decode("utf-8", "replace"): token for token in vocabulary.special
        }
        self._compiled = TextCache(self._compile, _KEPT_GRAMMARS)
        # Of sixty tools it takes some 20 ms to write.
        self._tool_text = functools.lru_cache(_KEPT_TOOL_TEXTS)(self._write_tools)
        self._lock = threading.Lock()
        self._made: Any = None

    def read(self, constraint: Constraint) -> Grammar:
        """Raises EngineError (invalid request) with the compiler's reason, or the limit that the grammar exceeds."""
        _check_size(constraint)
        if constraint.kind == "json":
            _check_remainders(constraint)
        try:
            return Grammar(self._compiled(self._text(constraint)), self._tokenizer.vocab_size, constraint.param)
        except ValueError as error:
            raise _no_grammar(constraint.param, str(error)) from None

    def of_tools(self, offer: Offer, form: ToolFormat, content: Constraint | None) -> Grammar:
        """Of an answer that may, or must, call the tools of the offer; ``content`` constrains an answer that calls
        none. Raises EngineError as ``read`` does, about the first tool that no grammar can be made of."""
        said = None if content is None else self._embedded(content)
        functions = [each.function for each in offer.callable]
        key = msgspec.json.encode((functions, offer.forced, offer.several, form, said))
        text = self._tool_text(_AskedTools(key, offer, form, said))
        try:
            return Grammar(self._compiled(text), self._tokenizer.vocab_size, offer.param)
        except ValueError as error:
            reason, param = str(error), offer.param
        for each in offer.callable:
            try:
                self._compiled(tool_grammar(offer._replace(forced=True), [each], form, self._marks(form)))
            except ValueError as error:
                reason, param = str(error), each.param
                break
        raise _no_grammar(param, reason)

    def without_calls(self, form: ToolFormat) -> Grammar:
        """Of free text that calls nothing."""
        text = text_grammar(form, self._marks(form))
        return Grammar(self._compiled(text), self._tokenizer.vocab_size, "tool_choice")

    def marks(self, form: ToolFormat) -> dict[int, bytes]:
        """What a format's calls are marked with, where it is special tokens, which are else not seen in the answer."""
        return {token: mark.encode() for mark, token in self._marks(form).items()}

    def _marks(self, form: ToolFormat) -> dict[str, int]:
        return {mark: self._special[mark] for mark in form.marks if mark in self._special}

    def _write_tools(self, asked: _AskedTools) -> str:
        offer = asked.offer
        text = tool_grammar(offer, offer.callable, asked.form, self._marks(asked.form), asked.content)
        if len(text) > MOST_BYTES:
            raise invalid(offer.param, f"may have {MOST_BYTES:,} bytes as a grammar, not {len(text):,}")
        for each in offer.callable:
            _check_remainders(Constraint("json", each.function.parameters, each.param))
        return text

    def _embedded(self, constraint: Constraint) -> str:
        """A constraint as a part of a larger grammar."""
        match constraint.kind:
            case "json":
                options = _COMPACT | {"lenient": True} if constraint.lenient else _COMPACT
                return f"%json {msgspec.json.encode(constraint.value | {'x-guidance': options}).decode()}"
            case "json_object":
                return f"%json {msgspec.json.encode({'type': 'object', 'x-guidance': _COMPACT}).decode()}"
        raise invalid(constraint.param, "cannot be combined with tools that may be called")

    def _text(self, constraint: Constraint) -> str:
        """The grammar in llguidance's own notation."""
        matcher = require("llguidance").LLMatcher
        text: str
        match constraint.kind:
            case "json":
                defaults = _COMPACT | {"lenient": True} if constraint.lenient else _COMPACT
                text = matcher.grammar_from_json_schema(
                    msgspec.json.encode(constraint.value).decode(), defaults=defaults
                )
            case "json_object":
                text = matcher.grammar_from_json_schema({"type": "object"}, defaults=_COMPACT)
            case "regex":
                text = matcher.grammar_from_regex(constraint.value)
            case "choice":
                # Texts in a Lark grammar are escaped as in JSON.
                texts = (msgspec.json.encode(text).decode() for text in constraint.value)
                text = matcher.grammar_from_lark("start: " + " | ".join(texts))
            case _:
                raise unsupported_parameter(constraint.param, "embedded")
        return text

    def _compile(self, text: str) -> Any:
        """Raises ValueError."""
        llguidance = require("llguidance")
        limits = llguidance.LLParserLimits(initial_lexer_fuel=_LEXER_FUEL)
        matcher = llguidance.LLMatcher(self._tokenizer, text, log_level=0, limits=limits)
        if matcher.is_error():
            raise ValueError(matcher.get_error())
        return matcher

    @property
    def _tokenizer(self) -> Any:
        # Made at the first grammar: for a large vocabulary it takes half a second.
        with self._lock:
            if self._made is None:
                llguidance = require("llguidance")
                wrapper = llguidance.TokenizerWrapper(_Tokenizer(self._vocabulary, self._ends))
                self._made = llguidance.LLTokenizer(wrapper, eos_token=sorted(self._ends))
            return self._made


def _no_grammar(param: str, reason: str) -> EngineError:
    message = f"Invalid value for '{param}': it cannot be made into a grammar: {_clip(reason)}"
    return invalid_value(param, message)


def _check_size(constraint: Constraint) -> None:
    if constraint.kind == "choice" and len(constraint.value) > MOST_CHOICES:
        raise invalid(constraint.param, f"may list {MOST_CHOICES:,} texts, not {len(constraint.value):,}")
    try:
        size = len(msgspec.json.encode(constraint.value))
    except RecursionError:
        raise invalid(constraint.param, "is nested too deeply") from None
    except UnicodeEncodeError:
        raise invalid(constraint.param, "holds half of a surrogate pair, which is no character") from None
    if size > MOST_BYTES:
        raise invalid(constraint.param, f"may have {MOST_BYTES:,} bytes as JSON, not {size:,}")


def _check_remainders(constraint: Constraint) -> None:
    multiple, found = 1, [constraint.value]
    while found:
        each = found.pop()
        if isinstance(each, dict):
            found += each.values()
            multiple = math.lcm(multiple, _divisor(each.get("multipleOf")))
        elif isinstance(each, list):
            found += each
        if multiple > MOST_REMAINDERS:
            must = f"has a least common multiple of {multiple:,} in its 'multipleOf'; {MOST_REMAINDERS:,} is the most"
            raise invalid(constraint.param, must)


def _divisor(found: Any) -> int:
    """As the compiler takes it: 0.25 is 25 hundredths."""
    if not isinstance(found, int | float) or isinstance(found, bool) or not math.isfinite(found):
        return 1
    return int("".join(map(str, Decimal(str(found)).normalize().as_tuple().digits))) or 1


def _clip(reason: str) -> str:
    # A panic comes with its backtrace.
    reason = reason.partition("<backtrace>")[0].strip()
    return reason if len(reason) <= _REASON_CHARS else f"{reason[:_REASON_CHARS]}..."


class _Tokenizer:
    """The vocabulary under the names that llguidance reads, https://github.com/guidance-ai/llguidance."""

    def __init__(self, vocabulary: Vocabulary, ends: frozenset[int]) -> None:
        self.eos_token_id = min(ends)
        self.bos_token_id = None
        self.special_token_ids = sorted(vocabulary.special | ends)
        self.tokens = [
            vocabulary.special_text(token) if token in vocabulary.special | ends else piece
            for token, piece in enumerate(vocabulary.token_bytes)
        ]
        # Forced texts are the same in every row, and a call of the tokenizer costs half a millisecond.
        self._encode = TextCache(functools.partial(vocabulary.encode, special_tokens=False), _KEPT_FORCED)

    def __call__(self, text: str) -> list[int]:
        if isinstance(text, bytes):
            # How llguidance finds out that it must give text.
            raise TypeError("text, not bytes")
        return self._encode(text)
