"""The plan of an ablation study, for `raykd ablate --plan`: what it would do, and its worst-case cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from raykd.ablation.budget import with_costs
from raykd.ablation.costs import amount, times
from raykd.ablation.guard import check_study
from raykd.ablation.missing_files import without_files
from raykd.console.answers import besides as beside_lines
from raykd.console.screen import Grid, Line
from raykd.console.wording import counted, duration
from raykd.records.history import History
from raykd.runs.auxiliary import beside
from raykd.runs.forecast import START_S, Forecast, forecast, from_history
from raykd.runs.plan import data_of
from raykd.runs.retune import searches
from raykd.runs.sharing import sharing
from raykd.spec.study import StudySpec
from raykd.storage.base import SweepFolder

_COLUMNS = (
    "arm", "changes", "follows from it", "trained parameters", "epochs", "flops a step", "compute",
    "seconds a trial", "most epochs in all",
)  # fmt: skip


def plan_unstarted(
    spec: StudySpec, sweep: SweepFolder, memory: int | None = None
) -> tuple[dict[str, Any], list[str]]:
    """The plan of a study that has not begun, and remarks. Files of data and teacher may be missing.

    `memory` is what each worker has, in bytes; None: unknown. Raises `UserError` for what cannot work.
    """
    with without_files(spec) as (assumed, missing):
        checked, remarks = check_study(assumed, memory)
        return plan_study(with_costs(checked), sweep), [*remarks, *missing]


def plan_study(spec: StudySpec, sweep: SweepFolder, history: History | None = None) -> dict[str, Any]:
    """Each arm's differences and cost, and the worst case of all: trials, epochs, operations, seconds.

    The plan of a study that has begun covers the whole study, extensions included. Seconds are taken from the
    trials in `history` where some have ended. Else a few steps of each arm are timed on this machine, which
    takes about a second an arm for small networks.
    """
    rules = spec.study
    besides = beside(spec, sweep.storage, history)
    baseline = next((row["epochs"] for row in besides if row["what"] == "baseline"), 0)
    known = from_history(spec, history) if history is not None else None
    found = known or forecast(spec, sweep.storage, baseline)
    replicates = history.samples // len(spec.arms) if history is not None else rules.replicates
    base = spec.cost(rules.base)[1]
    arms: list[dict[str, Any]] = []
    for label, arm in spec.arms.items():
        changes = {name: value for name, value in (("method", arm.method), ("preset", arm.preset)) if value}
        changes |= arm.settings
        epochs, flops = spec.cost(label)
        arms.append(
            {
                "arm": label,
                "changes": ", ".join(f"{name} {value}" for name, value in changes.items()) or "nothing",
                "follows from it": ", ".join(f"{name} {a} -> {b}" for name, (a, b) in arm.also.items()),
                "trained parameters": arm.trained_parameters,
                "epochs": epochs,
                "flops a step": arm.step_flops,
                "compute": flops / base if flops is not None and base else None,
                "seconds a trial": found.trial_s.get(label),
                "most epochs in all": epochs * replicates,
                "most flops in all": None if flops is None else flops * replicates,
            }
        )
    until = "the sign is known" if rules.decide else f"± {rules.precision} points"
    counted = [arm["most flops in all"] for arm in arms]
    return {
        "name": spec.name,
        "design": rules.design.replace("_", " "),
        "base": rules.base,
        "replicates": f"until {until}, {replicates} at most" if rules.sequential else replicates,
        "trials": replicates * len(spec.arms),
        "most_epochs": sum(arm["most epochs in all"] for arm in arms),
        "most_flops": None if None in counted else sum(counted),
        "beside_flops": sum(row["flops"] for row in besides),
        "data": data_of(spec),
        "search_epochs": sum(s.samples * s.epochs for s in searches(spec).values()) if history is None else 0,
        **_seconds(spec, found, replicates),
        "beside": besides,
        "targets": sharing(spec),
        "arms": arms,
        "folder": str(sweep),
    }


def study_lines(planned: Mapping[str, Any], remarks: Iterable[str]) -> Iterator[Line | Grid]:
    """The lines and tables that show a study's plan, the worst case first."""
    yield Line(f"{planned['name']}: {planned['design']}, replicates: {planned['replicates']}", "bold")
    flops = "" if planned["most_flops"] is None else f", {amount(planned['most_flops'])}flop"
    most = f"{counted(planned['trials'], 'trial')}, {counted(planned['most_epochs'], 'epoch')}"
    yield Line(f"at most {most}{flops} in all")
    if planned["beside"] and planned["most_flops"] is not None:
        all_of_it = amount(planned["most_flops"] + planned["beside_flops"])
        yield Line(f"with what is trained besides, at most {all_of_it}flop")
    yield from map(Line, planned["data"]["lines"])
    if planned["search_epochs"]:
        yield Line(f"before them, {planned['search_epochs']} epochs at most of each arm's own search")
    if planned["seconds"] is None:
        yield Line(f"no time can be given: {planned['seconds_from']}", "yellow")
    else:
        lanes = planned["lanes"]
        where = f"on {counted(lanes, 'lane')} of this machine"
        most = f"about {duration(planned['seconds'] / lanes)} {where}"
        least = planned["least_seconds"]
        early = f"; {duration(least / lanes)} if every answer is there at the first look" if least else ""
        yield Line(f"{most}{' at most' * bool(least)}{early}, {planned['seconds_from']}")
        start = f"about {planned['start_seconds']:.0f} s until Ray and its lanes have started"
        yield Line(f"besides, {start}, and what decoding the data and the reference rows take")
        if planned["teacher_seconds"]:
            yield Line(f"before them, about {duration(planned['teacher_seconds'])} for what teaches")
        if planned["baseline_seconds"]:
            yield Line(
                f"beside them, about {duration(planned['baseline_seconds'])} of a lane for the baseline"
            )
    yield from map(Line, beside_lines(planned["beside"]))
    yield from map(Line, planned["targets"]["lines"])
    if "devices" in planned:
        yield Line(planned["devices"])
    if planned.get("room"):
        yield Line(planned["room"])
    rows = [[_cell(name, arm[name]) for name in _COLUMNS] for arm in planned["arms"]]
    yield from (Line(), Grid(_COLUMNS, rows), Line())
    yield from (Line(remark, "yellow") for remark in remarks)
    yield Line(f"files would go to {planned['folder']}; nothing was started")


def _seconds(spec: StudySpec, found: Forecast, replicates: int) -> dict[str, Any]:
    """Seconds of one lane: worst case, best case of a sequential study, and what comes before both."""
    rules = spec.study
    known = len(found.trial_s) == len(spec.arms)
    round_s = sum(found.trial_s.values())
    searched = found.search_s if known else 0.0
    return {
        "seconds": searched + round_s * replicates if known else None,
        "least_seconds": searched + round_s * rules.looks[0] if known and rules.looks else None,
        "start_seconds": START_S,
        "teacher_seconds": found.teacher_s,
        "baseline_seconds": found.baseline_s,
        "lanes": found.lanes,
        "seconds_from": found.how,
    }


def _cell(name: str, value: Any) -> Any:
    if value is None:
        return "–"
    if name in ("trained parameters", "flops a step"):
        return amount(value)
    return times(value) if name == "compute" else f"{value:.1f}" if name == "seconds a trial" else value
