import random
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest
from scipy.stats import binomtest

from dynalign.dataset.measures.near_duplicates import (
    THRESHOLD,
    NearDuplicate,
    NearDuplicateIndex,
    Twin,
    jaccard,
    near_duplicates,
    shingles,
)
from tests.worlds.planted_edits import BUILTIN, composed, edited


def test_the_similarity_is_that_of_words_and_pairs_of_words() -> None:
    # a b c ab bc | a b d ab bd: three of seven.
    assert jaccard(shingles("a b c"), shingles("A, b! d")) == pytest.approx(3 / 7)
    assert jaccard(shingles("a b"), shingles("B-A")) == pytest.approx(2 / 4)
    assert jaccard(shingles("!!!"), shingles("!!! ")) == 1.0
    assert jaccard(shingles("!!!"), shingles("???")) == 0.0
    assert jaccard(shingles("Don’t"), shingles("don't")) == 1.0


def test_planted_edits_of_a_tenth_of_the_words_are_found() -> None:
    chance = random.Random(1)
    originals = [*BUILTIN, *composed(728, chance)]
    index = NearDuplicateIndex()
    for number, text in enumerate(originals):
        index.add("earlier", number, text)
    found = [index.nearest(edited(text, chance)) for text in originals]
    right = sum(twin is not None and twin.number == number for number, twin in enumerate(found))
    assert right / len(originals) >= 0.99
    assert binomtest(right, len(originals)).proportion_ci(method="exact").low >= 0.985


def test_distinct_pairs_are_not_taken_for_near_duplicates() -> None:
    chance = random.Random(2)
    domains = list(combinations(BUILTIN, 2))
    frames = composed(2_000, chance)
    pairs = [*chance.sample(domains, 1_000), *zip(frames[::2], frames[1::2], strict=True)]
    wrong = 0
    for one, other in pairs:
        index = NearDuplicateIndex()
        index.add("", 0, one)
        wrong += index.nearest(other) is not None
    assert len(pairs) == 2_000
    assert binomtest(wrong, len(pairs)).proportion_ci(method="exact").high <= 0.01


def test_no_two_shipped_prompts_are_near_duplicates() -> None:
    assert near_duplicates(BUILTIN) == []
    closest = max(jaccard(one, other) for one, other in combinations(map(shingles, BUILTIN), 2))
    assert closest <= 0.25 < THRESHOLD


def test_one_pass_sees_the_set_itself_and_every_reference_and_keeps_the_first() -> None:
    texts = [
        "mend the old net by hand",
        "a leak",
        "Mend the old net, by hand!",
        "mend the old net by hand",
        "new",
    ]
    references = {"heldout": ["something else", "A  leak."], "ifeval": ["nothing of it"]}
    assert near_duplicates(texts, references) == [
        NearDuplicate(1, Twin("heldout", 1, 1.0)),
        NearDuplicate(2, Twin("", 0, 1.0)),
        NearDuplicate(3, Twin("", 0, 1.0)),
    ]


def test_what_is_left_out_is_near_to_a_text_that_is_kept() -> None:
    chance = random.Random(3)
    texts = composed(60, chance)
    texts += [edited(chance.choice(texts), chance) for _ in range(60)]
    left_out = near_duplicates(texts)
    numbers = {each.number for each in left_out}
    assert len(left_out) >= 55
    for each in left_out:
        assert each.twin.number not in numbers
        assert each.twin.number < each.number
        exact = jaccard(shingles(texts[each.number]), shingles(texts[each.twin.number]))
        assert each.twin.similarity == exact >= THRESHOLD


def test_another_process_decides_alike() -> None:
    program = (
        "from tests.worlds.planted_edits import composed, edited\n"
        "from dynalign.dataset.measures.near_duplicates import near_duplicates\n"
        "import random\nchance = random.Random(4)\ntexts = composed(30, chance)\n"
        "print(near_duplicates([*texts, *(edited(text, chance) for text in texts)]))\n"
    )
    root = Path(__file__).resolve().parents[3]
    answers = {
        subprocess.run(
            [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=60, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(answers) == 1
    assert len(answers.pop()) > 1_000


def test_progress_counts_the_examined_texts() -> None:
    said: list[int] = []
    near_duplicates((str(number) for number in range(2_500)), progress=said.append)
    assert said == [0, 1_000, 2_000]
