"""The files of a report: complete, escaped, self-contained, never half replaced."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest

from lpt.cli.report import main
from lpt.errors import ConfigError
from lpt.report import write_report
from lpt.report.formatting import mean_and_sd, number, p_value
from tests.support.runs import metrics, write_job, write_run, write_sweep

HOSTILE = '<script>alert("1")</script>_50%|a&b $x$ #{~^}'
LONG = "[x] In this review of the film, {text} All in all it was <mask>."
NO_SCORES = {"dev": None, "test": None}


class Reader(HTMLParser):
    """Gathers tags and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def attributes(self, name: str) -> list[str]:
        return [value for _, found in self.tags if (value := found.get(name)) is not None]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers and templates on two tasks, one with a hostile name, and a job that failed."""
    folder = tmp_path_factory.mktemp("runs") / "a sweep"
    write_sweep(folder)
    settings = [(LONG, 2), (LONG, 4), ("<b>{text}</b>_<mask>", 4)]
    for task, place, seed in itertools.product(("sst2", HOSTILE), range(3), (13, 21)):
        template, layer = settings[place]
        score = 0.6 + layer / 50 + seed / 1000
        scores = {"dev": score, "test": score, "majority": NO_SCORES}
        keys = {"seed": seed, "prompt__layer": layer, "task__template": template}
        content = metrics(task=task, **scores, **keys, command=[f"`x`=</code>{seed}"])
        write_run(folder / f"{task[:4]}{place}-{seed}", content)
    write_job(folder / "lost", state="failed", reason="out | of <b>memory</b>")
    return write_report([folder], folder / "report").parent


@pytest.fixture
def page(report: Path) -> Reader:
    return Reader((report / "index.html").read_text())


def test_the_page_is_self_contained_and_its_links_lead_somewhere(
    page: Reader, report: Path
) -> None:
    assert not {"script", "link"} & {tag for tag, _ in page.tags}
    assert not [tag for tag, found in page.tags if any(name.startswith("on") for name in found)]
    # For each of two tasks: score, time and memory by layer; a dot plot; learning curves.
    images = page.attributes("src")
    assert len(images) == len(page.attributes("alt")) == len(list(report.glob("*.png"))) == 10
    assert all(source.startswith("data:image/svg+xml;base64,") for source in images)
    links = page.attributes("href")
    assert len(links) > 12
    assert [link for link in links if not (report / unquote(link)).exists()] == []


def test_names_are_shown_and_not_interpreted(page: Reader) -> None:
    shown = [HOSTILE, "out | of <b>memory</b>", f"template #1: {LONG}", "<b>{text}</b>_<mask>"]
    shown += ["python sweep.py sweep=layers task=sst2", "12 finished, 1 unfinished"]
    shown += ["python -m lpt.cli.train '`x`=</code>21'"]
    assert [text for text in shown if text not in page.text] == []


def test_latex_tables_are_balanced(report: Path) -> None:
    files = list(report.glob("*.tex"))
    assert len(files) == 5
    for file in files:
        lines = [line for line in file.read_text().splitlines() if not line.startswith("%")]
        bare = re.sub(r"\\[\\{}&%$#_]", "", "\n".join(lines))
        assert bare.count("{") == bare.count("}")
        assert not re.search(r"[$_^~#]|^\[", bare, flags=re.MULTILINE)
        assert [lines.count(rf"\{rule}rule") for rule in ("top", "mid", "bottom")] == [1, 1, 1]
        (columns,) = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", lines[0])
        rows = [line for line in lines if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns)}


def test_runs_are_there_as_csv(report: Path) -> None:
    table = pd.read_csv(report / "runs.csv", index_col="folder")
    assert len(table) == 12
    row = table.loc["../sst21-21", ["test/accuracy", "prompt.layer", "data.seed", "task.template"]]
    assert row.tolist() == [0.701, 4, 21, LONG]


def test_only_an_old_report_is_replaced_and_only_by_a_complete_one(tmp_path: Path) -> None:
    run_dir, out = write_run(tmp_path / "a", metrics()), tmp_path / "report"
    write_report([tmp_path], out)
    page = write_report([tmp_path, run_dir], out, title="A & B").read_text()
    assert "<h1>A &amp; B</h1>" in page
    assert "1 finished" in page
    with pytest.raises(UnicodeEncodeError):
        write_report([tmp_path], out, title="\ud800")
    assert (out / "index.html").read_text() == page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "report"]
    with pytest.raises(ConfigError, match="not a report"):
        write_report([tmp_path], run_dir)
    assert (run_dir / "metrics.json").exists()


def test_numbers() -> None:
    assert [number(x) for x in (-0.25, -0.0001, float("nan"))] == ["−0.250", "0.000", "–"]
    assert (number(0.1, sign="+"), number(1234.56, "train_seconds")) == ("+0.100", "1,234.6")
    assert mean_and_sd({"mean": 0.5, "std": 0.0}, "test/f1") == "0.500 ± 0.000"
    assert [p_value(p) for p in (0.0001, 0.25)] == ["< 0.001", "0.250"]


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "no finished run" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), str(tmp_path)])


def test_missing_libraries_are_named() -> None:
    missing = (
        "import sys; sys.modules['matplotlib'] = None; "
        "from lpt.cli.report import main; assert 'pandas' not in sys.modules; sys.exit(main(['.']))"
    )
    run = subprocess.run([sys.executable, "-c", missing], capture_output=True, check=False)
    assert run.returncode == 2
    assert b"pip install 'lpt[report]'" in run.stderr
