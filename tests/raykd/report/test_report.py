"""The report page: its numbers are those of the tables; no user's text becomes markup; nothing is fetched."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from histories import ARM_A, AXES, BASE, a_study, a_sweep, ledger, search
from ledger_records import end, record, report
from studies import GAMMA, METHODS, study

from raykd.ablation import tables
from raykd.ablation.conclusions import conclude
from raykd.cli import main
from raykd.records.history import History
from raykd.records.ledger import Ledger
from raykd.records.views import read
from raykd.report import build, write
from raykd.report.elements import Code, Collapsible, Figure, Gallery, Page, Section, Table
from raykd.report.page import PALETTES
from raykd.searching import proxy_audit
from raykd.searching.proposer import Proposal, Proposer

EVIL = "<img src=//x.example/a onerror=alert(1)>&\"'</script><script>alert(2)</script>{{7*7}}"


def parts(page: Page) -> Iterator[Any]:
    def of(those: Any) -> Iterator[Any]:
        for part in those:
            yield part
            if isinstance(part, Collapsible):
                yield from of(part.parts)
            elif isinstance(part, Gallery):
                yield from of(part.figures)
            elif isinstance(part, Figure) and part.table is not None:
                yield part.table

    for section in page.sections:
        yield from of(section.parts)


def table(page: Page, caption: str) -> Table:
    return next(p for p in parts(page) if isinstance(p, Table) and p.caption.startswith(caption))


def section(page: Page, title: str) -> Section:
    return next(s for s in page.sections if s.title == title)


def words(those: Section) -> str:
    return json.dumps(
        [getattr(p, "text", None) or getattr(p, "items", "") for p in those.parts], ensure_ascii=False
    )


def page_of(folder: Path) -> Page:
    return build(folder, folder / "report.html", time.time())


class Document(HTMLParser):
    """What a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search(tmp_path_factory.mktemp("swept"), "ffsxfffsff", label=EVIL, reason=EVIL)


@pytest.fixture(scope="module")
def swept_page(swept: Path) -> Page:
    return page_of(swept)


def test_a_sweep_shows_its_best_beside_references_and_every_trial(swept: Path, swept_page: Page) -> None:
    history, page = read(swept), swept_page
    best = history.best()
    assert best is not None and best.best is not None
    lead = section(page, "The answer").parts[0].text
    assert best.trial in lead and f"{best.best[0]:.2f} ± 0.25 at epoch 4 of 4" in lead
    assert f"{best.best[0] - 61.25:.2f} points above" in words(section(page, "The answer"))
    rows = {row[0]: row for row in table(page, "Score and probes").rows}
    assert rows[EVIL][1:3] == ["61.25", "0.5"] and f"best trial {best.trial}, epoch 4" in rows
    all_trials = {row[0]: row for row in table(page, "All trials").rows}
    assert set(all_trials) == set(history.trials)
    for name, trial in history.trials.items():
        assert all_trials[name][1] == trial.status
        assert all_trials[name][3] == (f"{trial.best[0]:.2f}" if trial.best else "")
    (failed,) = table(page, "1 of 10 trials failed").rows
    assert history.trials[failed[0]].status == "failed" and failed[-1] == EVIL
    spent = {row[0]: row for row in table(page, "Compute spent").rows}
    assert spent["finished"][1:3] == ["7", "28"] and spent["all"][1:3] == ["10", "32"]
    assert "saved 4 of 36 epochs" in words(section(page, "Compute spent"))
    again = next(p for p in section(page, "Run it again").parts if isinstance(p, Code))
    assert again.text.startswith("raykd run '/data/my space.yaml' --set samples=8 --storage ")
    assert "too small to say" in words(section(page, "Parameters"))


def test_the_proxy_audit_is_what_the_curves_say(swept: Path) -> None:
    spec = a_sweep(AXES, 10, scheduler={"name": "asha", "grace": 1, "factor": 2})
    assert spec.scheduler.rungs(spec.epochs) == [1, 2]
    first, second = proxy_audit.audit(spec, read(swept))
    # Every curve rises by the same steps: the first epoch tells the order at the end without fault.
    assert (first.epoch, first.stopped, second.stopped, first.found.trials) == (1, 0, 2, 7)
    assert first.found.correlation.value == pytest.approx(1)
    assert (first.found.recall.value, first.found.regret.value, first.found.drawn) == (1.0, 0.0, 4)


def test_an_early_order_that_misleads_is_seen() -> None:
    spec = a_sweep(AXES, 3, scheduler={"name": "asha", "grace": 1, "factor": 4})
    history, proposer = History(), Proposer(spec)
    for scores in ((50.0, 70.0), (60.0, 65.0), (55.0, 60.0)):
        proposal = proposer.propose()
        assert isinstance(proposal, Proposal)
        history.add(record("suggest", **proposal.record()))
        for epoch, score in zip((1, 4), scores, strict=True):
            history.add(report(proposal.trial, epoch, score))
        history.add(end(proposal.trial))
    (rung,) = proxy_audit.audit(spec, history)
    # Ranks 3, 1, 2 early and 1, 2, 3 at the end: 1 - 6 (4 + 1 + 1) / (3 * 8). Of the three pairs of trials
    # the early leader ends 5, 10 and 0 points below the better one.
    assert rung.found.correlation.value == pytest.approx(-0.5)
    assert (rung.found.recall.value, rung.found.regret.value) == (0.0, 5.0)
    low, high = rung.found.regret.interval
    assert low == 0.0 and high == 10.0


def test_nothing_of_a_user_becomes_markup_and_nothing_is_fetched(swept: Path, tmp_path: Path) -> None:
    text = write(swept, tmp_path / "page.html").read_text()
    found = Document(text)
    assert EVIL in found.text.replace("\n", ""), "shown as it was written"
    tags = [tag for tag, _ in found.tags]
    assert "img" not in tags and "iframe" not in tags and tags.count("script") == 3
    for tag, attributes in found.tags:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("src", "href"):
            assert not re.match(r"(https?:)?//", attributes.get(name, "")), (tag, attributes)
    policy = next(a["content"] for t, a in found.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe-eval" not in policy
    outside = re.sub(r'<script type="text/plain" id="plotly">[^<]*</script>', "", text)
    assert "//x.example" not in re.sub(r"&lt;img|\\u003cimg|<code>|src=//x.example", "", outside)
    assert len(outside) < 300_000 and len(text) < 2_500_000, "plotly.js once, packed"
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S).group(1))  # type: ignore[union-attr]
    for plot in data["plots"]:
        assert "<img" not in json.dumps(plot) and "<script" not in json.dumps(plot)
    assert not [p for p in tmp_path.iterdir() if p.name != "page.html"]


def test_every_figure_is_one_that_plotly_takes_and_is_said_in_words(swept_page: Page) -> None:
    figures = [p for p in parts(swept_page) if isinstance(p, Figure)]
    assert len(figures) >= 8 and all(figure.alt for figure in figures)

    def painted(value: Any) -> Any:
        if isinstance(value, str) and value.startswith("@"):
            return PALETTES["light"][value[1:]]
        if isinstance(value, dict):
            return {name: painted(inner) for name, inner in value.items()}
        return [painted(inner) for inner in value] if isinstance(value, list | tuple) else value

    for figure in figures:
        go.Figure(painted(figure.plot))
    assert PALETTES["light"].keys() == PALETTES["dark"].keys()


@pytest.mark.parametrize(
    ("statuses", "said"),
    [
        ("", "no best one"),
        ("xx", "no best one"),
        ("f", "is best, with"),
        ("r", "is best, with"),
        ("s", "is best"),
    ],
)
def test_small_and_broken_sweeps_have_every_section(statuses: str, said: str, tmp_path: Path) -> None:
    spec: dict[str, Any] = {} if statuses else {"samples": 1}
    folder = search(tmp_path, statuses, **spec) if statuses else tmp_path / "empty"
    if not statuses:
        ledger(folder, a_sweep(AXES, 3)).close()
    page = page_of(folder)
    assert said in section(page, "The answer").parts[0].text
    titles = [s.title for s in page.sections]
    assert titles[:6] == ["The answer", "History", "Learning curves", "Parameters", "Proxy audit", "Trials"]
    assert titles[6:] == ["Failures", "Compute spent", "Run it again", "Files"]
    assert all(s.parts for s in page.sections)
    if statuses == "xx":
        assert "2 of 2 trials failed" in table(page, "2 of 2").caption


def test_a_sweep_that_is_not_done_says_so(tmp_path: Path) -> None:
    folder = search(tmp_path, "fr")
    assert "is not complete: 1 of 2 trials have ended" in page_of(folder).banner
    with Ledger.open(folder):
        assert "still running: 1 of 2" in page_of(folder).banner
    assert not page_of(search(tmp_path / "done", "ff")).banner


def test_with_several_seeds_the_best_configuration_counts(tmp_path: Path) -> None:
    page = page_of(search(tmp_path, "ffff", seeds=[0, 1]))
    history = read(tmp_path / "known")
    best = history.best()
    assert best is not None
    scores = [t.best[0] for t in history.trials.values() if t.arm == best.arm and t.best]
    assert len(scores) == 2
    lead = section(page, "The answer").parts[0].text
    assert f"over 2 seeds, with {sum(scores) / 2:.2f}, 95 % interval" in lead
    assert any(row[0].startswith(f"best trial {best.trial}") for row in table(page, "Score and probes").rows)


# --- studies ----------------------------------------------------------------------------------------------


def test_a_study_shows_the_table_of_its_report_and_its_answer(tmp_path: Path) -> None:
    published = {"source": "Table 5", "unit": "MNIST", "values": {ARM_A: 33.25}}
    spec = study(GAMMA, replicates=4, published=published)
    folder = a_study(tmp_path, spec, {BASE: [80.0, 82.0, 84.0, 81.0], ARM_A: [85.1, 87.0, None, 86.2]})
    page = page_of(folder)
    results = conclude(spec, read(folder))
    columns, rows = tables.table(results)
    shown = table(page, "Arms, the base first")
    assert (list(shown.columns), [list(row) for row in shown.rows]) == (columns, rows)
    forest = next(p for p in section(page, "The answer").parts if isinstance(p, Figure)).plot["data"][0]
    arm = tables.data(results)["arms"][1]
    assert forest["x"] == [arm["difference"]]
    assert forest["x"][0] + forest["error_x"]["array"][0] == pytest.approx(arm["high"])
    assert 33.25 not in forest["x"], "the paper's numbers have a figure of their own"
    paper = next(p for p in section(page, "The paper's numbers").parts if isinstance(p, Figure))
    assert paper.plot["data"][0]["x"] == [33.25] and "not ours" in paper.alt
    said = words(section(page, "The answer"))
    assert f"{ARM_A} is better than '{BASE}'" in said and "3 pairs" in said
    assert f"{ARM_A}: 1 of 4 replicates failed" in said
    assert table(page, "Scores by seed").rows[1] == [ARM_A, "85.10", "87.00", "–", "86.20"]
    assert table(page, "1 of 8 trials failed").rows[0][-1] == "out of memory"


def test_no_difference_is_said_with_what_could_have_been_missed(tmp_path: Path) -> None:
    spec = study(GAMMA)
    page = page_of(a_study(tmp_path, spec, {BASE: [80.0, 82.0, 84.0], ARM_A: [81.0, 81.0, 84.5]}))
    said = words(section(page, "The answer"))
    detectable = table(page, "Arms, the base first").rows[1][10]
    assert (
        "show no difference" in said
        and f"difference below {detectable} points was likely to be missed" in said
    )


def test_designs_have_sections_of_their_own(tmp_path: Path) -> None:
    factorial = study(
        GAMMA, design="factorial", factors={"gamma": [0.1, 1.0], "temperature": [0.2, 0.3]}, replicates=3
    )
    scores = {
        label: [80.0 + i + s * 0.7 + (i * s % 3) * 0.1 for s in range(3)]
        for i, label in enumerate(factorial.arms)
    }
    page = page_of(a_study(tmp_path / "factorial", factorial, scores))
    results = conclude(factorial, read(tmp_path / "factorial" / factorial.name))
    found = tables.effects_table(results)
    assert found is not None
    assert [list(row) for row in table(page, "Main effects and interactions").rows] == found[1]

    compared = study(METHODS, replicates=4)
    ranked: dict[str, list[float | None]] = {
        "retro": [90.0, 91.0, 92.0, 93.0], "seed": [85.0, 86.0, 88.0, 87.0], "moco": [80.0, 81.0, 83.0, 82.0]
    }  # fmt: skip
    page = page_of(a_study(tmp_path / "compare", compared, ranked))
    assert table(page, "Mean ranks").rows == [["retro", "1.00"], ["seed", "2.00"], ["moco", "3.00"]]

    looking = study(GAMMA, replicates=None, decide=True, max_replicates=5)
    better: dict[str, list[float | None]] = {
        BASE: [80.0, 81.0, 80.5, 82.0, 81.5], ARM_A: [89.1, 89.9, 89.5, 91.2, 90.5]
    }  # fmt: skip
    page = page_of(a_study(tmp_path / "looks", looking, better))
    rows = table(page, "What was seen at each look").rows
    answer = table(page, "Arms, the base first")
    assert [row[1] for row in rows] == [str(n) for n in range(3, 3 + len(rows))]
    assert rows[-1][5] == answer.rows[1][answer.columns.index("answer")] == "better (sign)"
    assert all(row[5] == "goes on" for row in rows[:-1])
    assert f"{ARM_A} is better" in words(section(page, "The answer"))


@pytest.mark.parametrize(
    "scores", [{}, {BASE: [None, None, None], ARM_A: [None, None, None]}, {BASE: [80.0]}]
)
def test_a_study_without_results_has_a_page(scores: dict[str, list[float | None]], tmp_path: Path) -> None:
    folder = a_study(tmp_path, study(GAMMA), scores)
    page = page_of(folder)
    assert "too few results" in section(page, "The answer").parts[0].text
    assert all(s.parts for s in page.sections)
    assert write(folder, folder / "report.html").stat().st_size > 1_000_000


# --- the verb ---------------------------------------------------------------------------------------------


def test_the_verb_writes_beside_the_sweep_or_where_it_is_told(tmp_path: Path, capsys: Any) -> None:
    folder = search(tmp_path, "x")
    with pytest.raises(SystemExit) as done:
        main(["report", "known", "--storage", str(tmp_path)])
    assert not done.value.code and (folder / "report.html").is_file()
    for arguments, said in (
        (["unknown"], "no such sweep"),
        (["known", "--out", str(tmp_path)], "it is a folder"),
        (["known", "--out", str(tmp_path / "none" / "a.html")], "there is no folder"),
        (["known", "--out", "/proc/a.html"], "cannot be written"),
    ):
        with pytest.raises(SystemExit) as refused:
            main(["report", *arguments, "--storage", str(tmp_path)])
        assert refused.value.code == 2 and said in capsys.readouterr().err.replace("\n", " ")


def test_a_page_that_needs_no_methods_loads_no_torch(tmp_path: Path) -> None:
    folder = search(tmp_path, "xx")
    code = (
        "import sys; from pathlib import Path; from raykd.report import write\n"
        f"write(Path({str(folder)!r}), Path({str(tmp_path / 'a.html')!r}))\n"
        "print({'torch', 'ray', 'timm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
