"""What a server quotes of a key or question is masked."""

from hypothesis import given
from hypothesis import strategies as st

from dynalign.endpoint.scrub import LONGEST, WINDOW, scrubbed


def test_a_quotation_is_masked_and_the_rest_stays() -> None:
    said = scrubbed(
        "bad input 'tell me about roses and gardens' at messages[0]", ["tell me about roses and gardens"]
    )
    assert said == "bad input '***' at messages[0]"


def test_a_short_key_is_masked_as_a_whole() -> None:
    assert scrubbed("key k3y is wrong, k3 may stay", ["k3y"]) == "key *** is wrong, k3 may stay"


def test_an_empty_secret_masks_nothing_and_lines_become_one() -> None:
    assert scrubbed("first\n  second", ["", "  "]) == "first second"


@given(st.text(max_size=40), st.text(alphabet="abc", min_size=WINDOW, max_size=60), st.text(max_size=300))
def test_no_run_of_a_secret_survives_wherever_it_stands(before: str, secret: str, after: str) -> None:
    said = scrubbed(before + secret + after, [secret])
    assert len(said) <= LONGEST
    assert not any(secret[start : start + WINDOW] in said for start in range(len(secret) - WINDOW + 1))
