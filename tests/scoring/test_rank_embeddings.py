"""Guesses from embeddings: by a real encoder whose vectors numpy knows, resumed after a kill, on a server, and what
cannot work."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

pytest.importorskip("sklearn", reason="pip install 'gristmill[score]' to run this")
numpy = pytest.importorskip("numpy", reason="pip install 'gristmill[score]' to run this")

import gristmill  # noqa: E402 - needs what may not be there
import tiny_bert  # noqa: E402
from gristmill.scoring.frames import backend_on  # noqa: E402
from gristmill.scoring.questionnaire import Questionnaire  # noqa: E402
from gristmill.scoring.rank.embeddings_proxy import EmbeddingsProxy  # noqa: E402
from gristmill.scoring.rank.proxies import Pilot  # noqa: E402
from gristmill.scoring.rank.row_vectors import RowVectors  # noqa: E402
from gristmill.scoring.scale import of_numbers  # noqa: E402
from gristmill.user_error import UserError  # noqa: E402
from server_process import ServerProcess  # noqa: E402

JUDGE = gristmill.EngineSettings("simulated", options={"scored_by": "worth:"})
OPTIONS = gristmill.ScoreOptions(id_column="id")


def asked_about(texts: list[str]) -> Questionnaire:
    options = gristmill.ScoreOptions(row="{{ text }}")
    return Questionnaire(pl.DataFrame({"text": texts}), "Score.", of_numbers(range(11)), options, backend_on(JUDGE))


def frame_of(rows: int) -> pl.DataFrame:
    """What the score goes by can be told by the words."""
    draw = random.Random(rows)
    worth = [draw.random() for _ in range(rows)]
    words = [" ".join("flour" if draw.random() < each else "stone" for _ in range(8)) for each in worth]
    return pl.DataFrame({"id": range(rows), "words": words, "worth": worth})


def test_what_is_too_long_for_the_model_is_embedded_by_its_beginning(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="pip install 'gristmill[embedded]' to run this")
    model = tiny_bert.write_ir(tmp_path / "bert")
    draw = random.Random(1)
    # 46 words fit; of 100 half of the characters do not quite.
    texts = [" ".join(draw.choice(tiny_bert.WORDS) for _ in range(count)) for count in (3, 46, 60, 100, 0, 300)]
    vectors = RowVectors(
        tmp_path / "state", backend_on(gristmill.EngineSettings("openvino", str(model))), asked_about(texts)
    )
    with backend_on(JUDGE).session():
        vectors.ask("all", range(len(texts)))
    found = {row: vector for row, vector, _ in vectors.read("all")}
    assert sorted(found) == [0, 1, 2, 3, 5] and vectors.failed == 0
    assert len(vectors.batches) == 4
    for row in (0, 1):
        assert abs(found[row] - tiny_bert.vector(tiny_bert.tokens_of(texts[row]), "mean")).max() < 1e-5
    whole = texts[2][: len(texts[2]) // 2]
    if whole[-1] == " ":
        assert abs(found[2] - tiny_bert.vector(tiny_bert.tokens_of(whole), "mean")).max() < 1e-5


def test_a_row_without_a_vector_has_no_guess_and_the_pilots_own_are_held_out(tmp_path: Path) -> None:
    draw = random.Random(4)
    counts = [draw.randrange(9) for _ in range(400)]
    texts = [" ".join(["flour"] * count + ["stone"] * (8 - count)) for count in counts]
    texts[7], texts[300], texts[301] = "", "a rotten one", "a rotten one"
    failing = {"fail_on": "rotten", "failure_kind": "invalid_request"}
    proxy = EmbeddingsProxy(asked_about(texts), backend_on(gristmill.EngineSettings("simulated", "e", None, failing)))
    pilot = list(range(100))
    proxy.prepare(tmp_path, pilot, True, "one")
    scores = [count + draw.gauss(0, 1) for count in counts[:100]]
    found = proxy.guesses(Pilot(pilot, scores))
    assert numpy.flatnonzero(numpy.isnan(found)).tolist() == [7, 300, 301]
    others = [row for row in range(100, 400) if row not in (300, 301)]
    assert numpy.corrcoef(found[others], [counts[row] for row in others])[0, 1] > 0.95
    noise = [draw.gauss(0, 1) for _ in pilot]
    learnt = proxy.guesses(Pilot(pilot, noise))[:100]
    known = ~numpy.isnan(learnt)
    assert abs(numpy.corrcoef(learnt[known], numpy.array(noise)[known])[0, 1]) < 0.3
    with pytest.raises(UserError, match="Only 19 rows of the pilot have a score and a vector"):
        proxy.guesses(Pilot(pilot, [1.0] * 20 + [numpy.nan] * 80))


def test_killed_while_it_embeds_it_comes_to_the_same_certificate_and_output(tmp_path: Path) -> None:
    frame_of(500).write_csv(tmp_path / "table.csv")
    (tmp_path / "rubric.md").write_text("Score the miller.\n")
    wish = ["--rubric", "rubric.md", "--id", "id", "--scale", "0..10", "--top", "150", "--recall", "0.7"]
    engine = ["--engine", "simulated", "-O", "scored_by=worth:", "-O", "latency=0.02", "-O", "journal=journal"]

    def start(output: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "gristmill", "rank", "table.csv", *wish, *engine, "-o", output]
        command += ["--proxy", "embeddings:e"]
        environment = os.environ | {"HOME": str(tmp_path)}
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)

    def came_of_it(output: str) -> tuple[bytes, dict]:
        told = json.loads((tmp_path / f"{output}.certificate.json").read_text())
        told.pop("cost")
        return (tmp_path / output).read_bytes(), told

    undisturbed = start("alone.csv")
    _, errors = undisturbed.communicate()
    assert undisturbed.returncode == 0, errors
    (tmp_path / "journal").unlink()
    for part in ("pilot-0", "others-0"):
        run = start("best.csv")
        embedding = tmp_path / ".best.csv.gristmill" / "proxy" / part
        while not embedding.exists() and run.poll() is None:
            time.sleep(0.002)
        time.sleep(0.1)
        run.send_signal(signal.SIGKILL)
        run.communicate()
        assert run.returncode == -signal.SIGKILL and not (tmp_path / "best.csv").exists()
    run = start("best.csv")
    _, errors = run.communicate()
    assert run.returncode == 0, errors
    assert came_of_it("best.csv") == came_of_it("alone.csv")


def test_on_a_server_the_vectors_are_the_same_and_so_is_the_list(tmp_path: Path) -> None:
    frame, wish = frame_of(500), {"top": 100, "recall": 0.6, "options": OPTIONS}
    asked = {"rubric": "Score the miller.", "scale": range(11), "on": JUDGE}
    embedding = gristmill.EngineSettings("simulated")
    here = gristmill.rank(frame, **asked, **wish, proxy=gristmill.EmbeddingModel(embedding))
    with ServerProcess(tmp_path / "data") as server:
        there = gristmill.EmbeddingModel(gristmill.ScoreServer(server.base_url))
        best = gristmill.rank(frame, **asked, **wish, proxy=there)
    assert best.certified and best.frame.equals(here.frame)
    assert best.certificate["proxy_rank_correlation"] > 0.6


def test_a_model_that_writes_is_refused_in_a_sentence(pulled_model: str) -> None:
    writes = gristmill.EmbeddingModel(gristmill.EngineSettings("openvino", pulled_model))
    with pytest.raises(UserError, match="cannot answer /v1/embeddings .* serve a model that embeds.$"):
        gristmill.rank(frame_of(300), "Score.", range(11), top=30, recall=0.6, proxy=writes, on=JUDGE, options=OPTIONS)


def test_a_model_that_embeds_nothing_is_told_before_the_judge_is_asked(tmp_path: Path) -> None:
    failing = {"fail_on": "worth", "failure_kind": "invalid_request"}
    wish = {"top": 30, "recall": 0.6, "on": JUDGE, "options": OPTIONS, "resume": tmp_path}
    broken = gristmill.EmbeddingModel(gristmill.EngineSettings("simulated", "e", None, failing))
    with pytest.raises(UserError, match="e gave no row of the pilot a vector.*simulated failure"):
        gristmill.rank(frame_of(300), "Score.", range(11), **wish, proxy=broken)
    assert not (tmp_path / "judge").exists()
    mended = gristmill.EmbeddingModel(gristmill.EngineSettings("simulated", "e"))
    assert gristmill.rank(frame_of(300), "Score.", range(11), **wish, proxy=mended).certified
