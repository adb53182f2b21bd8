"""What a pool is to be: of how many replicas, of which engine, where."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import msgspec

from gristmill import __version__
from gristmill.engines.options import parse_options
from gristmill.engines.vllm.options import VllmOptions
from gristmill.user_error import UserError

#: Engines that compute elsewhere, or not at all: their actors need no CPU of the cluster for themselves.
_COMPUTE_ELSEWHERE = frozenset({"ollama", "openai_compatible", "simulated"})
#: Engines in front of servers that several replicas may use: what breaks off at one may be the fault of another's rows.
_SHARED_SERVERS = frozenset({"ollama", "openai_compatible"})


class Bounds(NamedTuple):
    """So many replicas must be there to start with, and so many are wanted."""

    least: int
    most: int

    @staticmethod
    def parse(text: str) -> Bounds:
        """``4``, or ``2:8`` where a cluster may grow. Raises UserError."""
        first, colon, last = text.partition(":")
        try:
            bounds = Bounds(int(first), int(last if colon else first))
        except ValueError:
            bounds = Bounds(0, 0)
        if not 1 <= bounds.least <= bounds.most <= 10_000:
            raise UserError(
                f"'{text}' is no number of replicas: write --replicas 4, or 2:8 where the cluster may grow."
            )
        return bounds


class RayOptions(msgspec.Struct, frozen=True):
    """The pool's own options; all others go to the engine of the replicas."""

    #: How many replicas: "4", or "2:8".
    replicas: str = "1"
    #: The engine in each of them.
    replica_engine: str = ""
    #: host:port of the cluster's head, or "auto" for the cluster that this machine belongs to; a local one without it.
    ray_address: str = ""
    #: What Ray reserves for a replica. CPUs: one where the engine computes in the actor, otherwise none. GPUs: those
    #: that vLLM computes on, otherwise none.
    replica_cpus: float | None = None
    replica_gpus: float | None = None
    #: Leave the replicas running for the next run or server.
    keep_replicas: bool = False
    #: Seconds until the cluster must have had a place for as many replicas as are needed to start.
    placement_wait: float = 60.0

    @staticmethod
    def split(options: dict[str, str]) -> tuple[RayOptions, dict[str, str]]:
        """The pool's, and the replica engine's. Raises UserError."""
        own = {key: value for key, value in options.items() if key in RayOptions.__struct_fields__}
        parsed = parse_options(RayOptions, own, "ray")
        if not parsed.replica_engine:
            raise UserError("Say what answers in each replica: --engine ray --replica-engine NAME, such as llama_cpp.")
        if parsed.replica_engine in ("ray", "auto"):
            raise UserError(f"The replicas' engine cannot be '{parsed.replica_engine}': name the one that computes.")
        if parsed.ray_address.startswith("ray://"):
            raise UserError(
                f"'{parsed.ray_address}' is the address of Ray's client server: give the head's own, HOST:6379, on a "
                "machine that has joined the cluster (ray start --address HOST:6379 --num-cpus 0)."
            )
        rest = {key: value for key, value in options.items() if key not in own}
        if parsed.replica_engine == "vllm" and parsed.replica_gpus is None:
            parsed = msgspec.structs.replace(parsed, replica_gpus=VllmOptions.parse(rest).gpus)
        return parsed, rest

    @property
    def isolates(self) -> bool:
        """Whether a row can be alone at a replica while others go on."""
        return self.replica_engine not in _SHARED_SERVERS and Bounds.parse(self.replicas).most > 1

    @property
    def gpus(self) -> float:
        return self.replica_gpus or 0.0

    @property
    def cpus(self) -> float:
        if self.replica_cpus is not None:
            return self.replica_cpus
        return 0.0 if self.replica_engine in _COMPUTE_ELSEWHERE else 1.0


class ReplicaSettings(msgspec.Struct, frozen=True):
    """What an actor makes its engine of; plain values, so that another version of Gristmill can read them, too."""

    engine: str
    model: str | None
    url: str | None
    options: dict[str, str]
    cpus: float
    gpus: float
    row_tokens: int = 0

    @property
    def computes(self) -> bool:
        """Whether what it is asked can bring its own process down."""
        return self.engine not in _SHARED_SERVERS

    @property
    def pool(self) -> str:
        """The name that all replicas of these settings, and of this version, have in common."""
        written = msgspec.json.encode((__version__, msgspec.to_builtins(self)), order="deterministic")
        return f"gristmill-{hashlib.blake2b(written, digest_size=8).hexdigest()}"
