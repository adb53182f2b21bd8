"""Our attention kernel against attention written out, and the plan that tells it what to read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.engines.embedded.kv.paged_memory import Copy
from gristmill.engines.embedded.model_runner import Span
from gristmill.engines.embedded.openvino import attention_kernel
from gristmill.engines.embedded.openvino.attention_kernel import (
    BLOCK_SIZE,
    CHUNK_BLOCKS,
    AttentionShape,
    Kernel,
    KernelMissingError,
    load_kernel,
)
from gristmill.engines.embedded.openvino.attention_plan import plan_attention
from gristmill.engines.embedded.openvino.paged_model import PagedModel
from gristmill.engines.embedded.openvino.prepare import prepare
from gristmill.engines.embedded.openvino.shared_attention import SharedAttention
from gristmill.models.locate import locate


@st.composite
def steps(draw):
    """Spans as a scheduler makes them: some share a prefix, or a prefix of a prefix; each has blocks of its own."""
    free = iter(range(10_000))
    prefix = [next(free) for _ in range(draw(st.integers(0, 4)))]
    longer = prefix + [next(free) for _ in range(draw(st.integers(0, 3)))]
    spans = []
    for _ in range(draw(st.integers(1, 9))):
        shared = draw(st.sampled_from([[], prefix, longer]))
        past = len(shared) * BLOCK_SIZE + draw(st.integers(0, 70))
        count = draw(st.one_of(st.just(1), st.integers(1, 90)))
        own = -(-(past + count) // BLOCK_SIZE) - len(shared)
        spans.append(Span([0] * count, past, shared + [next(free) for _ in range(own)], ()))
    return spans


def visible_slots(plan, place):
    """The slots that the token at ``place`` of the plan attends to, in order."""
    for first_run, end_run, first_block, shared in plan.tiles:
        for begin, end, own_block, visible in plan.runs[first_run:end_run]:
            if begin <= place < end:
                own = visible + place - begin
                blocks = [*plan.blocks[first_block : first_block + shared], *plan.blocks[own_block:]]
                return [blocks[i // BLOCK_SIZE] * BLOCK_SIZE + i % BLOCK_SIZE for i in range(shared * BLOCK_SIZE + own)]
    raise AssertionError(f"no tile has token {place}")


@given(steps(), st.integers(1, 64))
@settings(max_examples=200, deadline=None)
def test_every_token_is_planned_once_and_sees_exactly_its_past(spans, tile_tokens):
    plan = plan_attention(spans, BLOCK_SIZE, tile_tokens, CHUNK_BLOCKS)
    assert sorted(plan.order.tolist()) == list(range(sum(len(span.tokens) for span in spans)))
    expected = []
    for span in spans:
        slots = [block * BLOCK_SIZE + i for block in span.place for i in range(BLOCK_SIZE)]
        expected += [slots[: span.past + i + 1] for i in range(len(span.tokens))]
    for place, token in enumerate(plan.order.tolist()):
        assert visible_slots(plan, place) == expected[token]
        assert plan.slots[token] == expected[token][-1]
    for first_run, end_run, _, shared in plan.tiles:
        assert shared % CHUNK_BLOCKS == 0
        assert 0 < plan.runs[end_run - 1][1] - plan.runs[first_run][0] <= tile_tokens


def test_rows_of_one_prefix_share_a_tile_and_rows_of_another_do_not():
    one, other = list(range(50)), list(range(100, 150))
    spans = [
        Span([0], 1600, [*prefix, 200 + i], ()) for i, prefix in enumerate([one, other] * 8)
    ]  # arrivals of two prefixes, interleaved
    plan = plan_attention(spans, BLOCK_SIZE, 64, CHUNK_BLOCKS)
    # Of 50 blocks, whole chunks.
    assert [tile[3] for tile in plan.tiles.tolist()] == [48, 48]


@pytest.fixture(scope="module")
def library() -> Kernel:
    try:
        return load_kernel()
    except KernelMissingError as error:
        pytest.skip(f"install a C compiler to run this: {error}")


@given(
    steps(),
    st.sampled_from([(9, 3, 64), (4, 4, 32), (4, 4, 96), (8, 1, 128), (2, 1, 256), (4, 1, 256)]),
    st.one_of(st.just(0), st.sampled_from([1, 31, 32, 33, 64, 77, 1000]), st.integers(1, 200)),
    st.sampled_from([0.0, 3.0, 50.0]),
    st.integers(0, 2**32),
)
@settings(max_examples=120, deadline=None)
def test_the_kernel_computes_attention(library, spans, heads, window, cap, seed):
    """Within a window, a token sees itself and those before it up to so many in all, as transformers masks
    (``sliding_window_overlay``: key > query - window)."""
    query_heads, kv_heads, dim = heads
    random = np.random.default_rng(seed)
    used = sorted({block for span in spans for block in span.place})
    place = {block: i for i, block in enumerate(used)}
    spans = [span._replace(place=[place[block] for block in span.place]) for span in spans]
    shape = AttentionShape(query_heads, kv_heads, dim, dim**-0.5, cap)
    kv_bytes = len(used) * 2 * 2 * BLOCK_SIZE * kv_heads * dim * 4
    attention = SharedAttention(library, shape, [0, window], kv_bytes, threads=2)
    keys, values = random.normal(0, 2, (2, len(used) * BLOCK_SIZE, kv_heads, dim)).astype(np.float32)
    # Everything that was computed in earlier steps.
    everything = [Span([0] * BLOCK_SIZE, i * BLOCK_SIZE, list(range(len(used))), ()) for i in range(len(used))]
    attention.prepare(everything)
    ignored = np.empty((len(keys), query_heads * dim), np.float32)
    attention.run(1, np.zeros_like(ignored), keys.reshape(len(keys), -1), values.reshape(len(keys), -1), ignored)
    # This step's keys and values are new, and overwrite what stood in their slots.
    attention.prepare(spans)
    tokens = sum(len(span.tokens) for span in spans)
    queries = random.normal(0, 2, (tokens, query_heads, dim)).astype(np.float32)
    new_keys, new_values = random.normal(0, 2, (2, tokens, kv_heads, dim)).astype(np.float32)
    out = np.empty((tokens, query_heads * dim), np.float32)
    flat = [each.reshape(tokens, -1) for each in (queries, new_keys, new_values)]
    attention.run(1, *flat, out)
    begin = 0
    for span in spans:
        slots = np.array([block * BLOCK_SIZE + i for block in span.place for i in range(BLOCK_SIZE)])
        for i in range(len(span.tokens)):
            keys[slots[span.past + i]] = new_keys[begin + i]
            values[slots[span.past + i]] = new_values[begin + i]
            position = span.past + i
            seen = slots[max(0, position - window + 1) if window else 0 : position + 1]
            for head in range(query_heads):
                kv_head = head * kv_heads // query_heads
                scores = keys[seen, kv_head].astype(np.float64) @ queries[begin + i, head] * dim**-0.5
                scores = cap * np.tanh(scores / cap) if cap else scores
                weights = np.exp(scores - scores.max())
                expected = weights @ values[seen, kv_head] / weights.sum()
                np.testing.assert_allclose(
                    out[begin + i].reshape(query_heads, dim)[head], expected, rtol=2e-4, atol=2e-5
                )
        begin += len(span.tokens)


@given(
    steps(),
    st.sampled_from([(9, 3, 64), (4, 4, 32), (8, 1, 128), (4, 1, 256)]),
    st.one_of(st.just(0), st.sampled_from([1, 31, 32, 33, 64, 77, 1000]), st.integers(1, 200)),
    st.sampled_from([0.0, 50.0]),
    st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_a_token_gets_the_same_bits_alone_and_beside_others(library, spans, heads, window, cap, seed):
    query_heads, kv_heads, dim = heads
    random = np.random.default_rng(seed)
    used = sorted({block for span in spans for block in span.place})
    place = {block: i for i, block in enumerate(used)}
    spans = [span._replace(place=[place[block] for block in span.place]) for span in spans]
    kv_bytes = len(used) * 2 * BLOCK_SIZE * kv_heads * dim * 4
    shape = AttentionShape(query_heads, kv_heads, dim, dim**-0.5, cap)
    attention = SharedAttention(library, shape, [window], kv_bytes, threads=2)
    # Spread so far that most of what a token sees weighs next to nothing, as 2^-126 would.
    attention._keys[:] = random.normal(0, 6, attention._keys.shape)
    attention._values[:] = random.normal(0, 2, attention._values.shape)
    tokens = sum(len(span.tokens) for span in spans)
    queries = random.normal(0, 6, (tokens, query_heads * dim)).astype(np.float32)
    keys, values = random.normal(0, 6, (2, tokens, kv_heads * dim)).astype(np.float32)
    together = np.empty_like(queries)
    attention.prepare(spans)
    attention.run(0, queries, keys, values, together)
    begin = 0
    for span in spans:
        for i in range(len(span.tokens)):
            one = slice(begin + i, begin + i + 1)
            alone = np.empty((1, query_heads * dim), np.float32)
            attention.prepare([span._replace(tokens=[0], past=span.past + i)])
            attention.run(0, queries[one], keys[one], values[one], alone)
            assert alone.tobytes() == together[one].tobytes()
        begin += len(span.tokens)


def test_without_a_compiler_the_reason_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(KernelMissingError, match="install gcc"):
        load_kernel()


def test_a_compiler_that_fails_is_named_with_what_it_said(monkeypatch, tmp_path):
    broken = tmp_path / "broken-cc"
    broken.write_text("#!/bin/sh\necho 'no such thing' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CC", str(broken))
    with pytest.raises(KernelMissingError, match="no such thing"):
        load_kernel()
    assert not list((tmp_path / "cache" / "kernels").iterdir())


def test_a_compiler_that_cannot_be_read_is_said(monkeypatch):
    monkeypatch.setenv("CC", "'cc")
    with pytest.raises(KernelMissingError, match="CC cannot be read"):
        load_kernel()


def compiled(folder: Path) -> Path:
    (kept,) = (folder / "kernels").iterdir()
    return kept / "attention.so"


def test_a_kernel_is_compiled_once(library, monkeypatch, tmp_path):
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "cache"))
    assert load_kernel().notice == ""
    kept = compiled(tmp_path / "cache")
    before = kept.stat().st_mtime_ns
    assert load_kernel().notice == ""
    assert kept.stat().st_mtime_ns == before
    assert Path(attention_kernel.__file__).with_name("attention.c").is_file()


def test_the_compiled_kernel_is_for_its_user_alone(library, monkeypatch, tmp_path):
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "cache"))
    load_kernel()
    made = [tmp_path / "cache", *(tmp_path / "cache").rglob("*")]
    assert len(made) == 5
    for path in made:
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("damage", ["changed", "cut short", "without its digest"])
def test_a_kernel_that_is_not_what_was_compiled_is_compiled_again(library, monkeypatch, tmp_path, damage):
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "cache"))
    load_kernel()
    kept = compiled(tmp_path / "cache")
    right = kept.read_bytes()
    if damage == "changed":
        # Written anew: this process has the old one mapped.
        kept.unlink()
        kept.write_bytes(right + b"more")
    elif damage == "cut short":
        kept.unlink()
        kept.write_bytes(right[:1000])
    else:
        kept.with_name("sha256").unlink()
    kernel = load_kernel()
    assert "compiled again" in kernel.notice
    assert kernel.library.attend
    assert compiled(tmp_path / "cache").read_bytes() == right
    assert load_kernel().notice == ""


def test_a_kernel_is_not_loaded_from_where_others_can_write(library, monkeypatch, tmp_path):
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "cache"))
    load_kernel()
    kept = compiled(tmp_path / "cache")
    kept.unlink()
    kept.write_bytes(b"")
    (tmp_path / "cache" / "kernels").chmod(0o777)
    kernel = load_kernel()
    assert kernel.library.attend
    assert "not this user's alone" in kernel.notice
    assert kept.read_bytes() == b""


def test_both_kernels_give_the_model_the_same_answers(library, pulled_model):
    pytest.importorskip("openvino", reason="pip install 'gristmill[embedded]' to run this")
    folder = prepare(locate(pulled_model), "f16").folder
    random = np.random.default_rng(3)
    prefix = random.integers(100, 40_000, 150).tolist()
    tails = [random.integers(100, 40_000, count).tolist() for count in (1, 40, 70)]
    found = []
    for attention in ("shared", "openvino"):
        model = PagedModel(folder, 2**28, attention=attention)
        assert not model.notices
        size = model.block_size
        model.forward([Span(prefix, 0, list(range(5)), ())])
        # The prefix ends within its fifth block, which each row gets a copy of.
        rows = [
            Span(tail, 150, [*range(4), *range(10 * i, 10 * i + 4)], (len(tail) - 1,))
            for i, tail in enumerate(tails, 1)
        ]
        for row in rows:
            model.make_moves([Copy(4, row.place[150 // size])])
        first = model.forward(rows).copy()
        second = [Span([7], 150 + len(row.tokens), row.place, (0,)) for row in rows]
        found.append(np.concatenate([first, model.forward(second)]))
    np.testing.assert_allclose(found[0], found[1], atol=2e-3)


def test_without_a_kernel_the_engine_runs_on_openvinos_and_says_why(monkeypatch, tmp_path, pulled_model):
    pytest.importorskip("openvino", reason="pip install 'gristmill[embedded]' to run this")
    folder = prepare(locate(pulled_model), "f16").folder
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    model = PagedModel(folder, 2**28)
    (notice,) = model.notices
    assert "no C compiler was found" in notice
    assert np.isfinite(model.forward([Span([1, 2, 3], 0, [0], (2,))])).all()


def test_running_does_not_grow_the_memory_of_the_process(library, pulled_model):
    folder, _ = prepare(locate(pulled_model), "f16")
    model = PagedModel(folder, 2**28)
    step = [Span(list(range(32)), 0, [0], (31,))]

    def memory_after(steps: int) -> int:
        for _ in range(steps):
            model.forward(step)
        return psutil.Process().memory_info().rss

    before = memory_after(10)
    # Clones of the attention nodes that are never freed would be 16 MB.
    assert memory_after(50) - before < 4e6


def test_a_model_that_is_gone_leaves_no_memory_behind(library, pulled_model):
    folder, _ = prepare(locate(pulled_model), "f16")

    def memory_after_another() -> int:
        model = PagedModel(folder, 2**28)
        model.forward([Span(list(range(32)), 0, [0], (31,))])
        del model
        return psutil.Process().memory_info().rss

    before = memory_after_another()
    # Its weights and its KV cache are 700 MB.
    assert memory_after_another() - before < 100e6
