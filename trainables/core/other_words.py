"""Words that people bring along from other tools, and what raykd calls the same thing.

Similar spelling would mislead: `loguniform` looks like `uniform`, which loses the logarithm.
"""

from __future__ import annotations

# A word of Optuna, Ray Tune, timm, lightly, Lightning or transformers -> raykd's field or kind of axis, after
# its section.
OTHER_WORDS = {
    **dict.fromkeys(("n_trials", "num_samples", "num_trials", "max_trials", "trials", "n_iter"), "samples"),
    **dict.fromkeys(("time_budget_s", "time_budget", "timeout", "max_time", "wall_time"), "time_limit"),
    **dict.fromkeys(("n_jobs", "max_concurrent_trials", "max_concurrent", "concurrency"), "lanes"),
    **dict.fromkeys(("search_alg", "search_algorithm", "algorithm", "searcher"), "sampler"),
    **dict.fromkeys(("pruner", "early_stopping", "stopper"), "scheduler"),
    **dict.fromkeys(
        ("search_space", "param_space", "space", "params", "parameters", "hyperparameters"), "axes"
    ),
    **dict.fromkeys(("resources_per_trial", "resources", "scaling_config"), "workers"),
    **dict.fromkeys(("max_failures", "max_retries", "retries"), "attempts"),
    **dict.fromkeys(("num_epochs", "max_epochs", "n_epochs", "max_t", "epoch"), "epochs"),
    **dict.fromkeys(("seed", "random_state", "random_seed"), "seeds"),
    **dict.fromkeys(("dataset", "datasets", "train_data"), "data"),
    **dict.fromkeys(("augmentation", "augmentations", "transform", "transforms"), "views"),
    **dict.fromkeys(("optimiser", "training"), "optim"),
    **dict.fromkeys(("metric", "monitor"), "probe.score"),
    **dict.fromkeys(("grace_period", "min_resource", "min_t", "warmup_steps"), "scheduler.grace"),
    **dict.fromkeys(("reduction_factor", "eta"), "scheduler.factor"),
    **dict.fromkeys(("num_workers", "world_size"), "workers.count"),
    **dict.fromkeys(("num_gpus", "n_gpus", "gpus_per_trial", "devices"), "workers.gpus"),
    **dict.fromkeys(("num_cpus", "n_cpus", "cpus_per_trial"), "workers.cpus"),
    **dict.fromkeys(("learning_rate", "base_lr", "max_lr"), "optim.lr"),
    **dict.fromkeys(("wd", "decay"), "optim.weight_decay"),
    **dict.fromkeys(("bs", "batch", "batchsize", "train_batch_size"), "optim.batch_size"),
    **dict.fromkeys(("lr_scheduler", "lr_schedule"), "optim.schedule"),
    **dict.fromkeys(("grad_clip", "max_grad_norm", "gradient_clip_val", "clip_grad_norm"), "optim.clip_grad"),
    **dict.fromkeys(("accum_steps", "grad_accum", "accumulate_grad_batches"), "optim.accumulate"),
    **dict.fromkeys(("img_size", "input_size", "resolution", "crop_size"), "data.image_size"),
    **dict.fromkeys(("root", "data_dir", "dir"), "data.path"),
    **dict.fromkeys(("model", "architecture", "backbone", "model_name"), "student.arch"),
    **dict.fromkeys(
        ("weights", "ckpt", "pretrained_path", "resume", "checkpoint_path"), "teacher.checkpoint"
    ),
    **dict.fromkeys(("loguniform", "log_uniform", "qloguniform", "lograndint", "logspace"), "axes.log"),
    **dict.fromkeys(("quniform", "float", "range", "linspace"), "axes.uniform"),
    **dict.fromkeys(("randint", "qrandint", "int"), "axes.integer"),
    **dict.fromkeys(("choice", "choices", "categorical", "grid", "grid_search", "values"), "axes.pick"),
}


def field_for(word: str) -> str | None:
    """raykd's word for the same thing, with its section (`scheduler.grace`); None if it is not known."""
    return OTHER_WORDS.get(word.lower().replace("-", "_"))
