"""Prompts under quarantine: a worker died while it held them, and no worker has survived them since.

A worker holds several leases at a time, so its death does not say which prompt caused it. A prompt under
quarantine is therefore leased alone: to a worker that holds nothing else, and that gets nothing else until it
has reported. Only a death with the prompt leased alone counts against it. An innocent prompt is scored and
released. A poisonous one ends one worker after the other; after poison_attempts such deaths its group is
withheld. The prompt stays under quarantine: when the next epoch draws it, it costs one worker at most, and a
prompt whose workers died of other causes gets another chance.

`LeaseTable` applies the two rules that keep this free of starvation and deadlock.
"""

from collections.abc import Iterable, Mapping

from dynalign.rollout.ledger.values import PromptId


class Quarantine:
    """poison_attempts: workers that a prompt may break. broken: the prompts that are under quarantine at the
    start, each with the names of the workers that died with it leased alone."""

    def __init__(self, poison_attempts: int, broken: Mapping[PromptId, tuple[str, ...]]) -> None:
        self._poison_attempts = poison_attempts
        self._broken = dict(broken)

    def __len__(self) -> int:
        return len(self._broken)

    def __contains__(self, prompt: PromptId) -> bool:
        return prompt in self._broken

    def is_poison(self, prompt: PromptId) -> bool:
        """Whether the prompt has broken poison_attempts workers."""
        return len(self.workers(prompt)) >= self._poison_attempts

    def workers(self, prompt: PromptId) -> tuple[str, ...]:
        """The workers that died with the prompt leased alone, since it was last scored."""
        return self._broken.get(prompt, ())

    def admit(self, prompts: Iterable[PromptId]) -> None:
        """A worker died that held all of `prompts`: none of them is blamed yet."""
        for prompt in prompts:
            self._broken.setdefault(prompt, ())

    def blame(self, prompt: PromptId, worker: str) -> None:
        """`worker` died with nothing but `prompt` leased."""
        self._broken[prompt] = (*self.workers(prompt), worker)

    def release(self, prompt: PromptId) -> None:
        """A worker survived the prompt."""
        self._broken.pop(prompt, None)
