"""Verifiable rewards for `judge.kind: function`: f(prompt, completion) -> score in 0..5, the same scale as the judge's."""

WORD_LIMIT = 15
SHORT_LETTERS = 4


def short_question(prompt: str, completion: str) -> float:
    """5 = answers with one question of at most 15 words.

    Half of the score is for ending with a question mark, half for brevity (falling to 0 at 30 words); nothing at all scores 0.
    """
    words = len(completion.split())
    if words == 0:
        return 0.0
    brevity = min(1.0, max(0.0, 2.0 - words / WORD_LIMIT))
    return 2.5 * float(completion.rstrip().endswith("?")) + 2.5 * brevity


def short_words(prompt: str, completion: str) -> float:
    """5 = every word has at most four letters; the share of such words otherwise. Answers rarely score alike, so groups have signal."""
    words = completion.split()
    return (
        5.0 * sum(len(word.strip(".,:;!?\"'()*")) <= SHORT_LETTERS for word in words) / len(words)
        if words
        else 0.0
    )
