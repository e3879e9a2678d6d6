"""What is concluded from histories made by hand, and how the report shows it."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import pytest
from histories import ARM_A, BASE, Scores, history_of, results
from scipy import stats
from studies import GAMMA, METHODS, study

from raykd.ablation import report, tables
from raykd.records.tables import trials_table
from raykd.report.sentences import study_in_words


def test_an_arm_against_the_base_by_hand() -> None:
    found = results(study(GAMMA), {BASE: [80.0, 82.0, 84.0], ARM_A: [81.0, 84.0, 87.0]})
    arm = found.arms[1]
    # Differences 1, 2, 3: mean 2, sd 1, t = 2 / (1 / sqrt 3) on 2 degrees of freedom.
    assert (arm.mean, arm.sd, arm.finished, arm.failed) == (84.0, 3.0, 3, 0)
    assert arm.comparison is not None and found.base.comparison is None
    assert arm.comparison.mean == pytest.approx(2.0) and arm.comparison.sd == pytest.approx(1.0)
    assert arm.comparison.p_holm == pytest.approx(2 * stats.t.sf(2 * math.sqrt(3), 2))
    half = stats.t.isf(0.025, 2) / math.sqrt(3)
    assert arm.comparison.interval == pytest.approx((2 - half, 2 + half))
    assert (arm.comparison.wins, arm.comparison.ties, arm.comparison.losses) == (3, 0, 0)
    # Variances 4 and 9 unpaired, 1 paired.
    assert arm.pairing == pytest.approx(1 / 13)
    assert found.budget == "equal epochs (2)" and found.done


def test_the_last_epoch_counts_unless_the_best_is_asked_for() -> None:
    scores: Scores = {BASE: [80.0, 82.0, 84.0], ARM_A: [81.0, 84.0, 87.0]}
    assert results(study(GAMMA), scores).base.mean == 82.0
    assert results(study(GAMMA, score_at="best"), scores).base.mean == 99.0
    assert "favours noisy arms" in report.markdown(results(study(GAMMA, score_at="best"), scores))


def test_a_failure_is_shown_and_leaves_its_pair_out() -> None:
    spec = study(GAMMA, replicates=5)
    found = results(spec, {BASE: [80.0, 82.0, 84.0, 86.0, 80.0], ARM_A: [81.0, None, 87.0, 88.0, math.nan]})
    arm = found.arms[1]
    assert (arm.finished, arm.failed, arm.waiting) == (3, 2, 0)
    assert arm.comparison is not None and (arm.comparison.pairs, arm.comparison.left_out) == (3, 2)
    assert arm.comparison.mean == pytest.approx((1 + 3 + 2) / 3)
    assert f"{ARM_A}: 2 of 5 replicates failed" in found.notes
    text = report.markdown(found)
    assert "3 of 5, 3 pairs" in text and "2 of 5 replicates failed" in text
    assert tables.data(found)["arms"][1]["failed"] == 2


def test_an_arm_that_failed_altogether_has_a_row_and_no_numbers() -> None:
    found = results(study(GAMMA), {BASE: [80.0, 82.0, 84.0], ARM_A: [None, None, None]})
    columns, rows = tables.table(found)
    row = dict(zip(columns, rows[1], strict=True))
    assert row["replicates"] == "0 of 3, 0 pairs"
    assert row["difference"] == row["95 % interval"] == row["p (Holm)"] == "–"
    json.dumps(tables.data(found))


def test_a_study_that_is_not_done_says_so() -> None:
    found = results(study(GAMMA), {BASE: [80.0, 82.0], ARM_A: [81.0]})
    assert not found.done and [arm.waiting for arm in found.arms] == [1, 2]
    assert any(note.startswith("3 replicates have not ended") for note in found.notes)


def test_nothing_at_all_is_no_error() -> None:
    found = results(study(GAMMA), {})
    assert math.isnan(found.base.mean) and tables.table(found)[1][1][4] == "–"


def test_what_equal_epochs_hide_stands_beside_the_scores() -> None:
    spec = study(GAMMA)
    costs = {BASE: (2e9, 7), ARM_A: (3e9, 7)}
    arms = {
        label: spec.arms[label].model_copy(
            update={"step_flops": flops, "epoch_steps": steps, "trained_parameters": 31_300}
        )
        for label, (flops, steps) in costs.items()
    }
    spec = spec.model_copy(update={"arms": arms})
    found = results(spec, {BASE: [80.0, 82.0, 84.0], ARM_A: [81.0, 84.0, 87.0]})
    columns, rows = tables.table(found)
    assert [row[columns.index("compute")] for row in rows] == ["×1.00", "×1.50"]
    assert found.budget.startswith(f"equal epochs (2); their compute is not: from ×1.00 ({BASE}) to ×1.50")
    text = report.markdown(found)
    # 2 epochs of 7 steps; each trial lasts 3 s on this clock.
    assert f"| {ARM_A} | 2 | 14 | 31.3 k | 3 G | 42 G (×1.50) | 3.0 |" in text
    assert r"42 G ($\times$1.50)" in report.latex(found)
    row = tables.data(found)["arms"][1]
    assert (row["step_flops"], row["steps"], row["flops"], row["compute"]) == (3e9, 14, 42e9, 1.5)
    trials = trials_table(history_of(spec, {BASE: [80.0], ARM_A: [None]})).to_pylist()
    assert [(t["step_flops"], t["flops"], t["trained_parameters"]) for t in trials] == [
        (2e9, 28e9, 31_300),
        (3e9, 21e9, 31_300),  # failed after its first epoch
    ]


def test_an_arm_that_always_fails_is_no_part_of_the_correction() -> None:
    scores: Scores = {"retro": [80.0, 81.0, 83.0], "seed": [84.0, 84.5, 86.0], "moco": [None, None, None]}
    found = results(study(METHODS, replicates=3), scores)
    legend = "\n".join(tables.legend(found))
    assert "corrected by Holm for the 1 with pairs enough and for the ranks" in legend
    columns, rows = tables.table(found)
    assert rows[2][columns.index("replicates")] == "0 of 3, 0 pairs"
    assert "moco: 3 of 3 replicates failed" in report.markdown(found)
    alike = {**scores, "seed": [80.5, 80.5, 83.0]}
    said, _ = study_in_words(results(study(METHODS, replicates=3), alike))
    assert said.endswith("between 'retro' and 'seed'; 1 of 2 could not be compared.")


def test_published_numbers_stand_apart() -> None:
    published = {"source": "RRKD, Table 5", "unit": "MNIST", "values": {ARM_A: 81.42}}
    scores: Scores = {BASE: [80.0, 82.0, 84.0], ARM_A: [81.0, 84.0, 87.0]}
    with_, without = results(study(GAMMA, published=published), scores), results(study(GAMMA), scores)
    columns, rows = tables.table(with_)
    assert columns[-1] == "the paper's" and [row[-1] for row in rows] == ["–", "81.42"]
    assert [row[:-1] for row in rows] == tables.table(without)[1], "ours are the same without the paper's"
    assert "RRKD, Table 5, MNIST; not ours, not compared" in report.markdown(with_)


def test_a_sequential_study_gives_answers_and_no_p_values() -> None:
    spec = study(GAMMA, replicates=None, decide=True, max_replicates=5)
    better = [89.1, 89.9, 89.5, 91.2, 90.5]
    found = results(spec, {BASE: [80.0, 81.0, 80.5, 82.0, 81.5], ARM_A: better})
    verdict = found.arms[1].verdict
    assert verdict is not None and (verdict.outcome, verdict.reason) == ("better", "sign")
    columns, rows = tables.table(found)
    assert "p (Holm)" not in columns and rows[1][columns.index("answer")] == "better (sign)"
    assert tables.data(found)["arms"][1]["p"] is None


def test_failures_may_leave_a_sequential_study_without_an_answer() -> None:
    spec = study(GAMMA, replicates=None, decide=True, max_replicates=4)
    scores: Scores = {BASE: [80.0, 81.0, 80.5, 82.0], ARM_A: [81.0, None, 82.5, 82.5]}
    columns, rows = tables.table(results(spec, scores))
    row = dict(zip(columns, rows[1], strict=True))
    # Three pairs, which is a look but not the last one.
    assert (row["replicates"], row["answer"]) == ("3 of 4, 3 pairs", "open (too few pairs)")


def test_comparing_methods_ranks_them() -> None:
    spec = study(METHODS, replicates=4)
    scores: Scores = {
        "retro": [90.0, 91.0, 92.0, 93.0],
        "seed": [85.0, 86.0, 88.0, 87.0],
        "moco": [80.0, 81.0, 82.0, 84.0],
    }
    found = results(spec, scores)
    assert found.ranking is not None and found.ranking.mean_ranks.tolist() == [1.0, 2.0, 3.0]
    assert "mean ranks: retro 1.00, seed 2.00, moco 3.00" in report.markdown(found)
    assert found.budget == "unequal epochs: retro 2, seed 2, moco 4"


def test_a_factorial_has_effects_and_interactions() -> None:
    factors = {"gamma": [0.1, 1.0], "symmetric": [True, False]}
    spec = study(GAMMA, design="factorial", factors=factors, replicates=2)
    # gamma adds 4, symmetric=no takes 2, together 6 less than their sum: at both levels averaged
    # gamma's effect is ((84 - 80) + (76 - 78)) / 2 = 1, symmetric's ((78 - 80) + (76 - 84)) / 2 = -5,
    # and gamma's effect differs by -2 - 4 = -6 between the levels of symmetric.
    means = [80.0, 78.0, 84.0, 76.0]
    scores: Scores = {label: [m, m + 1] for label, m in zip(spec.arms, means, strict=True)}
    found = results(spec, scores)
    assert found.effects is not None
    estimates = {e.factors: e.estimate for e in found.effects.effects}
    assert estimates == pytest.approx({(0,): 1.0, (1,): -5.0, (0, 1): -6.0})
    text = report.markdown(found)
    assert "gamma x symmetric" in text and "| -6.00 |" in text
    # No bare < or >, which LaTeX's default fonts show as other characters.
    tex = report.latex(found)
    assert "gamma=0.1 -$>$ 1.0 & +1.00" in tex
    assert not set("<>") & set(tex.replace("$<$", "").replace("$>$", ""))


def test_the_files_hold_the_same_numbers(tmp_path: Path) -> None:
    found = results(study(GAMMA, name="a_b"), {BASE: [80.0, 82.0, 84.0], ARM_A: [81.0, 84.0, 87.0]})
    report.write(found, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(report.FILES)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "ablation.csv").read_text())))
    assert [float(row["mean"]) for row in rows] == [82.0, 84.0] and float(rows[1]["difference"]) == 2.0
    tex = (tmp_path / "ablation.tex").read_text()
    assert tex.startswith("% \\usepackage{booktabs}\n")
    assert r"a\_b" in tex and r"84.00 $\pm$ 3.00" in tex and "%" not in tex.replace(r"\%", "")[1:]
    body = tex[tex.index(r"\midrule") : tex.index(r"\bottomrule")]
    assert {line.count("&") for line in body.splitlines()[1:] if line.strip()} == {10}
