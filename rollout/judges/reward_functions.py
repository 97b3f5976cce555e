"""Verifiable rewards that ship with dynalign, for `judge.kind: function`.

Each is f(prompt, completion) -> score in 0..5, the scale of every judge.
"""

WORD_LIMIT = 15
"""Words up to which `short_question` gives full marks for brevity."""
SHORT_LETTERS = 4
"""Letters of the longest word that `short_words` counts as short."""


def short_question(prompt: str, completion: str) -> float:
    """5 points for an answer that is one question of at most 15 words.

    Half of the score is for the question mark at the end, half for brevity, which falls to 0 at 30 words.
    An empty answer scores 0."""
    words = len(completion.split())
    if words == 0:
        return 0.0
    brevity = min(1.0, max(0.0, 2.0 - words / WORD_LIMIT))
    return 2.5 * float(completion.rstrip().endswith("?")) + 2.5 * brevity


def short_words(prompt: str, completion: str) -> float:
    """5 points times the share of words that have at most four letters.

    Answers rarely get the same score, so that nearly every group carries signal."""
    words = completion.split()
    if not words:
        return 0.0
    short = sum(len(word.strip(".,:;!?\"'()*")) <= SHORT_LETTERS for word in words)
    return 5.0 * short / len(words)
