from dynalign.dataset.measures.names import CommonName, common_names

TEXTS = [
    "A nurse, Elena Vasquez, asks on Monday. Should Elena's team wait?",
    "Write to Elena about the river. Mark my words.",
    "If you mark it, does Kofi see it? I think so, and I'm sure NASA does.",
    "Elena wants a plan.",
]


def test_names_are_counted_once_a_text_and_not_at_the_head_of_a_sentence() -> None:
    found = common_names(TEXTS)
    assert found[0] == CommonName("Elena", 2, 0.5)
    assert {each.name for each in found} == {"Elena", "Vasquez", "Kofi"}
    assert common_names(TEXTS, most=1) == found[:1]


def test_a_set_without_names_has_none() -> None:
    assert common_names(["how do I mend a net?", ""]) == ()
    assert common_names([]) == ()
