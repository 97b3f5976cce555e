"""TRL's GRPOTrainer as a program: `python -m dynalign.benchmarks.trl.trainer FILE`, run by the interpreter of
TRL's environment.

It imports only the reward function from dynalign. FILE is JSON with the keys model, prompts (one per group,
in order), config (arguments of GRPOConfig), function (a name in rollout/judges/reward_functions.py) and
steps_file, to which it appends a line at the end of each step: [seconds, mean reward].
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from dynalign.rollout.judges import reward_functions

Message = dict[str, str]


class Clock(TrainerCallback):
    """Times each step from the end of the one before: generation, rewards and update."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._ended_s = 0.0
        self._step_s = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._ended_s = time.monotonic()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        now_s = time.monotonic()
        self._step_s = now_s - self._ended_s
        self._ended_s = now_s

    def on_log(self, *_: Any, **arguments: Any) -> None:
        logs = arguments["logs"]
        if "reward" in logs:  # the log of a step; the summary of the run has none
            with self._file.open("a") as file:
                file.write(json.dumps([self._step_s, float(logs["reward"])]) + "\n")


def main(file: Path) -> None:
    work = json.loads(file.read_text())
    score = vars(reward_functions)[work["function"]]

    def reward(prompts: list[list[Message]], completions: list[list[Message]], **_: Any) -> list[float]:
        return [
            score(prompt[-1]["content"], answer[-1]["content"])
            for prompt, answer in zip(prompts, completions, strict=True)
        ]

    GRPOTrainer(
        model=work["model"],
        reward_funcs=reward,
        args=GRPOConfig(**work["config"]),
        train_dataset=Dataset.from_list(
            [{"prompt": [{"role": "user", "content": prompt}]} for prompt in work["prompts"]]
        ),
        callbacks=[Clock(Path(work["steps_file"]))],
    ).train()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
