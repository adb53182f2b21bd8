"""What the user chose for the vllm engine: its own options, and vLLM's."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gristmill.engines.openai_compatible.body_fields import BodyField, body_field, is_body_option
from gristmill.engines.openai_compatible.options import OpenAICompatibleOptions
from gristmill.engines.options import parse_options
from gristmill.user_error import UserError

#: What our end of the connection depends on.
_OURS = frozenset(
    {"api_key", "api_server_count", "config", "headless", "host", "model", "port", "root_path", "ssl_ca_certs",
     "ssl_certfile", "ssl_keyfile", "uds"}
)  # fmt: skip


class _OwnOptions(msgspec.Struct, frozen=True):
    #: Requests in flight; 0 finds out by trying how many pay.
    parallel: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 0
    #: Seconds that vLLM may take to load its model.
    start_timeout: Annotated[float, msgspec.Meta(gt=0)] = 1800.0


class VllmOptions(_OwnOptions, frozen=True):
    body_fields: tuple[BodyField, ...] = ()
    #: Of ``vllm serve``, by name; what there is, only vLLM itself knows.
    arguments: dict[str, str] = {}

    @staticmethod
    def parse(options: dict[str, str]) -> VllmOptions:
        """Raises UserError."""
        own = {name: value for name, value in options.items() if name in _OwnOptions.__struct_fields__}
        fields = tuple(body_field(name, value) for name, value in options.items() if is_body_option(name))
        arguments = {
            name.replace("-", "_"): value
            for name, value in options.items()
            if name not in own and not is_body_option(name)
        }
        if ours := sorted(arguments.keys() & _OURS):
            raise UserError(f"vLLM's option '{ours[0]}' is not yours to set here: leave it out.")
        if "hf_token" in arguments:
            # Command lines, and receipts of what was computed, are read by others.
            raise UserError("vLLM's option 'hf_token' would not stay secret: set HF_TOKEN in its environment instead.")
        parsed = parse_options(_OwnOptions, own, "vllm")
        return VllmOptions(parsed.parallel, parsed.start_timeout, fields, arguments)

    @property
    def gpus(self) -> float:
        """That vLLM computes on, unless it is built for CPUs. Raises UserError."""
        number = 1
        for name in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"):
            value = self.arguments.get(name, "1")
            if not value.isdecimal() or not int(value):
                raise UserError(f"vLLM's option '{name}' must be a number of GPUs, not '{value}'.")
            number *= int(value)
        return float(number)

    def command_line(self) -> list[str]:
        """As ``vllm serve`` takes them: true and false are flags."""
        written: list[str] = []
        for name, value in self.arguments.items():
            flag = name.replace("_", "-")
            match value:
                case "true":
                    written.append(f"--{flag}")
                case "false":
                    written.append(f"--no-{flag}")
                case _:
                    # One word: a value may begin with a dash.
                    written.append(f"--{flag}={value}")
        return written

    def asking(self) -> OpenAICompatibleOptions:
        """How its server is asked."""
        return OpenAICompatibleOptions(
            parallel=self.parallel, start_timeout=self.start_timeout, body_fields=self.body_fields
        )
