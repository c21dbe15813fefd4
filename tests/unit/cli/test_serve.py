"""lpt-serve: a server in processes of its own, asked over HTTP."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Timer

import httpx
import pytest

from lpt.cli.serve import main
from lpt.errors import USAGE_ERROR
from lpt.experiment import run
from lpt.predictor import Predictor
from tests.conftest import toy_overrides
from tests.support.configs import configured

pytest.importorskip("litserve", reason="needs the extra serve")
from bench.serve import ask, free_port, questions_for, serving

ROWS = [{"text": text} for text in ("good", "the film was bad", "a day and a plot and the food")]


@pytest.fixture(scope="module")
def adapters(
    checkpoints: dict[str, Path], toy_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Runs with prompts at two layers of one backbone, and on another backbone."""
    folder = tmp_path_factory.mktemp("served")
    for name, model, layer in (("low", "masked", 2), ("high", "masked", 4), ("other", "causal", 3)):
        options = (f"prompt.layer={layer}", f"run_dir={folder / name}", "optim.lr=0.1")
        run(configured(*toy_overrides(checkpoints, toy_data, model, *options)))
    shutil.copytree(folder / "low", folder / "changing")
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def url(adapters: dict[str, Path]) -> Iterator[str]:
    with serving(*(f"{name}={path}" for name, path in adapters.items())) as address:
        yield address


def test_predictions_of_several_adapters_beside_bad_rows(
    url: str, adapters: dict[str, Path]
) -> None:
    """Every row of a batch gets its own answer."""
    good = [{"task": name, "row": row} for row in ROWS for name in adapters]
    lacking = "no column text (it has: txt)"
    column = "expected: a list of rows, each with text in text"
    bad = [
        ({"task": "low", "row": {"txt": "good"}}, f"row.text: {lacking}\n  {column}\n  hint: "),
        ({"task": "low", "row": {"text": 5}}, f"row.text: 5, which is no text\n  {column}"),
        ({"task": "low", "row": {"text": None}}, f"row.text: None, which is no text\n  {column}"),
        ({"task": "lwo", "row": ROWS[0]}, "hint: did you mean low"),
        ({"row": ROWS[0]}, "task: None\n  expected: "),
        ({"task": "low", "row": "good"}, "body.row: Input should be a valid dictionary"),
        ({"task": "low"}, "body.row: Field required"),
        ([], "body: Input should be a valid dictionary"),
    ]
    mixed = [question for pair in zip(good, [*bad, *bad], strict=False) for question in pair]
    answers, _ = ask(url, [q[0] if isinstance(q, tuple) else q for q in mixed], 8)
    refused = {json.dumps(question): reason for question, reason in bad}
    predictors = {name: Predictor(path) for name, path in adapters.items()}
    for question, answer in zip(mixed, answers, strict=True):
        if isinstance(question, tuple):
            assert answer.status_code == 422
            assert refused[json.dumps(question[0])] in "\n".join(answer.json()["detail"])
        else:
            assert answer.status_code == 200
            [expected] = predictors[question["task"]]([question["row"]])
            assert answer.json()["label"] == expected.label
            assert answer.json()["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"\xff", b'{"task": "\\ud83d", "row": {}}', b'{"task": NaN, "row": NaN}'),
        *(b'{"task": "low", "row": {"text": "\\ud83d"}}', b'{"task": "low", "row": {"text": NaN}}'),
    ],
)
def test_what_is_no_request_or_no_text(url: str, content: bytes) -> None:
    answer = httpx.post(f"{url}/predict", content=content)
    assert answer.status_code in (400, 422)
    assert answer.json()["detail"]


def test_pages(url: str) -> None:
    assert httpx.get(f"{url}/health").text == "ok"
    assert "swagger" in httpx.get(f"{url}/docs").text
    page = httpx.get(f"{url}/openapi.json").json()
    assert "* `high`: text" in page["info"]["description"]
    assert page["components"]["schemas"]["Question"]["required"] == ["row"]


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_no_request_is_lost_while_an_adapter_changes(
    url: str, adapters: dict[str, Path], count: int
) -> None:
    """Also not where its files do not belong together for a moment."""
    before, after = (adapters["low"], adapters["high"])[:: 1 if count == 200 else -1]
    changing = adapters["changing"] / "adapter"
    (changing / "adapter.json").write_text("{")

    def change() -> None:
        for file in (after / "adapter").iterdir():
            shutil.copyfile(file, changing / file.name)

    timer = Timer(0.3, change)
    timer.start()
    answers, _ = ask(url, questions_for(url, count), 32)
    timer.join()
    assert [answer.status_code for answer in answers] == [200] * count
    [answer], _ = ask(url, [{"task": "changing", "row": ROWS[1]}], 1)
    [was], [now] = (Predictor(path)(ROWS[1:2]) for path in (before, after))
    assert answer.json()["probabilities"] == pytest.approx(now.probabilities, abs=1e-5)
    assert was.probabilities != pytest.approx(now.probabilities, abs=1e-5)


def test_what_is_wrong_is_said_at_once(
    adapters: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        given = [str(adapters["low"]), str(adapters["high"]), str(tmp_path)]
        assert main([*given, "--port", port, "--device", "cuda:99"]) == USAGE_ERROR
    messages = capsys.readouterr().err
    assert messages.startswith("Found 4 problems:")
    assert f"--port: {port}: Address already in use" in messages
    assert "device: cuda:99" in messages
    assert f"{given[1]}: of the task reviews, as {given[0]}" in messages
    assert f"hint: reviews-2={given[1]}" in messages
    assert f"adapter: {tmp_path}, which has no adapter.json" in messages
    assert main([given[0], "--port", "80"]) == USAGE_ERROR
    assert "--port: 80\n     expected: 1024 to 65535" in capsys.readouterr().err


@pytest.mark.slow
def test_a_foreign_backbone_and_ctrl_c(
    adapters: dict[str, Path], checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    moved = shutil.copytree(checkpoints["masked"], tmp_path / "moved")
    weights = bytearray((moved / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (moved / "model.safetensors").write_bytes(weights)
    command = [sys.executable, "-m", "lpt.cli.serve", str(adapters["low"]), "--port"]
    foreign = [*command, str(free_port()), "--model", str(moved)]
    ended = subprocess.run(foreign, capture_output=True, text=True, check=False)
    assert ended.returncode == USAGE_ERROR
    assert ended.stderr.startswith("Found 1 problem:\n1. ")
    assert "the backbone it was trained on" in ended.stderr
    assert "Traceback" not in ended.stderr
    server = subprocess.Popen(
        [*command, str(free_port())], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    with pytest.raises(subprocess.TimeoutExpired):
        server.communicate(timeout=40)
    server.send_signal(signal.SIGINT)
    _, messages = server.communicate(timeout=60)
    assert server.returncode == 0
    assert "Traceback" not in messages
