"""The engine's loop with prefixes on disk, over a pretended model that checks each KV state it is given."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from gristmill.engines.answer_frames import Done
from gristmill.engines.embedded.generation import Generation, GenerationRequest
from gristmill.engines.embedded.kv.forked_memory import Forget, Fork, ForkedMemory
from gristmill.engines.embedded.kv.paged_memory import Copy, PagedMemory
from gristmill.engines.embedded.model_runner import Span
from gristmill.engines.embedded.prefix_files import prefix_keeper, shared_prefixes
from gristmill.engines.embedded.prefix_files.kv_transfer import KvTransfer
from gristmill.engines.embedded.prefix_files.prefix_file import Slice
from gristmill.engines.embedded.prefix_files.prefix_folder import prefix_files, prefixes_folder
from gristmill.engines.embedded.sampler import Sampling
from gristmill.engines.embedded.scheduling.engine_loop import EngineLoop
from gristmill.engines.embedded.scheduling.sequence import Sequence
from gristmill.engines.embedded.scheduling.step_abort import StepAbort, StepAborted
from gristmill.engines.embedded.worker.frames import FromWorker, KeepPrefixes, PrefixRead

SIZE = 4
TOKENS = 64


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "cache"))
    for module in (prefix_keeper, shared_prefixes):
        monkeypatch.setattr(module, "LEAST_TOKENS", 8)
    # As a slow disk would have it: a slice a step.
    monkeypatch.setattr(prefix_keeper, "_TURN_SECONDS", 1e-9)


def next_state(before: int, token: int) -> int:
    return (before * 1_000_003 + token + 1) % (2**31 - 1)


def next_token(states: list[int]) -> int:
    """It depends on the KV state of every token before."""
    return sum(states) * 31 % TOKENS


def answer(prompt: list[int], tokens: int) -> list[int]:
    states: list[int] = []
    said: list[int] = []
    for _ in range(tokens):
        for token in [*prompt, *said][len(states) :]:
            states.append(next_state(states[-1] if states else 0, token))
        said.append(next_token(states))
    return said


class PretendModel:
    """A token's KV state is a number. Steps are aborted, and slices refused, at random."""

    kv_format = "pretended"
    slice_tokens = 2 * SIZE

    def __init__(self, blocks: int, chance: random.Random) -> None:
        self._blocks = blocks
        self._kept = np.zeros((blocks, SIZE), np.int64)
        self._chance = chance
        self.computed = 0

    def new_memory(self) -> PagedMemory:
        return PagedMemory(SIZE, self._blocks)

    def make_moves(self, moves: list[Copy]) -> None:
        for source, target in moves:
            self._kept[target] = self._kept[source]

    def forward(self, spans: list[Span[list[int]]], abort: StepAbort) -> np.ndarray:
        assert spans
        logits = []
        for span in spans:
            states = self._kept[span.place].reshape(-1)[: span.past].tolist()
            for offset, token in enumerate(span.tokens):
                states.append(next_state(states[-1] if states else 0, token))
                if offset in span.samples:
                    logits.append(np.eye(TOKENS, dtype=np.float32)[next_token(states)])
            for at in range(span.past, len(states)):
                self._kept[span.place[at // SIZE], at % SIZE] = states[at]
        if self._chance.random() < 0.05:
            for span in spans:
                for at in range(span.past, span.past + len(span.tokens)):
                    self._kept[span.place[at // SIZE], at % SIZE] = -1
            raise StepAborted
        self.computed += sum(len(span.tokens) for span in spans)
        return np.array(logits, np.float32).reshape(-1, TOKENS)

    def export_kv(self, place: list[int], begin: int, end: int) -> bytes:
        return self._kept[place].reshape(-1)[begin:end].tobytes()

    def import_kv(self, place: list[int], piece: Slice, begin: int, end: int) -> None:
        if self._chance.random() < 0.02:
            raise ValueError("it is refused")
        states = np.frombuffer(piece.data, np.int64)
        assert piece.begin <= begin < end <= piece.end and len(states) == piece.end - piece.begin
        for at in range(begin, end):
            assert states[at - piece.begin] > 0
            self._kept[place[at // SIZE], at % SIZE] = states[at - piece.begin]


class PretendForks:
    """The same, where sequences are forked."""

    kv_format = "pretended"
    slice_tokens = 8

    def __init__(self, blocks: int, chance: random.Random) -> None:
        self._cells = blocks * SIZE
        self._states: dict[int, list[int]] = {}
        self._chance = chance
        self.computed = 0

    def new_memory(self) -> ForkedMemory:
        return ForkedMemory(self._cells, 8)

    def make_moves(self, moves: list[Fork | Forget]) -> None:
        for move in moves:
            if isinstance(move, Fork):
                assert not self._states.get(move.target) and len(self._states[move.source]) >= move.tokens
                self._states[move.target] = self._states[move.source][: move.tokens]
            else:
                self._states[move.sequence] = self._states.get(move.sequence, [])[: move.start]

    def forward(self, spans: list[Span[int]], abort: StepAbort) -> np.ndarray:
        assert spans
        logits = []
        aborted = self._chance.random() < 0.05
        for span in spans:
            states = self._states.setdefault(span.place, [])
            assert len(states) == span.past
            for offset, token in enumerate(span.tokens):
                states.append(-1 if aborted else next_state(states[-1] if states else 0, token))
                if offset in span.samples:
                    logits.append(np.eye(TOKENS, dtype=np.float32)[next_token(states)])
        if aborted:
            raise StepAborted
        self.computed += sum(len(span.tokens) for span in spans)
        return np.array(logits, np.float32).reshape(-1, TOKENS)

    def export_kv(self, place: int, begin: int, end: int) -> bytes:
        if self._chance.random() < 0.02:
            raise ValueError("it has gone")
        return np.array(self._states[place][begin:end], np.int64).tobytes()

    def import_kv(self, place: int, piece: Slice, begin: int, end: int) -> None:
        if self._chance.random() < 0.05:
            raise MemoryError
        states = self._states.setdefault(place, [])
        assert len(states) == begin
        states += np.frombuffer(piece.data, np.int64)[begin - piece.begin : end - piece.begin].tolist()


class Vocabulary:
    token_bytes = tuple(bytes([token + 32]) for token in range(TOKENS))
    special: frozenset[int] = frozenset()

    def special_text(self, token: int) -> bytes:
        return b""


class Engine:
    def __init__(
        self,
        blocks: int,
        chance: random.Random,
        rows: int = 4,
        keep: str | None = "model",
        model: type[PretendModel | PretendForks] = PretendModel,
    ) -> None:
        self.model = model(blocks, chance)
        self.frames: list[FromWorker] = []
        self.loop = EngineLoop(self.model, Vocabulary(), frozenset(), 24, rows, self.frames.append)  # type: ignore[arg-type]
        if keep is not None:
            self.loop.keep_prefixes(KeepPrefixes(keep, "pretended", 2**20))

    def enter(self, number: int, prompt: list[int], tokens: int, choices: int = 1, interactive: bool = False) -> None:
        sampling = Sampling(temperature=0)
        generations = [
            Generation(Sequence(prompt, None, interactive), sampling, tokens, [], None) for _ in range(choices)
        ]
        self.loop.enter(GenerationRequest(number, "pretended", False, generations))

    def run(self) -> None:
        for _ in range(5_000):
            if not self.loop.busy:
                return
            self.loop.step()
        raise AssertionError("it does not come to an end")

    def done(self) -> dict[int, Done]:
        return {frame.id: frame for frame in self.frames if isinstance(frame, Done)}

    def read(self) -> list[int]:
        return [frame.tokens for frame in self.frames if isinstance(frame, PrefixRead)]


def spelled(tokens: list[int]) -> str:
    return "".join(chr(token + 32) for token in tokens)


def rubric(number: int, tokens: int = 30) -> list[int]:
    chance = random.Random(number)
    return [chance.randrange(TOKENS) for _ in range(tokens)]


def no_chance() -> random.Random:
    chance = random.Random()
    chance.random = lambda: 1.0  # type: ignore[method-assign]
    return chance


def run_rows(engine: Engine, shared: list[int], rows: range) -> list[int | None]:
    """How many tokens of each row were cached, one row after the other."""
    for row in rows:
        engine.enter(row, [*shared, row % TOKENS, 1, 2, 3, 4, 5], 2)
        engine.run()
    return [engine.done()[row].completion.cached_tokens for row in rows]


def test_a_model_that_exports_its_state_is_known_by_its_methods() -> None:
    assert isinstance(PretendModel(1, no_chance()), KvTransfer)


@pytest.mark.parametrize("model", [PretendModel, PretendForks])
def test_a_prefix_that_rows_share_is_there_for_the_next_process(model: type[PretendModel | PretendForks]) -> None:
    first = Engine(64, no_chance(), model=model)
    assert run_rows(first, rubric(1), range(6)) == [0, 30, 30, 30, 30, 30]
    second = Engine(64, no_chance(), model=model)
    assert run_rows(second, rubric(1), range(6, 9)) == [30, 30, 30]
    assert second.model.computed == 3 * (6 + 1)
    assert second.read() == [30]


def test_other_models_do_not_read_it() -> None:
    run_rows(Engine(64, no_chance()), rubric(1), range(6))
    assert run_rows(Engine(64, no_chance(), keep="another"), rubric(1), range(6, 8)) == [0, 30]


def test_what_was_pushed_out_of_memory_is_read_back() -> None:
    engine = Engine(24, no_chance())
    run_rows(engine, rubric(1), range(6))
    run_rows(engine, rubric(2), range(6, 12))
    run_rows(engine, rubric(3), range(12, 18))
    computed = engine.model.computed
    assert run_rows(engine, rubric(1), range(18, 20)) == [30, 30]
    assert engine.model.computed - computed == 2 * (6 + 1)


def test_of_choices_and_interactive_requests_nothing_is_kept() -> None:
    engine = Engine(64, no_chance())
    engine.enter(1, rubric(1), 2, choices=4)
    engine.run()
    for row in range(2, 9):
        engine.enter(row, [*rubric(2), row], 2, interactive=True)
        engine.run()
    assert prefix_files(prefixes_folder()) == []


def test_rows_that_share_a_beginning_with_what_is_on_disk_use_that() -> None:
    run_rows(Engine(64, no_chance()), rubric(1), range(6))
    engine = Engine(64, no_chance())
    assert run_rows(engine, [*rubric(1)[:21], 60, 61, 62, 63], range(6, 8)) == [21, 25]


def test_a_row_that_needs_all_memory_comes_before_what_is_being_written() -> None:
    """What is held for the disk is let go rather than that a row waits for ever."""
    engine = Engine(12, no_chance(), rows=1)
    for row in range(4):
        engine.enter(row, [*rubric(1), row, 1, 2], 2)
    long = rubric(9, 44)
    engine.enter(9, long, 4)
    engine.run()
    assert engine.done()[9].completion.choices[0].text == spelled(answer(long, 4))


@pytest.mark.parametrize("model", [PretendModel, PretendForks])
@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_every_answer_is_as_if_computed_alone(
    seed: int, model: type[PretendModel | PretendForks]
) -> None:
    """Engines one after the other in too little memory; aborted steps, cancelled rows, damaged and vanished files."""
    chance = random.Random(seed)
    for _ in range(4):
        engine = Engine(chance.randrange(16, 40), chance, rows=chance.randrange(1, 5), model=model)
        wanted: dict[int, tuple[list[int], int]] = {}
        cancelled = set()
        for number in range(30):
            shared = rubric(chance.randrange(3), chance.choice((20, 30)))
            prompt = [*shared, *(chance.randrange(TOKENS) for _ in range(chance.randrange(1, 12)))]
            wanted[number] = (prompt, chance.randrange(1, 6))
            engine.enter(number, *wanted[number], interactive=chance.random() < 0.2)
            for _ in range(chance.randrange(6)):
                if engine.loop.busy:
                    engine.loop.step()
            if chance.random() < 0.1:
                cancelled.add(number)
                engine.loop.cancel(number)
            if chance.random() < 0.15:
                spoil_a_file(chance)
        engine.run()
        done = engine.done()
        for number, (prompt, tokens) in wanted.items():
            if number in done:
                assert done[number].completion.choices[0].text == spelled(answer(prompt, tokens))
            else:
                assert number in cancelled
        check_memory(engine.loop.scheduler.memory)


def spoil_a_file(chance: random.Random) -> None:
    kept = prefix_files(prefixes_folder())
    if not kept:
        return
    path = chance.choice(kept).path
    if chance.random() < 0.3:
        path.unlink()
        return
    content = bytearray(path.read_bytes())
    place = chance.randrange(len(content))
    if chance.random() < 0.5:
        path.write_bytes(content[:place])
    else:
        content[place] ^= 1 << chance.randrange(8)
        path.write_bytes(content)


def check_memory(memory: PagedMemory | ForkedMemory) -> None:
    """Nothing is held any more."""
    assert memory._held == {}
    if isinstance(memory, PagedMemory):
        assert memory.pool.free + memory.tree.nodes == memory.tokens // SIZE
