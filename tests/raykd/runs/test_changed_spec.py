"""A sweep whose trials would be others today: which of them are looked at before it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from ledger_records import end, head, start, suggest

from raykd.records.history import History
from raykd.records.recorded_spec import spec_of
from raykd.runs.changed_spec import refuse_changed_spec, refuse_other_inputs
from raykd.spec.search import find_space, load_sweep
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


@pytest.mark.parametrize("name", ["asha", "hyperband", "median", "none"])
def test_settings_of_other_schedulers_in_an_older_ledger_are_no_change(name: str, tmp_path: Path) -> None:
    """Older versions recorded the settings of all schedulers, whichever was in use."""
    changes = [f"scheduler={name}"]
    spec = load_sweep("rrkd", changes)
    recorded = spec.model_dump(mode="json")
    recorded["scheduler"] = {
        "grace": 1,
        "factor": 2.0,
        "brackets": 3,
        "min_samples": 3,
        **recorded["scheduler"],
    }
    source = {"path": str(find_space("rrkd")), "overrides": changes, "folder": str(tmp_path)}
    history = History.of([{**head(), "spec": recorded, "source": source}])
    assert spec_of(history) == spec
    refuse_changed_spec(spec_of(history), history, tmp_path)
    recorded["scheduler"]["name"] = "asha" if name == "none" else "none"
    with pytest.raises(UserError, match="is not what this sweep was started with: scheduler"):
        refuse_changed_spec(spec_of(history), history, tmp_path)


def test_trackers_may_change(tmp_path: Path) -> None:
    """What a sweep is told to changes no trial. The file's trackers count from then on."""
    path = tmp_path / "s.yaml"
    path.write_text(find_space("rrkd").read_text())
    spec = load_sweep(path)
    source = {"path": str(path), "overrides": [], "folder": str(tmp_path)}
    history = History.of([{**head(), "spec": spec.model_dump(mode="json"), "source": source}])
    assert "track" not in history.spec  # as in ledgers before it was a field
    path.write_text(f"{path.read_text()}\ntrack: {{wandb: {{project: other}}}}\n")
    now = refuse_changed_spec(spec_of(history), history, tmp_path)
    assert now is not None and now.track.model_dump() == {"wandb": {"project": "other"}}
    params = spec.space.around({})
    assert now.trial(params, 0).signature() == spec.trial(params, 0).signature()
    path.write_text(f"{path.read_text()}\nlanes: 7\n")
    with pytest.raises(UserError, match=r"started with: lanes: None -> 7\."):
        refuse_changed_spec(spec_of(history), history, tmp_path)
