"""Settings and commands of runs on a tiny random model, which take seconds a step and less."""

import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.worlds.chat_models import tiny_chat_model
from tests.worlds.command import ENVIRONMENT

PROMPTS_PER_STEP = 2

REAL: dict[str, Any] = {
    "steps": 2,
    "prompts": {"max_tokens": 1400},
    "rollout": {
        "prompts_per_step": PROMPTS_PER_STEP,
        "group_size": 4,
        "max_completion_tokens": 24,
        "kv_cache_gib": 0.2,
    },
    "judge": {"min_digit_mass": 0.0, "noise_fraction": 1.0},
    "learner": {"learning_rate": 1e-3, "token_budget": 2048},
    "heldout": {"prompts": 2, "every_steps": 2},
    "checkpoint": {"every_steps": 1, "keep_last": 2},
    "placement": {"object_store_gib": 0.2},
}
"""A run with the real engine, asynchronous, with held-out evaluation. The model is missing."""

BASE: dict[str, Any] = {
    "steps": 6,
    "prompts": {"max_tokens": 1400},
    "rollout": {
        "engine": "deterministic",
        "prompts_per_step": 2,
        "group_size": 4,
        "max_completion_tokens": 24,
        "kv_cache_gib": 0.2,
    },
    "judge": {"min_digit_mass": 0.0},
    "algorithm": {"max_staleness": 0},
    "learner": {"learning_rate": 1e-3, "token_budget": 2048, "precision": "float32"},
    "heldout": {"prompts": 0},
    "checkpoint": {"every_steps": 3},
    "placement": {"object_store_gib": 0.2},
}
"""A run with the deterministic engine, synchronous, without held-out evaluation. The model is missing."""


def config(folder: Path, **changed: dict[str, Any]) -> Path:
    """Writes BASE, with the sections of `changed` merged into it, and a tiny model to `folder`."""
    model = folder / "model"
    if not model.exists():
        tiny_chat_model(model)
    settings = {
        key: value | changed.get(key, {}) if isinstance(value, dict) else value for key, value in BASE.items()
    }
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(settings | {"model": str(model)}))
    return file


def started(command: list[str]) -> "subprocess.Popen[str]":
    """The command, running, with its output in one pipe."""
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT
    )
