"""What a trial is called: fields that came later change no old name; a corrected computation has another."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from trainables.methods import load_method, methods
from trainables.methods.base import TAUGHT
from trainables.spec.trial import CORRECTED, YOUNGER, YOUNGER_CONFIG, DataSpec, OptimSpec, TrialSpec, ViewSpec
from trainables.training.resolve import resolve

torch.set_num_threads(1)

# As commit 1624809 named them: sweeps of that time go on under these names.
OLD_NAMES: dict[tuple[str, str | None], str] = {
    ("at", None): "7bc69d6d",
    ("at", "digits"): "b2bed22c",
    ("autoencoder", None): "9216c7e0",
    ("autoencoder", "digits"): "7f72a6ec",
    ("barlow", None): "c030d7ee",
    ("barlow", "digits"): "ce567502",
    ("byol", None): "4a65a6b8",
    ("byol", "digits"): "0f4530d6",
    ("cc", None): "b89e867c",
    ("cc", "digits"): "51a8d903",
    ("compress", None): "e2b68b6b",
    ("compress", "digits"): "d89ecc7c",
    ("disco", None): "37b37e64",
    ("disco", "digits"): "3b7293fd",
    ("fitnets", None): "f8f2b115",
    ("fitnets", "digits"): "90cbd1ce",
    ("kd", None): "9d2163ec",
    ("kd", "digits"): "7b73f7c8",
    ("lpkd", None): "10c00b68",
    ("lpkd", "digits"): "3e9f9509",
    ("moco", None): "0aeef208",
    ("moco", "digits"): "72595b52",
    ("nst", None): "e4967591",
    ("nst", "digits"): "6587cc41",
    ("oss_style", None): "7720fe03",
    ("oss_style", "digits"): "5a56288e",
    ("pkt", None): "80c3dd51",
    ("pkt", "digits"): "f89a6c06",
    ("projector", None): "54d03c59",
    ("projector", "digits"): "40006220",
    ("rekd_style", None): "42d119f6",
    ("rekd_style", "digits"): "dfb54e66",
    ("retro", None): "2ca5229b",
    ("retro", "digits"): "dcf024bd",
    ("rkd", None): "088fc77d",
    ("rkd", "digits"): "8295159d",
    ("rrkd", None): "a7cb8976",
    ("rrkd", "digits"): "73d01507",
    ("sacl", None): "c1c207be",
    ("sacl", "digits"): "81f530f6",
    ("seed", None): "b375f77f",
    ("seed", "digits"): "50681af7",
    ("spkd", None): "715bc313",
    ("spkd", "digits"): "fd4224b7",
    ("ssl_small", None): "455c591e",
    ("ssl_small", "digits"): "0931e707",
    ("supervised", None): "8a6ecb9f",
    ("supervised", "digits"): "b64a4847",
    ("xd", None): "3b8dd62a",
    ("xd", "digits"): "1792c61c",
}


def raw(name: str, preset: str | None = None, **more: Any) -> dict[str, Any]:
    written = {"method": name, "student": {"arch": "test_resnet"}, "epochs": 1, "preset": preset, **more}
    if load_method(name).needs & TAUGHT:
        written["teacher"] = {"arch": "test_resnet", "train": {"method": "moco", "epochs": 1}}
    return written


@pytest.mark.parametrize(("name", "preset"), list(OLD_NAMES))
def test_old_trials_keep_their_names(name: str, preset: str | None) -> None:
    assert resolve(raw(name, preset)).signature() == OLD_NAMES[name, preset]


def without_younger(dump: dict[str, Any]) -> dict[str, Any]:
    """A trial as it was written down before its younger fields came."""
    old = copy.deepcopy(dump)
    for training in (old, *([old["teacher"]["train"]] if old.get("teacher") else [])):
        for section, fields in {**YOUNGER, "config": YOUNGER_CONFIG.get(training["method"], {})}.items():
            for field in fields if section in training else ():  # a teacher's training has no data
                del training[section][field]
    return old


@pytest.mark.parametrize("name", list(methods()))
def test_a_trial_that_was_written_down_without_them_is_the_same(name: str) -> None:
    trial = resolve(raw(name, "digits"))
    old = without_younger(trial.model_dump(mode="json"))
    assert TrialSpec.model_validate(old).signature() == trial.signature()
    assert resolve(old) == trial  # and comes to the same settings
    assert load_method(name).Config(**old["config"]) == load_method(name).Config(**trial.config)


def test_younger_fields_are_left_out_at_their_defaults_alone() -> None:
    for section, model in (("data", DataSpec), ("views", ViewSpec), ("optim", OptimSpec)):
        for field, before in YOUNGER[section].items():
            assert model.model_fields[field].get_default(call_default_factory=True) == before
    for name, fields in YOUNGER_CONFIG.items():
        for field, before in fields.items():
            assert load_method(name).Config.model_fields[field].default == before
    plain = resolve(raw("retro"))
    others = [
        raw("retro", views={"second": {"blur": 0.1}}),
        raw("retro", views={"operations": {"blur": 0.1}}),
        raw("retro", optim={"trust_coefficient": 0.02}),
        raw("retro", data={"fit": "whole"}),
        raw("retro", config={"consistency_weight": 32}),
        raw("retro", config={"mbconv_activation": "silu"}),
    ]
    written = raw("retro")
    written["teacher"]["train"] |= {"views": {"second": {"blur": 0.1}}}
    names = {resolve(one).signature() for one in [*others, written]}
    assert len(names) == 7 and plain.signature() not in names
    assert resolve(raw("retro", config={"consistency_weight": 1})).signature() == plain.signature()


def test_what_was_computed_wrongly_has_another_name() -> None:
    """Not the names that commit 1624809 gave them; their results are others now."""
    for name, fields in CORRECTED.items():
        for field, choices in fields.items():
            assert set(choices) < set(load_method(name).Config.model_fields[field].annotation.__args__)  # type: ignore[union-attr]
    assert resolve(raw("retro", config={"adapter": "mbconv"})).signature() != "f7c80661"
    assert resolve(raw("rrkd", config={"anchors": "queue"})).signature() != "10714047"


def test_a_teacher_from_a_file_that_sees_what_students_see_keeps_its_name() -> None:
    """As commit fa02e39 named such trials. A file that is not there is known by its path."""

    def named(**inputs: Any) -> str:
        teacher = {"arch": "resnet50", "checkpoint": "/nowhere/teacher.pth", **inputs}
        trial = {"method": "compress", "config": {}, "student": {"arch": "resnet18"}, "epochs": 1}
        data = {"image_size": 32, "margin": 4}
        return TrialSpec.model_validate({**trial, "teacher": teacher, "data": data}).signature()

    half = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    usual = {"channels": "rgb", "interpolation": "bilinear", "image_size": 32}
    assert named() == named(**usual, crop_share="data") == named(crop_share=32 / 36) == "e5ca15d5"
    assert named(**half) == named(**half, **usual, crop_share=32 / 36) == "bd8f59a7"
    others = ({"channels": "bgr"}, {"interpolation": "bicubic"}, {"image_size": 64}, {"crop_share": 0.5})
    assert len({"e5ca15d5", *(named(**one) for one in others)}) == 5
