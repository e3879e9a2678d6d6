"""A sweep whose trials would be others today: which of them are looked at before it goes on."""

from __future__ import annotations

import pytest
from ledger_records import end, head, start, suggest

from raykd.records.history import History
from raykd.runs.changed_spec import refuse_other_inputs
from raykd.spec.search import load_sweep
from trainables.core.errors import UserError


def test_a_trial_that_would_go_on_under_another_name_is_refused() -> None:
    """RRKD with a queue of anchors was corrected: a trial of an older version does not go on as a new one."""
    spec = load_sweep("rrkd")
    batch, queue = (
        {"lr": 0.002, "anchors": a, "matching": "mse", "centre": True, "views.strength": 0.5}
        for a in ("in_batch", "queue")
    )
    first = suggest(spec.trial(batch, 0).signature(), 0, **batch)
    old = suggest("0" * 8, 1, **queue)  # as an older version called it
    running = [head(), first, start(first["trial"]), end(first["trial"]), old, start("0" * 8)]
    with pytest.raises(UserError, match=r"trial 00000000 would be .* today: .*raykd has changed since"):
        refuse_other_inputs(spec, History.of(running))
    refuse_other_inputs(spec, History.of([*running, end("0" * 8)]))  # what has ended stays as it is
    with pytest.raises(UserError, match="trial 00000000 would be"):  # but of the first of all
        refuse_other_inputs(spec, History.of([head(), old, start("0" * 8), end("0" * 8)]))
