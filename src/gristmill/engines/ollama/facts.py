"""What the server tells of itself and of the model, and what follows from it. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from gristmill.engines.ollama.settings import OllamaOptions
from gristmill.engines.ollama.wire import Options, RunningModel, Show
from gristmill.user_error import UserError
from gristmill.wire.paths import CHAT, COMPLETIONS, EMBEDDINGS

#: `truncate` (0.12.6) and log-probabilities (0.12.11) of the native API.
OLDEST = (0, 12, 11)
#: The one release whose prompt_eval_count leaves out cached tokens (since 0.2.0 it includes them).
_MISCOUNTING = (0, 30, 0)
#: From here on answers say how many prompt tokens were cached.
_REPORTS_CACHED = (0, 33, 3)

#: Ollama's own num_ctx on GPUs below 23 GiB.
USUAL_NUM_CTX = 4096
#: What an estimate is rounded up to, so that jobs of about the same length load the model alike.
_STEP = 1024
#: A model that is to stay for ever has an expiry centuries away (2319 in the recording).
_FOREVER_YEAR = 2100


class ModelDetails(NamedTuple):
    """``stops`` are the Modelfile's own, which a request's would replace. Lengths in tokens; None: not told.
    ``abilities`` are the capabilities as Ollama names them."""

    context_length: int | None
    sliding_window: int | None
    num_ctx: int | None
    stops: tuple[str, ...]
    thinks: bool
    abilities: frozenset[str] | None = None

    @property
    def endpoints(self) -> frozenset[str]:
        # Of servers that do not tell, every model is taken for one that generates.
        abilities = self.abilities if self.abilities is not None else {"completion"}
        text = {CHAT, COMPLETIONS} if "completion" in abilities else set()
        return frozenset(text | ({EMBEDDINGS} if "embedding" in abilities else set()))


def check_version(version: str) -> bool:
    """Whether it reports cached tokens. Raises UserError for a version the engine cannot rely on."""
    numbers = re.match(r"v?(\d+)\.(\d+)\.(\d+)", version)
    if numbers is None:
        return False
    known = tuple(map(int, numbers.groups()))
    if known == (0, 0, 0):  # a build from source
        return False
    if known < OLDEST:
        raise UserError(
            f"Ollama {version} is too old: it cuts long prompts without saying so. "
            f"Update it to {'.'.join(map(str, OLDEST))} or newer (https://ollama.com/download)."
        )
    if known == _MISCOUNTING:
        raise UserError(f"Ollama {version} miscounts prompt tokens: update it (https://ollama.com/download).")
    return known >= _REPORTS_CACHED


def full_name(model: str) -> str:
    """A name without a tag means the tag ``latest``; server names are listed in full."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


def find_running(models: list[RunningModel], model: str) -> RunningModel | None:
    return next((each for each in models if full_name(each.name) == full_name(model)), None)


def stays_forever(running: RunningModel) -> bool:
    year = running.expires_at[:4]
    return year.isdigit() and int(year) >= _FOREVER_YEAR


def model_facts(show: Show, model: str) -> ModelDetails:
    """Raises UserError for a model that neither generates text nor embeds it."""
    if show.capabilities is not None and not {"completion", "embedding"} & set(show.capabilities):
        can = ", ".join(show.capabilities) or "nothing"
        raise UserError(
            f"The model '{model}' can neither generate text nor embed it (Ollama says it can: {can}): choose another."
        )
    parameters = [line.split(None, 1) for line in show.parameters.splitlines() if len(line.split(None, 1)) == 2]
    contexts = [value for name, value in parameters if name == "num_ctx" and value.isdigit()]
    return ModelDetails(
        context_length=_info(show, "context_length"),
        sliding_window=_info(show, "attention.sliding_window"),
        num_ctx=int(contexts[-1]) if contexts else None,
        stops=tuple(_unquoted(value) for name, value in parameters if name == "stop"),
        thinks="thinking" in (show.capabilities or ()),
        abilities=None if show.capabilities is None else frozenset(show.capabilities),
    )


def choose_num_ctx(chosen: int, facts: ModelDetails, running: RunningModel | None, row_tokens: int = 0) -> int:
    """The context to load the model with, in tokens.

    The user's choice; else what the model is loaded with now, if that is no less than usual (other clients stay
    undisturbed); else the Modelfile's ``PARAMETER num_ctx``; else 4096, Ollama's own choice on small GPUs. What the
    longest row needs (``row_tokens``, rounded up) raises all but the user's choice. Never more than the model was
    trained for, as Ollama would quietly reduce it. Raises UserError where the choice is too large.
    """
    most = facts.context_length
    if chosen:
        if most is not None and chosen > most:
            raise UserError(f"num_ctx={chosen} is more than the model can take: choose at most {most}.")
        return chosen
    needed = -(-row_tokens // _STEP) * _STEP
    usual = max(USUAL_NUM_CTX, needed)
    usual = min(usual, most or usual)
    if running is not None and (running.context_length or 0) >= usual:
        return running.context_length or usual
    wanted = max(facts.num_ctx, needed) if facts.num_ctx else usual
    return min(wanted, most or wanted)


def runner_options(options: OllamaOptions, num_ctx: int) -> Options:
    """The frozen set: what every request of the run carries, the loading and the restoring one included."""
    return Options(
        num_ctx=num_ctx,
        num_batch=options.num_batch or None,
        num_gpu=None if options.num_gpu < 0 else options.num_gpu,
        num_thread=options.num_thread or None,
    )


def _info(show: Show, ending: str) -> int | None:
    """A whole number of model_info, whose names begin with the architecture: ``llama.context_length``."""
    architecture = show.model_info.get("general.architecture")
    value = show.model_info.get(f"{architecture}.{ending}")
    return value if isinstance(value, int) and value > 0 else None


def _unquoted(value: str) -> str:
    """A value that stands in quotes, as stop strings do, is a string literal with escapes."""
    value = value.strip()
    if value[:1] != '"':
        return value
    try:
        return msgspec.json.decode(value, type=str)
    except msgspec.MsgspecError:
        return value.strip('"')
