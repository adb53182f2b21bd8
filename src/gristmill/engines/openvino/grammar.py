"""Constrained output: which tokens a JSON schema, a regular expression or a choice allows next, and which it forces.

llguidance (https://github.com/guidance-ai/llguidance) compiles the grammars and follows them.
"""

from __future__ import annotations

import functools
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gristmill.engines.openvino.vocabulary import Vocabulary
from gristmill.engines.protocol import EngineError, ErrorKind, unsupported_parameter
from gristmill.engines.structured_outputs import Constraint
from gristmill.models.extra import require

#: Compact JSON, as OpenAI's structured outputs are: where whitespace is free, no byte of it could be forced.
#: A schema may say otherwise under "x-guidance".
_COMPACT = {"whitespace_flexible": False}


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
            reason = self._matcher.get_error().partition("\n<state>")[0]
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
    """Compiles grammars for one vocabulary, and keeps those that were used last: the rows of a batch share theirs."""

    def __init__(self, vocabulary: Vocabulary, ends: frozenset[int]) -> None:
        """``ends``: the token ids that may end an answer."""
        self._vocabulary = vocabulary
        self._ends = ends
        self._compile = functools.lru_cache(256)(self._compile_text)

    def read(self, constraint: Constraint) -> Grammar:
        """Raises EngineError (invalid request) with the compiler's reason."""
        try:
            return self._compile(self._text(constraint), constraint.param)
        except ValueError as error:
            message = f"Invalid value for '{constraint.param}': it cannot be made into a grammar: {error}"
            raise EngineError(
                ErrorKind.INVALID_REQUEST, message, param=constraint.param, code="invalid_value"
            ) from None

    def _text(self, constraint: Constraint) -> str:
        """The grammar in llguidance's own notation."""
        matcher = require("llguidance").LLMatcher
        text: str
        match constraint.kind:
            case "json":
                text = matcher.grammar_from_json_schema(constraint.value, defaults=_COMPACT)
            case "json_object":
                text = matcher.grammar_from_json_schema({"type": "object"}, defaults=_COMPACT)
            case "regex":
                text = matcher.grammar_from_regex(constraint.value)
            case "choice":
                # Texts in a Lark grammar are escaped as in JSON.
                texts = (msgspec.json.encode(text).decode() for text in constraint.value)
                text = matcher.grammar_from_lark("start: " + " | ".join(texts))
            case _:
                raise unsupported_parameter(constraint.param, "openvino")
        return text

    def _compile_text(self, text: str, param: str) -> Grammar:
        """Raises ValueError."""
        matcher = require("llguidance").LLMatcher(self._tokenizer, text)
        if matcher.is_error():
            raise ValueError(matcher.get_error())
        return Grammar(matcher, self._tokenizer.vocab_size, param)

    @functools.cached_property
    def _tokenizer(self) -> Any:
        # Made at the first grammar: for a large vocabulary it takes half a second.
        llguidance = require("llguidance")
        return llguidance.LLTokenizer(
            llguidance.TokenizerWrapper(_Tokenizer(self._vocabulary, self._ends)), eos_token=sorted(self._ends)
        )


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
        self._encode = functools.lru_cache(4096)(functools.partial(vocabulary.encode, special_tokens=False))

    def __call__(self, text: str) -> list[int]:
        if isinstance(text, bytes):
            # How llguidance finds out that it must give text.
            raise TypeError("text, not bytes")
        return self._encode(text)
