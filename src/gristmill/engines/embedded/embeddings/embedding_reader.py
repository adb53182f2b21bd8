"""From a request for embeddings to token ids, checked against the model's limits."""

from __future__ import annotations

from gristmill.engines.embedded.embeddings.embedding import EmbeddingTask
from gristmill.engines.embedded.embeddings.embedding_runner import LoadedEmbedder
from gristmill.engines.errors import input_too_long, invalid_value, unsupported_endpoint
from gristmill.engines.request_frames import AnySubmit, Submit, SubmitEmbedding
from gristmill.wire.paths import CHAT, COMPLETIONS, EMBEDDINGS, SCORE

#: Bytes of a text for each token of the model's context, above which it is refused without being tokenized, which takes
#: a second for each megabyte. Text has about four a token; but what a tokenizer makes little of (spaces, a word of a
#: thousand letters) is for it to count.
MOST_BYTES_A_TOKEN = 256


class EmbeddingReader:
    """For one model. Safe from several threads."""

    def __init__(self, model: LoadedEmbedder) -> None:
        self._model = model

    def read(self, submit: AnySubmit) -> EmbeddingTask:
        """Raises EngineError (invalid request)."""
        if not isinstance(submit, SubmitEmbedding):
            writes = (CHAT if submit.chat is not None else COMPLETIONS) if isinstance(submit, Submit) else SCORE
            raise unsupported_endpoint(writes, "embedded", [EMBEDDINGS])
        if submit.dimensions is not None:
            self._model.cuts.check(submit.dimensions, self._model.runner.size)
        inputs = [self._tokens(text) for text in submit.texts or []] or submit.tokens or []
        longest = self._model.context_length
        for tokens in inputs:
            if not tokens:
                raise invalid_value("input", "An input has no tokens: leave it out.")
            if len(tokens) > longest:
                raise input_too_long(longest, len(tokens))
        self._check_ids(submit.tokens or [])
        return EmbeddingTask(
            submit.id, submit.model, inputs, submit.dimensions, self._model.normalised, submit.interactive
        )

    def _tokens(self, text: str) -> list[int]:
        try:
            size, most = len(text.encode()), self._model.context_length * MOST_BYTES_A_TOKEN
            if size > most:
                raise input_too_long(self._model.context_length, size=size)
            return self._model.encoder.encode(text, special_tokens=True)
        except UnicodeEncodeError:
            raise invalid_value("input", "An input holds half of a surrogate pair, which is no character.") from None

    def _check_ids(self, inputs: list[list[int]]) -> None:
        size = self._model.encoder.size
        if any(not 0 <= token < size for tokens in inputs for token in tokens):
            raise invalid_value("input", f"An input of token ids must be integers from 0 to {size - 1}.")
