"""Prompts that were in the hands of a worker when it died: suspects, until a worker survives them.

A worker takes several groups at a time, and its death does not say which of them broke it. So a suspect is leased alone: to a
worker that holds nothing else, and that gets nothing else until it has reported. The innocent ones are scored and cleared; a
poisonous one breaks alone, and after poison_attempts deaths its group is withheld. Its prompt stays a suspect: when the next epoch
draws it, it costs one worker at most, and one that had bad luck with its machines gets another chance.

Nobody starves and nothing locks up, by two rules. A worker that holds nothing may have whatever is next, a suspect too. A worker
that holds something passes a suspect over only while some worker has one in hand; else it gets nothing, and so runs empty. While
suspects wait there is therefore always a worker that tests one, or one that is about to. One worker alone tests them one after
the other; of many, the others go on meanwhile. A group that waits has no age yet (it is born when it is leased), so that passing
over touches no age bound.
"""

from collections.abc import Iterable, Mapping


class Quarantine:
    """poison_attempts: workers that a prompt may break. broke: prompt index to the names of the workers that it broke, in order."""

    def __init__(self, poison_attempts: int, broke: Mapping[int, tuple[str, ...]]) -> None:
        self._poison_attempts = poison_attempts
        self._broke = dict(broke)

    def __len__(self) -> int:
        return len(self._broke)

    def __contains__(self, prompt_index: int) -> bool:
        return prompt_index in self._broke

    def is_poison(self, prompt_index: int) -> bool:
        return len(self.workers(prompt_index)) >= self._poison_attempts

    def workers(self, prompt_index: int) -> tuple[str, ...]:
        """The workers that the prompt broke since it was last scored."""
        return self._broke.get(prompt_index, ())

    def accuse(self, worker: str, prompt_indexes: Iterable[int]) -> None:
        """One death counts once against each prompt."""
        for prompt_index in set(prompt_indexes):
            self._broke[prompt_index] = (*self.workers(prompt_index), worker)

    def clear(self, prompt_index: int) -> None:
        """A worker survived it."""
        self._broke.pop(prompt_index, None)
