"""The API of lpt-serve on LitServe: requests for several adapters in common batches.

No `from __future__ import annotations` here: LitServe reads the types of requests and responses
from the signatures.
"""

import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import litserve
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from transformers.utils.logging import disable_progress_bar

from lpt.errors import ConfigError, Problem, did_you_mean
from lpt.predictor import BATCH_SIZE, Prediction, Predictor
from lpt.runs.find_adapter import DESCRIPTION_FILE, TENSORS_FILE, find_adapter

_WAIT_S = 0.005  # for the requests of a batch
_TIMEOUT_S = 600  # in the queue; while an adapter is loaded again, requests wait
_BAD_REQUEST = 422  # HTTP status of a request whose content is wrong


class Question(BaseModel):
    """A row and the task whose adapter predicts its label."""

    task: str | None = Field(None, description="which adapter; not needed if there is one")
    row: dict[str, Any] = Field(description="text by column", examples=[{"text": "Not bad."}])


class Answer(BaseModel):
    """The prediction for a row."""

    label: str = Field(description="as in the training data; a number for a regression task")
    probabilities: dict[str, float] = Field(description="of each label")


class PredictAPI(litserve.LitAPI):
    """Predictions of several adapters, by task, in a process of its own.

    An adapter in a folder is loaded again when its files change; if they cannot be loaded, the one
    before stays.

    Args:
        sources: Adapters by task, each as for `Predictor`.
        device: Where the models run.
        model: The backbone of all, if it is in a local folder.
    """

    def __init__(self, sources: Mapping[str, Path | str], device: str, model: str | None) -> None:
        super().__init__(max_batch_size=BATCH_SIZE, batch_timeout=_WAIT_S)
        self.sources, self.where, self.backbone = dict(sources), device, model

    def setup(self, device: Any) -> None:
        """Load the adapters; `device` is LitServe's, which only names the process."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # LitServe ends this process
        disable_progress_bar()
        self.versions = {task: _version(source) for task, source in self.sources.items()}
        try:
            self.predictors = Predictor.many(self.sources, self.where, self.backbone)
        except ConfigError as error:
            sys.stderr.write(f"{error}\n")
            logging.getLogger("litserve").disabled = True  # it would add a traceback
            raise

    def decode_request(self, request: Question) -> Question:
        """A request as it is."""
        return request

    def predict(self, x: Sequence[Question]) -> list[Prediction | list[Problem]]:
        """The prediction for each request of a batch, or what is wrong with it."""
        self._reload_changed()
        answers: dict[int, Prediction | list[Problem]] = {}
        by_task: dict[str, list[int]] = {}
        for place, question in enumerate(x):
            task = question.task or ("" if len(self.sources) > 1 else next(iter(self.sources)))
            if task in self.sources:
                by_task.setdefault(task, []).append(place)
            else:
                hint = did_you_mean(task, self.sources)
                given = repr(question.task)
                answers[place] = [Problem("task", given, ", ".join(self.sources), hint)]
        for task, places in by_task.items():
            found = _predict(self.predictors[task], [x[place].row for place in places])
            answers.update(zip(places, found, strict=True))
        return [answers[place] for place in range(len(x))]

    def encode_response(self, output: Prediction | list[Problem]) -> Answer:
        """The answer; to a bad row a response of its own, which leaves the others of the batch."""
        if isinstance(output, Prediction):
            return Answer(label=output.label, probabilities=output.probabilities)
        detail = [str(problem).replace("rows[0]", "row", 1) for problem in output]
        return JSONResponse({"detail": detail}, _BAD_REQUEST)  # type: ignore[return-value]

    def _reload_changed(self) -> None:
        for task, source in self.sources.items():
            if (version := _version(source)) in (None, self.versions[task]):
                continue
            self.versions[task] = version
            try:
                self.predictors.load(task, source, self.backbone)
                self.predictors[task].to(self.where)
                sys.stderr.write(f"{task}: loaded {source} again.\n")
            except ConfigError as error:
                sys.stderr.write(f"{task}: the adapter before stays. {error}\n")


def _version(source: Path | str) -> tuple[int, ...] | None:
    """When the files of an adapter last changed; None on the Hub or while they are replaced."""
    if not Path(source).exists():
        return None
    try:
        folder = find_adapter(source)
        files = (folder / DESCRIPTION_FILE, folder / TENSORS_FILE)
        return tuple(file.stat().st_mtime_ns for file in files)
    except (ConfigError, OSError):
        return None


def _predict(
    predictor: Predictor, rows: Sequence[Mapping[str, Any]]
) -> list[Prediction | list[Problem]]:
    """Predictions for rows; one by one if there are bad ones, which get their problems."""
    try:
        return [*predictor(rows, batch_size=len(rows))]
    except ConfigError as error:
        if len(rows) == 1:
            return [error.problems]
    return [found for row in rows for found in _predict(predictor, [row])]


def build_server(api: PredictAPI, columns: Mapping[str, Sequence[str]]) -> litserve.LitServer:
    """The server; its OpenAPI page lists the columns of each task."""
    server = litserve.LitServer(api, accelerator="cpu", timeout=_TIMEOUT_S)
    server.app.title = "lpt"
    lines = [f"* `{task}`: {', '.join(names)}" for task, names in columns.items()]
    server.app.description = "\n".join(["Tasks and the columns of their rows:", "", *lines])
    server.app.add_exception_handler(RequestValidationError, _refuse)
    return server


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    """Say what is wrong with a request, without repeating it: it may be no valid JSON."""
    assert isinstance(error, RequestValidationError)
    detail = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
    return JSONResponse({"detail": detail}, _BAD_REQUEST)
