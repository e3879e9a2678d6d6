"""How a trial trains and is probed: the sections `views`, `optim` and `probe`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from trainables.spec.data_spec import Spec


def _no_boolean(value: Any) -> Any:
    """Refuse a boolean, which pydantic reads as 0 or 1."""
    if isinstance(value, bool):
        raise ValueError("is yes or no, and a number is expected")
    return value


Number = Annotated[float, BeforeValidator(_no_boolean)]
Operations = dict[str, Number | tuple[Number, ...]]


class ViewSpec(Spec):
    """How images are augmented."""

    recipe: str = Field(
        "digits",
        description="moco_v2 | ssl_small | solo_learn | imagenet | light | cifar | digits | none",
    )
    strength: Annotated[float, Field(ge=0, le=2)] = Field(1.0, description="scales every range of the recipe")
    operations: Operations = Field(
        {},
        description="operation -> its number where the recipe has another, such as `{blur: 1.0, crop: 0.92}`",
    )
    second: Operations = Field(
        {}, description="likewise, for the second view alone; unused by methods with one view"
    )


class OptimSpec(Spec):
    """Optimizer, schedule and batch."""

    optimizer: str = Field("adamw", description="any name timm.optim knows")
    lr: Annotated[float, Field(gt=0)] = Field(2e-3, description="peak learning rate, used as it is")
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    decay_norms: bool = Field(False, description="decay biases and norms too, as MoCo's code does")
    sgd_momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="of SGD-like optimizers")
    schedule: Literal["cosine", "cosine_after_warmup", "step", "multistep", "constant"] = Field(
        "cosine",
        description="cosine: over all epochs, also those of the warm-up, whose end it starts below the peak; "
        "cosine_after_warmup: over the epochs that the warm-up leaves, from the peak",
    )
    decay_epochs: tuple[int, ...] = Field(
        (), description="epochs at which `multistep` (or every N, `step`) decays"
    )
    decay_rate: Annotated[float, Field(gt=0, lt=1)] = Field(0.1, description="factor of each decay")
    warmup_epochs: Annotated[int, Field(ge=0)] = Field(0, description="epochs of linear warm-up")
    min_lr: Annotated[float, Field(ge=0)] = Field(0.0, description="where cosine ends")
    batch_size: Annotated[int, Field(ge=2)] = Field(
        128, description="images of one optimizer step, all workers"
    )
    accumulate: Annotated[int, Field(ge=1)] = Field(
        1,
        description="micro-batches that make one step; losses on relations within a batch see one of them",
    )
    clip_grad: Annotated[float, Field(gt=0)] | None = Field(None, description="largest gradient norm")
    trust_coefficient: Annotated[float, Field(gt=0)] | None = Field(
        None, description="of LARS and LARC, eta in their paper; none: .001"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="autocast type; auto: bfloat16 on GPUs, float32 on CPUs"
    )
    compile: Literal["auto", "off", "on"] = Field(
        "auto",
        description="torch.compile of the networks; auto: on GPUs, where torch can; it changes roundings",
    )
    batch_norm: Literal["sync", "local"] = Field(
        "sync", description="sync: statistics over all workers, so that their number changes no result"
    )


class ProbeSpec(Spec):
    """How features are evaluated while training."""

    score: str = Field(
        "ridge_5shot", description="what the search maximises: ridge | ridge_Kshot | knn | rankme"
    )
    record: tuple[str, ...] = Field(("ridge_1shot", "ridge", "knn"), description="further probes to record")
    point: Literal["backbone", "adapter", "head"] = Field("backbone", description="where features are taken")
    every: Annotated[int, Field(ge=1)] = Field(
        1, description="epochs between probes; the last is always probed"
    )
    draws: Annotated[int, Field(ge=2)] = Field(30, description="fixed draws of a k-shot probe")
    max_images: Annotated[int, Field(ge=100)] = Field(
        50_000, description="images at most that a probe is fitted on, and scored on"
    )
