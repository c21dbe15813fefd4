"""The files of a report: complete, escaped, without network, never half replaced."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image

import lpt.report.write
from lpt.cli.report import main
from lpt.errors import ConfigError
from lpt.report import write_report
from lpt.report.naming import file_name
from lpt.report.tables import Cell, Line, Table, code, latex, markdown, to_latex, to_markdown
from tests.support.runs import metrics, write_job, write_run, write_sweep

VOID = {"meta", "br", "img", "link"}
HOSTILE = '<script>alert("1")</script>_50%|a&b $x$ #{~^}'


class Reader(HTMLParser):
    """Checks nesting, and gathers what is looked at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.label_words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.label_words.append(data)

    def attributes(self, name: str) -> list[str]:
        return [value for _, found in self.seen if (value := found.get(name)) is not None]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers and kinds on two tasks, one of a hostile name, with a job that failed."""
    folder = tmp_path_factory.mktemp("runs") / "a sweep"
    write_sweep(folder, **{"prompt.layer": ["2", "4"]})
    for at, task in enumerate(("sst2", HOSTILE)):
        for kind, layer in (("npg", 2), ("npg", 4), ("static_<b>", 4)):
            for seed in (13, 21):
                score = 0.6 + layer / 50 + seed / 1000
                content = metrics(
                    task=task, dev=score, test=score, prompt__kind=kind, prompt__layer=layer,
                    seed=seed,
                )  # fmt: skip
                name = f"{at}-{kind}-{layer}-{seed}".replace("<b>", "")
                job = {"command": f"python train.py `x`='</code>{seed}' prompt.layer={layer}"}
                write_run(folder / "jobs" / name, content, job)
    write_job(
        folder / "jobs" / "lost",
        state="failed",
        reason="out | of <b>memory</b>",
        settings={"prompt.layer": "6"},
        command="python train.py prompt.layer=6",
    )
    write_report([folder], folder / "report")
    return folder


@pytest.fixture
def page(sweep: Path) -> Reader:
    return Reader((sweep / "report" / "index.html").read_text())


def test_the_page_needs_nothing_else(page: Reader) -> None:
    tags = [tag for tag, _ in page.seen]
    assert "script" not in tags
    assert "link" not in tags
    assert not [tag for tag, found in page.seen if any(name.startswith("on") for name in found)]
    for link in page.attributes("src") + page.attributes("href"):
        assert not re.match(r"[a-z+.-]*:|//", link.lower()), link
    assert "url(http" not in "".join(page.label_words)
    assert dict(page.seen)["html"] == {"lang": "en"}
    assert any(found.get("name") == "viewport" for tag, found in page.seen if tag == "meta")


def test_every_link_leads_somewhere(page: Reader, sweep: Path) -> None:
    links = [link for link in page.attributes("href") if not link.startswith("#")]
    assert len(links) > 12
    for link in links:
        assert (sweep / "report" / unquote(link)).exists(), link


def test_figures_are_there_and_named(page: Reader, sweep: Path) -> None:
    pictures = [found for tag, found in page.seen if tag == "svg"]
    files = list((sweep / "report").glob("*.png"))
    # For each of two tasks: score, time and memory by layer; a dot plot; learning curves.
    assert len(pictures) == len(files) == 10
    assert all(picture["role"] == "img" and picture["aria-label"] for picture in pictures)
    assert any("test accuracy" in word for word in page.label_words)
    for file in files:
        with Image.open(file) as image:
            assert min(image.size) > 200
            low, high = image.convert("L").getextrema()
            assert (low, high) != (255, 255)
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    used = {link[1:] for link in page.attributes("href") if link.startswith("#")}
    assert used <= set(ids)


def test_names_are_shown_and_not_obeyed(page: Reader, sweep: Path) -> None:
    text = " ".join("".join(page.label_words).split())
    assert HOSTILE in text
    assert "out | of <b>memory</b>" in text
    assert "static_<b>" in text
    assert "python sweep.py sweep=layers task=sst2" in text
    assert "python train.py `x`='</code>21' prompt.layer=4" in text
    assert "12 finished, 1 failed, 0 interrupted, 0 pruned" in text


def test_markdown_tables_keep_their_columns(sweep: Path) -> None:
    text = (sweep / "report" / "report.md").read_text()
    assert "<script>" not in text
    assert "<b>" not in text
    blocks = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert len(blocks) == 6  # the matrix, two results, two comparisons, jobs
    for block in blocks:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1
    for name in re.findall(r"!\[.*\]\((.*)\)", text):
        assert (sweep / "report" / unquote(name)).stat().st_size > 1000


def test_latex_tables_are_balanced(sweep: Path) -> None:
    files = list((sweep / "report").glob("*.tex"))
    assert len(files) == 5
    for file in files:
        text = file.read_text()
        bare = re.sub(r"\\[\\{}&%$#_]", "", text)
        assert bare.count("{") == bare.count("}")
        assert bare.count("$") % 2 == 0
        assert [text.count(rf"\{rule}rule") for rule in ("top", "mid", "bottom")] == [1, 1, 1]
        assert text.count(r"\begin{") == text.count(r"\end{") == 2
        (columns,) = re.findall(r"\{@\{\}([lr]+)@\{\}\}", text)
        rows = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns)}


def test_escaping() -> None:
    assert latex(r"a_b%&#$\{}~^<") == (
        r"a\_b\%\&\#\$\textbackslash{}\{\}\textasciitilde{}\textasciicircum{}\textless{}"
    )
    assert markdown("a|b_c*`<i>&\nx") == r"a\|b\_c\*\`&lt;i&gt;&amp; x"
    assert code("a `b` ``c") == "``` a `b` ``c ```"
    line = Line((Cell("a_b", strong=True), Cell("0.5", "± 0.1", strong=True)))
    table = Table("t", "of 5 %", ("k", "v"), 1, (line,))
    assert r"\textbf{a\_b} & \textbf{0.5 $\pm$ 0.1} \\" in to_latex(table)
    assert r"\caption{of 5 \%}" in to_latex(table)
    assert "| **a\\_b** | **0.5 ± 0.1** |" in to_markdown(table)


def test_names_of_files_are_plain_and_differ() -> None:
    assert file_name("score", "prompt.layer", "sst2") == "score-prompt.layer-sst2"
    odd = {file_name("results", task) for task in ("a/b", "a b", "a_b", "../a", HOSTILE)}
    assert len(odd) == 5
    assert all(re.fullmatch(r"[\w.-]+", name) for name in odd)


def test_runs_are_there_as_csv(sweep: Path) -> None:
    with (sweep / "report" / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    row = next(row for row in rows if row["folder"] == "../jobs/0-npg-4-21")
    assert float(row["test/accuracy"]) == pytest.approx(0.701)
    assert (row["prompt.layer"], row["data.seed"]) == ("4", "21")


def test_an_old_report_is_replaced_and_not_searched(tmp_path: Path) -> None:
    write_run(tmp_path / "a", metrics())
    out = tmp_path / "report"
    write_report([tmp_path], out)
    write_run(out / "copy", metrics(seed=99))
    (out / "old.txt").touch()
    write_report([tmp_path, tmp_path / "a"], out, title="Second")
    assert not (out / "old.txt").exists()
    page = (out / "index.html").read_text()
    assert "<h1>Second</h1>" in page
    assert "1 finished" in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "report"]


@pytest.mark.parametrize("fails", ["drawing", "swap"])
def test_an_old_report_survives_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    write_run(tmp_path / "a", metrics())
    out = tmp_path / "report"
    before = write_report([tmp_path], out).read_text()
    rename = Path.rename

    def broken(*_: object) -> None:
        raise OSError("disk full")

    def broken_rename(self: Path, target: Path) -> Path:
        return broken() if self.name.endswith(".unfinished") else rename(self, target)  # type: ignore[func-returns-value, return-value]

    if fails == "drawing":
        monkeypatch.setattr(lpt.report.write, "draw_all", broken)
    else:
        monkeypatch.setattr(Path, "rename", broken_rename)
    with pytest.raises(OSError, match="disk full"):
        write_report([tmp_path], out, title="Second")
    assert (out / "index.html").read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "report"]


def test_other_folders_are_never_replaced(tmp_path: Path) -> None:
    write_run(tmp_path / "a", metrics())
    with pytest.raises(ConfigError, match="holds something else than a report"):
        write_report([tmp_path], tmp_path)
    assert (tmp_path / "a" / "metrics.json").exists()


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "no finished run" in capsys.readouterr().err
    write_job(tmp_path / "lost", state="failed")
    assert main([str(tmp_path), str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2
    assert "nowhere" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), str(tmp_path)])
    write_run(tmp_path / "a", metrics())
    assert main([str(tmp_path), "--title", "A & B"]) == 0
    assert "A &amp; B</h1>" in (tmp_path / "report" / "index.html").read_text()


def test_a_report_needs_no_torch() -> None:
    command = "import sys, lpt.report.write; sys.exit(any(m in sys.modules for m in ['torch', 'transformers', 'matplotlib.pyplot']))"  # noqa: E501
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0
    light = "import sys, lpt.cli.report; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", light], check=False).returncode == 0
