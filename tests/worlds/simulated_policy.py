"""A policy, its judge and the writer of new prompts, as numbers.

Simulated: a prompt is a cell and a difficulty that its cell explains in part; the policy has a skill per part
of life, which grows with the groups that separate; a group's scores are 5·sigmoid(skill − difficulty + luck)
plus the judge's noise; a writer gives a cell's difficulty with an error. Real: the order of draws, the choice
of cells and prompts, the taxonomy.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from random import Random
from statistics import stdev

from dynalign.dataset.refresh_choice import GroupOutcome, choose, group_usefulness, useful_cells
from dynalign.dataset.taxonomy import even_cells, load_taxonomy
from dynalign.rollout.prompts import OrderChange, PromptOrder

CANDIDATES = 8
GROUPS_PER_STEP = 16
JUDGE_NOISE = 0.1
LEARNING_RATE = 0.02
OWN_DIFFICULTY_STD = 0.7
"""Of a prompt, beside what its cell explains."""
TOKENS_PER_GROUP = CANDIDATES * 200


class SimulatedRun:
    """One run over `prompts` prompts. `without_signal` and `tokens` count its groups so far."""

    def __init__(self, seed: int, prompts: int) -> None:
        self._random = Random(seed)
        self._seed = seed
        self._taxonomy = load_taxonomy(None, "task")
        self._hardness = {
            (axis, value): self._random.gauss(0.0, 2.0 if axis == "domain" else 1.0)
            for axis, values in self._taxonomy.items()
            for value in values
        }
        self._skills: defaultdict[str, float] = defaultdict(lambda: 0.5)
        self._cells = [asdict(cell) for cell in even_cells(self._taxonomy, prompts, seed)]
        self._difficulties = [self._written(cell) for cell in self._cells]
        self._order = PromptOrder(prompts, seed)
        self._outcomes: list[GroupOutcome] = []
        self.step = 0
        self.draws = 0
        self.without_signal = 0
        self.refreshed = 0

    @property
    def tokens(self) -> int:
        """Completion tokens so far."""
        return self.draws * TOKENS_PER_GROUP

    def train(self, tokens: int) -> None:
        """Goes on until `tokens` are generated."""
        while self.tokens < tokens:
            self.step += 1
            for _ in range(GROUPS_PER_STEP):
                self._group(self._order.at(self.draws).index)
                self.draws += 1

    def refresh(self) -> None:
        """Saturated prompts give way to as many new ones in useful cells."""
        choice = choose(self._cells, self._outcomes)
        wanted = len(choice.saturated)
        seed = self._seed + self.refreshed
        cells = [asdict(cell) for cell in useful_cells(choice, self._taxonomy, wanted, seed)]
        self._cells += cells
        self._difficulties += [self._written(cell) for cell in cells]
        self.refreshed += wanted
        self._order = self._order.changed(OrderChange(self.draws, wanted, frozenset(choice.saturated)))

    def _written(self, cell: Mapping[str, str]) -> float:
        explained = sum(self._hardness[axis, value] for axis, value in cell.items() if value)
        return explained + self._random.gauss(0.0, OWN_DIFFICULTY_STD)

    def _group(self, prompt: int) -> None:
        domain = self._cells[prompt]["domain"]
        ability = self._skills[domain] - self._difficulties[prompt]
        scores_G = [self._score(ability) for _ in range(CANDIDATES)]
        spread = stdev(scores_G)
        signal = spread >= 2.0 * JUDGE_NOISE
        usefulness = group_usefulness(scores_G, JUDGE_NOISE) if signal else 0.0
        self._outcomes.append(GroupOutcome(prompt, self.step, usefulness))
        self.without_signal += not signal
        if signal:
            self._skills[domain] += LEARNING_RATE * spread

    def _score(self, ability: float) -> float:
        luck = self._random.gauss(0.0, 1.0)
        return 5.0 / (1.0 + math.exp(-(ability + luck))) + self._random.gauss(0.0, JUDGE_NOISE)
