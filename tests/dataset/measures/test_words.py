import unicodedata

import pytest

from dynalign.dataset.measures.words import words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don’t  PANIC — yet!", ["dont", "panic", "yet"]),
        (
            "ＷＩＤＥ letters, soft\u00adhyphen, zero\u200bwidth",
            ["wide", "letters", "softhyphen", "zerowidth"],
        ),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("no\u00a0break\x00and\x1fcontrol", ["no", "break", "and", "control"]),
        ("写信。は", ["写", "信", "は"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("3.14 x_y", ["3", "14", "x", "y"]),
        ("", []),
        ("— … !", []),
    ],
)
def test_words_are_what_is_left_without_case_space_and_punctuation(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_composed_and_decomposed_letters_are_the_same() -> None:
    text = "Ångström, café, ﬁsh, Ⅷ, İstanbul"
    forms = {tuple(words(unicodedata.normalize(form, text))) for form in ("NFC", "NFD", "NFKC", "NFKD")}
    assert len(forms) == 1
