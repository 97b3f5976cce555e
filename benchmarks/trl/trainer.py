"""TRL's GRPOTrainer by itself: `python -m dynalign.benchmarks.trl.trainer FILE`, with TRL's own Python. Of dynalign it imports the reward alone.

FILE is JSON: model, prompts (one per group, in order), config (of GRPOConfig), function (of dynalign.rollout.judges.reward_functions), steps_file. There
it writes a line per step as it ends: [seconds, mean reward].
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
    """A whole turn of the trainer's loop, from the end of one step to the end of the next: generating, rewards, update."""

    def __init__(self, file: Path) -> None:
        self._file, self._ended_s, self._step_s = file, 0.0, 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._ended_s = time.monotonic()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._step_s, self._ended_s = time.monotonic() - self._ended_s, time.monotonic()

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        if "reward" in logs:  # of a step; the run's summary has none
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
