"""The actions that a lane can run."""

from __future__ import annotations

# Name -> the function that runs the action, as module:function. Each takes the task's trials and the keywords
# `report` and `workspace`, as trainables.training.loop.train does, and what the task asks besides.
ACTIONS = {
    "train": "trainables.training.loop:train",
    "prepare": "trainables.references:prepare",
    "raw_pixels": "trainables.references:raw_pixels",
    "untrained": "trainables.references:untrained",
    "teacher": "trainables.references:teacher",
    "latency": "trainables.references:latency",
    "evaluate": "trainables.downstream.run:evaluate",
    "equal_compute": "trainables.references:equal_compute",
}
