"""Study files: what they compile to, and what is refused with which reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from studies import BASE, GAMMA, METHODS, PARTS, study

from raykd.ablation.budget import steps_of, with_costs
from raykd.ablation.guard import check_study, differences
from raykd.ablation.study import load_study
from raykd.console.screen import Line
from raykd.runs.retune import searches
from raykd.runs.study_plan import plan_study, plan_unstarted, study_lines
from raykd.spec.sections import WorkersSpec
from raykd.spec.study import StudySpec
from raykd.storage.open_storage import open_sweep
from trainables.core.errors import UserError
from trainables.networks.backbones import backbone_facts
from trainables.planning.compute import step_flops
from trainables.spec.trial import ModelSpec
from trainables.training.flat_names import flatten

torch.set_num_threads(1)


def test_an_arm_is_the_base_with_its_settings() -> None:
    spec = study(PARTS)
    assert list(spec.arms) == ["base", "without mean student", "without symmetric term"]
    assert spec.samples == 9 and spec.scheduler.name == "none"
    base, arm = (spec.arm_trial(label, 2) for label in list(spec.arms)[:2])
    assert differences(base, arm) == {"mean_student": (True, False)}
    assert base.seed == arm.seed == 2 and base.optim.lr == arm.optim.lr == 0.006


def test_a_study_survives_the_ledger() -> None:
    for raw in (PARTS, METHODS, {**GAMMA, "replicates": None, "decide": True, "max_replicates": 6}):
        spec, _ = check_study(study(raw))
        again = StudySpec.model_validate(spec.model_dump(mode="json"))
        assert again.hash() == spec.hash()
        assert [again.arm_trial(a, 1) for a in spec.arms] == [spec.arm_trial(a, 1) for a in spec.arms]


def test_fixed_reaches_every_arm_that_has_the_field_and_no_other() -> None:
    spec = study(METHODS, base={**BASE, "fixed": {"lr": 0.006, "retro.gamma": 0.3}})
    retro, seed, moco = (flatten(spec.arm_trial(label)) for label in spec.arms)
    assert retro["lr"] == seed["lr"] == moco["lr"] == 0.006
    assert retro["gamma"] == 0.3 and "gamma" not in seed and moco["epochs"] == 4


def test_what_follows_from_another_method_is_named() -> None:
    spec, _ = check_study(study(METHODS))
    also = spec.arms["seed"].also
    assert also["gamma"] == (0.1, None) and "lr" not in also
    assert spec.arms["moco"].also["teacher"] == ("test_resnet", None)
    assert spec.arms["retro"].also == {}


def test_what_another_preset_brings_along_is_refused_unless_allowed() -> None:
    apart = {"retro": {}, "seed": {"method": "seed", "preset": "paper"}}
    with pytest.raises(UserError, match=r"arms\.seed: differs from 'retro'.*batch_size.*`allow: \["):
        check_study(study(METHODS, arms=apart))
    with pytest.raises(UserError) as refused:
        check_study(study(METHODS, arms=apart, allow=["batch_size"]))
    assert "batch_size is" not in str(refused.value)


def test_a_teacher_trained_in_another_way_brings_its_settings_along_and_is_refused() -> None:
    arms = {"a": {}, "b": {"teacher.train.preset": "paper"}}
    with pytest.raises(UserError, match=r"arms\.b: differs.*teacher\.train\.optim"):
        check_study(study(METHODS, arms=arms))


def test_the_grain_of_a_score_is_one_image_of_one_draw() -> None:
    spec, _ = check_study(study(GAMMA))
    # 1797 images, 600 of them the test split; a third of the 1197 others is held out: 399 or so.
    images = 100 / (spec.study.step * 30)
    assert images == pytest.approx(round(images), abs=1e-6) and 350 < images < 450


def test_trained_parameters_are_counted() -> None:
    arms = {"retro": {}, "rate": {"lr": 0.01}, "tuned": {"head": "tuned"}, "two": {"adapter": "mlp"}}
    spec, _ = check_study(study(METHODS, arms=arms))
    base, rate, tuned, two = (arm.trained_parameters or 0 for arm in spec.arms.values())
    # A tuned head is the teacher's, MoCo's on test_resnet: two layers, the hidden one as wide as features.
    width = backbone_facts(ModelSpec(arch="test_resnet"), 16).feature_dim
    assert base == rate > 0
    assert tuned - base == width * width + width + width * 128 + 128
    assert two > base
    assert spec.written().arms == study(METHODS, arms=arms).arms, "what is found out is no part of the file"


def test_what_a_step_costs_is_counted_once_for_arms_of_one_arithmetic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arms = {"base": {}, "weight": {"gamma": 3.0}, "queue": {"queue_size": 256}, "mlp": {"adapter": "mlp"}}
    spec, _ = check_study(study(METHODS, arms={**arms, "moco": {"method": "moco"}}))
    every = {label: step_flops(spec.arm_trial(label)) for label in spec.arms}
    counted = []
    monkeypatch.setattr(
        "trainables.planning.compute.step_flops", lambda of: counted.append(of) or step_flops(of)
    )
    assert {label: arm.step_flops for label, arm in with_costs(spec).arms.items()} == every
    assert len(counted) == 4 and len(set(every.values())) == 4


def test_published_numbers_are_found_by_level() -> None:
    spec = study(GAMMA, published={"source": "Table 5", "values": {"0.1": 80.0, "gamma=1.0": 70.0}})
    assert spec.study.published is not None
    assert spec.study.published.values == {"gamma=0.1": 80.0, "gamma=1.0": 70.0}


def test_overrides_reach_the_base_and_factors_with_dots(tmp_path: Path) -> None:
    import yaml

    (tmp_path / "s.yaml").write_text(yaml.safe_dump(GAMMA))
    sets = [
        "base.fixed.views.strength=0.7",
        "base.epochs=3",
        "factors.views.strength=[0.7, 1]",
        "factors.gamma=",
    ]
    spec = load_study(tmp_path / "s.yaml", sets, tmp_path)
    assert spec.epochs == 3 and spec.fixed["views.strength"] == 0.7
    assert list(spec.arms) == ["views.strength=0.7", "views.strength=1"]


@pytest.mark.parametrize(
    ("raw", "change", "said"),
    [
        (GAMMA, {"replicates": 1}, r"replicates: one replicate has no spread.*at least 2"),
        (GAMMA, {"replicates": None}, "replicates: is missing"),
        (GAMMA, {"factors": {"gama": [0.1, 1]}}, r"factors\.gama: no such field.*'gamma'"),
        (GAMMA, {"factors": {"hidden": [1, 2]}}, r"factors\.hidden: no such field.*belongs to .*disco"),
        (GAMMA, {"factors": {"gamma": [0.1]}}, "nothing to compare"),
        (GAMMA, {"factors": {"gamma": [0.1, 1, 1.0]}}, r"factors\.gamma\.2: stands there twice"),
        (GAMMA, {"factors": {"seed": [0, 1]}}, r"factors\.seed: is no factor.*`replicates"),
        (
            GAMMA,
            {"factors": {"method": ["retro", "moco"]}},
            r"factors\.method: is no factor.*`design: compare`",
        ),
        (GAMMA, {"allow": ["batchsize"]}, r"allow\.0: no such field.*'batch_size'"),
        (GAMMA, {"factors": {"data.split_seed": [0, 1]}}, "scores on different images do not compare"),
        (GAMMA, {"factors": {}}, "factors: is missing"),
        (GAMMA, {"design": "ablate"}, "design: .*one_at_a_time"),
        (GAMMA, {"score_at": "lst"}, "score_at: .*'last'"),
        (GAMMA, {"components": {"x": {}}}, "components: is no part of `design: one_at_a_time`"),
        (GAMMA, {"resolution": 3}, "resolution: is no part"),
        (GAMMA, {"decide": True}, "replicates: is what `decide` finds out"),
        (GAMMA, {"replicates": None, "decide": True}, "max_replicates: `decide` has to know where it ends"),
        (
            GAMMA,
            {"design": "factorial", "replicates": None, "decide": True, "max_replicates": 9},
            "decide: closes arms one by one",
        ),
        (GAMMA, {"precision": 0.3, "decide": True}, "decide: and `precision`"),
        (GAMMA, {"max_replicates": 9}, "max_replicates: goes with"),
        (GAMMA, {"published": {"source": "p", "values": {"0.2": 1}}}, r"published\.values\.0\.2: is no arm"),
        (GAMMA, {"base": {**BASE, "samples": 3}}, r"base\.samples: no such field"),
        (GAMMA, {"base": {"sweep": "gone"}}, "name: .*holds no sweeps"),
        (GAMMA, {"base": {"sweep": "gone", "epochs": 3}}, r"base\.epochs: .*taken as it is"),
        (GAMMA, {"against": "gamma=1.0"}, "against: goes with `design: compare`"),
        (METHODS, {"against": "seeed"}, "against: no such arm.*'seed'"),
        (METHODS, {"arms": {"a": {}, "b": {"method": "sed"}}}, r"arms\.b\.method: no such method.*'seed'"),
        (METHODS, {"arms": {"a": {}, "b": {"hidden": 3}}}, r"arms\.b\.hidden: no such field"),
    ],
)
def test_bad_input_is_refused_with_the_reason(raw: dict[str, Any], change: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        study({k: v for k, v in {**raw, **change}.items() if v is not None})


@pytest.mark.parametrize(
    ("raw", "change", "said"),
    [
        (GAMMA, {"factors": {"adapter": ["linear", "liner"]}}, r"adapter=liner\.adapter.*'linear'"),
        (GAMMA, {"factors": {"gamma": [0.1, -1]}}, r"arms\.gamma=-1\.gamma"),
        (PARTS, {"components": {"gamma": {"gamma": 0.1}}}, "arms.without gamma: is the same as the base"),
        (METHODS, {"arms": {"a": {}, "b": {"gamma": 1}, "c": {"gamma": 1}}}, "is the same as arm 'b'"),
        (GAMMA, {"factors": {"queue_size": [512, 500]}}, r"arms\.queue_size=500\.queue_size"),
        (GAMMA, {"base": {**BASE, "fixed": {"head": "old"}}}, r"head"),
    ],
)
def test_arms_that_cannot_be_are_refused(raw: dict[str, Any], change: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_study(study(raw, **change))


def test_at_equal_steps_half_the_batch_has_half_the_epochs() -> None:
    raw = {**GAMMA, "factors": {"batch_size": [128, 64]}, "base": {**BASE, "epochs": 16}}
    spec, _ = check_study(study(raw, budget="steps"))
    trials = [spec.arm_trial(label) for label in spec.arms]
    assert [trial.epochs for trial in trials] == [16, 8]
    assert steps_of(trials[0]) == steps_of(trials[1])
    assert spec.written().hash() == study(raw, budget="steps").hash()


def test_at_equal_compute_arms_cost_the_same_to_the_nearest_epoch(tmp_path: Path) -> None:
    arms = {"retro": {}, "moco": {"method": "moco"}}
    raw = {**METHODS, "arms": arms, "base": {**BASE, "epochs": 16}, "budget": "compute"}
    spec, _ = check_study(study(raw))
    retro, moco = (spec.arm_trial(label) for label in arms)
    assert retro.epochs == 16 < moco.epochs
    cost = moco.epochs * step_flops(moco) / (16 * step_flops(retro))
    assert abs(cost - 1) <= 0.5 / moco.epochs
    assert spec.arms["moco"].also.keys() >= {"teacher"} and "epochs" not in spec.arms["moco"].also


def test_a_plan_says_how_long_and_how_that_was_got(tmp_path: Path) -> None:
    raw = {**METHODS, "arms": {"retro": {}, "rate": {"lr": 0.01}, "moco": {"method": "moco", "epochs": 4}}}
    spec = with_costs(check_study(study({**raw, "replicates": 3, "lanes": 1}))[0])
    planned = plan_study(spec, open_sweep(tmp_path / "methods"))
    arms = {arm["arm"]: arm for arm in planned["arms"]}
    assert planned["most_flops"] == sum(3 * spec.cost(label)[1] for label in arms)  # type: ignore[operator]
    assert arms["retro"]["compute"] == arms["rate"]["compute"] == 1.0 > arms["moco"]["compute"] > 0.4
    assert arms["retro"]["seconds a trial"] == arms["rate"]["seconds a trial"] > 0
    assert planned["seconds"] == pytest.approx(3 * sum(arm["seconds a trial"] for arm in arms.values()))
    assert planned["teacher_seconds"] > 0 and planned["least_seconds"] is None
    said = [line.text for line in study_lines(planned, []) if isinstance(line, Line)]
    assert "flop in all" in said[1]
    timed = next(at for at, line in enumerate(said) if "on 1 lane of this machine" in line)
    assert "timed on a few steps of each arm" in said[timed]
    assert f"{planned['start_seconds']:.0f} s until Ray and its lanes have started" in said[timed + 1]

    large = spec.model_copy(update={"workers": WorkersSpec(count=1, cpus=100_000)})
    planned = plan_study(large, open_sweep(tmp_path / "methods"))
    assert planned["seconds"] is None and "cannot hold a lane" in planned["seconds_from"]


def test_a_budget_that_finds_the_epochs_takes_none() -> None:
    with pytest.raises(UserError, match=r"arms\.moco\.epochs: is what `budget: steps` finds out"):
        study(METHODS, budget="steps")
    decays = {**BASE, "optim": {"schedule": "multistep", "decay_epochs": [1]}}
    with pytest.raises(UserError, match=r"budget: 'steps' changes the epochs.*decays at fixed ones"):
        check_study(study(GAMMA, budget="steps", base=decays))


def test_every_arm_has_a_search_of_its_own_with_a_seed_of_its_own() -> None:
    axes = {"lr": {"log": [1e-3, 1e-2]}, "temperature": [0.1, 0.2]}
    spec, _ = check_study(study(METHODS, retune={"samples": 3, "axes": axes}))
    found = searches(spec)
    assert list(found) == list(spec.arms) and len({search.name for search in found.values()}) == 3
    for label, search in found.items():
        trial = search.trial({"lr": 0.004, "temperature": 0.1}, search.seeds[0])
        arm = spec.arm_trial(label)
        assert differences(arm, trial).keys() == {"lr", "temperature"} and trial.seed not in range(100)
        tuned = spec.arms[label].model_copy(update={"tuned": {"lr": 0.004, "temperature": 0.1}})
        after = spec.model_copy(update={"arms": {**spec.arms, label: tuned}})
        assert differences(after.arm_trial(label), trial) == {}
        assert after.written().hash() == spec.written().hash()
    assert found["moco"].epochs == 4


def test_retune_by_a_number_alone_searches_the_learning_rate_about_each_arms_own() -> None:
    arms = {"retro": {}, "faster": {"gamma": 1.0}, "moco": {"method": "moco"}}
    spec, _ = check_study(study(METHODS, arms=arms, retune=3))
    found = searches(StudySpec.model_validate(spec.model_dump(mode="json")))  # as the ledger gives it back
    for label, search in found.items():
        rate = spec.arm_trial(label).optim.lr
        assert search.samples == 3 and list(search.axes) == ["lr"]
        tried = [point["lr"] / rate for point in search.space.corners()]
        assert (min(tried), max(tried)) == pytest.approx((0.25, 4))
    for neither in ("three", True, [3]):
        with pytest.raises(UserError, match=r"retune: is no search .* `8`, or `\{samples: 8, axes"):
            study(METHODS, arms=arms, retune=neither)
    with pytest.raises(UserError, match=r"retune\.axes\.lr: is what arm 'lr=0.01' sets"):
        searches(study(GAMMA, factors={"lr": [0.006, 0.01]}, retune=3))
    with pytest.raises(UserError, match=r"retune\.axes\.lrr: no such field"):
        searches(study(GAMMA, retune={"samples": 3, "axes": {"lrr": [0.1, 0.2]}}))


def test_a_plan_says_where_a_mistake_was_written_as_a_run_does(tmp_path: Path) -> None:
    spec = study(GAMMA, factors={"gamma": [0.1, -3]})
    for check in (check_study, lambda spec: plan_unstarted(spec, open_sweep(tmp_path))):
        with pytest.raises(UserError, match=r"^arms\.gamma=-3\.gamma: wrong value"):
            check(spec)
    own = {"retro": {}, "seed": {"method": "seed", "preset": "paper"}}
    allow = ["optimizer", "lr", "decay_norms", "warmup_epochs", "batch_size"]
    with pytest.raises(UserError, match=r"^arms\.seed\.warmup_epochs: leave nothing of 2 epochs"):
        check_study(study(METHODS, arms=own, allow=allow))


def test_what_a_study_compares_is_not_tuned() -> None:
    spec = study(GAMMA, retune={"samples": 3, "axes": {"gamma": {"log": [0.1, 1]}}})
    with pytest.raises(UserError, match=r"retune\.axes\.gamma: is what arm 'gamma=1.0' sets"):
        searches(spec)
