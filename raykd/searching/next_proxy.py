"""Which probe and which first rung the next sweep should stop trials by: what the audit of this one supports.

    for line in advice(spec, history): print(line)

The rule: a score predicts the end well enough at an epoch if its rank correlation with the final score is
`ENOUGH` or more at the lower end of the 95 % interval. The earliest such epoch is recommended as first rung.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from raykd.records.history import History
from raykd.records.recorded_spec import spec_of
from raykd.searching.proxy_audit import Ended, ended, predicted
from raykd.spec.schedulers.base import milestones
from raykd.spec.search import SearchSpec
from raykd.stats.prediction import Estimate, Prediction
from trainables.evaluation.probes import find_probe
from trainables.spec.trial import ProbeSpec

ENOUGH = 0.7  # rank correlation
FEWEST = 10  # trials of one weight that say as much; with fewer the intervals are too short
_AUDIT = "`proxy: {audit: 0.1}`"


@dataclass(frozen=True)
class Judge:
    """A metric at an epoch that could have stopped trials."""

    metric: str  # score | probe/NAME
    epoch: int
    found: Prediction

    @property
    def least(self) -> float:
        """The lower end of the rank correlation; -inf if there is none."""
        low = self.found.correlation.interval.low
        return low if math.isfinite(low) else -math.inf


def advice(spec: SearchSpec, history: History) -> list[str]:
    """Sentences with numbers: what the next sweep should stop trials by, or why this one cannot tell."""
    whole = ended(spec, history)
    if problem := _cannot_tell(spec, history, whole):
        return [problem]
    judges = usable_judges(spec, history, whole)
    if not judges:
        return ["No score was measured before the last epoch, so there is nothing to stop trials by."]
    rule = (
        f"Rule: the earliest epoch at which the rank correlation with the final score is {ENOUGH} or more, "
        "at the lower end of its 95 % interval."
    )
    own = [judge for judge in judges if judge.metric == "score"]
    first = next((judge for judge in own if judge.least >= ENOUGH), None)
    lines = [_of_score(spec, first, own), *_of_others(spec, first, judges)]
    weak = [name for name, of in predicted_by_method(whole, first).items() if of.correlation.value < ENOUGH]
    if weak:
        lines.append(f"Within {' and '.join(weak)} alone the rank correlation there is lower than {ENOUGH}.")
    return [*lines, rule]


def advice_of(history: History) -> list[str]:
    """The same of a sweep with an audit; [] for one that has none, and for a study."""
    spec = spec_of(history)
    return advice(spec, history) if isinstance(spec, SearchSpec) and spec.audited_share else []


def predicted_by_method(whole: list[Ended], judge: Judge | None) -> dict[str, Prediction]:
    """What a judge predicts within each method, where there are several and enough trials of it."""
    of = {} if judge is None else predicted(whole, judge.metric, judge.epoch)
    return {name: one for name, one in of.items() if name is not None and one.effective >= FEWEST}


def _cannot_tell(spec: SearchSpec, history: History, whole: list[Ended]) -> str:
    """Why nothing can be recommended; "" if it can."""
    stopped = any(
        t.audited is not None or (t.status == "stopped" and math.isfinite(t.last or 0.0))  # else it diverged
        for t in history.trials.values()
    )
    audited = sum(e.trial.audited is not None for e in whole)
    if stopped and not audited:
        why = "none of the stopped trials has run on to its end" + (" yet" if spec.audited_share else "")
        more = "" if spec.audited_share else f" In the next sweep {_AUDIT} lets a tenth of them run on."
        known = "so nobody knows which of them were stopped too early"
        return f"Nothing can be recommended for the next sweep: {why}, {known}.{more}"
    weights = [e.weight for e in whole]
    effective = sum(weights) ** 2 / sum(weight**2 for weight in weights) if weights else 0.0
    if effective < FEWEST:
        ran = f"{len(whole)} ran to the end"
        ran += (
            f", {audited} of them for the audit. They say as much as {effective:.0f} that were not chosen"
            if audited
            else ""
        )
        said = "Too few trials to recommend a probe or a rung for the next sweep"
        return f"{said}: {ran}, and {FEWEST} are needed."
    return ""


def usable_judges(spec: SearchSpec, history: History, whole: list[Ended]) -> list[Judge]:
    """What was measured before the last epoch and how it predicts the `final` of these trials, by epoch.

    Of one epoch the score itself comes first, then the best one.
    """
    probed = sorted({e for one in whole for e, m in one.trial.reports.items() if "score" in m})
    last = max(probed, default=0)
    wanted = sorted({*milestones(1, 2.0, spec.epochs), *spec.scheduler.rungs(spec.epochs)})
    epochs = dict.fromkeys(min((e for e in probed if e >= epoch), default=last) for epoch in wanted)
    judges = [
        Judge(metric, epoch, predicted(whole, metric, epoch, methods=False)[None])
        for epoch in epochs
        if epoch < last
        for metric in _metrics(spec, history, whole)
    ]
    return sorted(judges, key=lambda judge: (judge.epoch, judge.metric != "score", -judge.least))


def _metrics(spec: SearchSpec, history: History, whole: list[Ended]) -> list[str]:
    """The score, and the other probes that can compare the trials of this sweep."""
    named = dict.fromkeys(m for one in whole for metrics in one.trial.reports.values() for m in metrics)
    found = ["score"]
    return found + [metric for metric in named if is_judge(spec, metric)]


def is_judge(spec: SearchSpec, metric: str) -> bool:
    """Whether a metric is a probe beside the score that can compare the trials of this sweep."""
    name = metric.removeprefix("probe/")
    if name == metric or name.endswith("_se") or name == score_of(spec):
        return False
    probe = find_probe(name)
    return len(spec.methods) == 1 or probe is None or probe.comparable


def score_of(spec: SearchSpec) -> str:
    """The name of the probe that gives the score."""
    return str(spec.probe.get("score", ProbeSpec.model_fields["score"].default))


def _of_score(spec: SearchSpec, first: Judge | None, own: list[Judge]) -> str:
    name = score_of(spec)
    if first is None:
        best = max(own, key=lambda judge: judge.least)
        return (
            f"At no epoch before the last does {name} predict the end well enough to stop trials by it. It "
            f"comes nearest at epoch {best.epoch}: {numbers(best.found)}. Safer are a later `grace`, a "
            "probe with more labels, or `scheduler: none`."
        )
    grace = spec.scheduler.first_stop
    field = f"`scheduler: {{{spec.scheduler.stop_field}: {first.epoch}}}`"
    now = ", as now" if grace == first.epoch else "" if grace is None else f", where this sweep has {grace}"
    return (
        f"{name} predicts the end well enough from epoch {first.epoch} on: {numbers(first.found)}. For the "
        f"next sweep: {field if grace is not None else f'a scheduler with `grace: {first.epoch}`'}{now}."
    )


def _of_others(spec: SearchSpec, first: Judge | None, judges: list[Judge]) -> list[str]:
    """Other probes that would do earlier than the score does."""
    earlier = [
        judge
        for judge in judges
        if judge.metric != "score" and judge.least >= ENOUGH and (first is None or judge.epoch < first.epoch)
    ]
    if not earlier:
        return []
    best = earlier[0]
    name = best.metric.removeprefix("probe/")
    return [
        f"{name} does so from epoch {best.epoch} on: {numbers(best.found)}. `probe: {{score: {name}}}` "
        "would stop trials by it, and would name the best trial by it as well."
    ]


def numbers(found: Prediction, what: str = "trials") -> str:
    """A prediction in words, over so many of `what`."""
    said = f"rank correlation {_ends(found.correlation)} over {found.trials} {what}, "
    return said + f"regret {_ends(found.regret)} points over sets of {found.drawn}"


def _ends(found: Estimate) -> str:
    low, high = found.interval
    return f"{found.value:.2f} [{low:.2f}, {high:.2f}]"
