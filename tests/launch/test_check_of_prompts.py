"""What `check` and the preflight say of the prompts of a run."""

from pathlib import Path

import pytest

from dynalign.configs.load import load_run
from dynalign.launch.commands.check import check_lines
from dynalign.launch.preflight import check
from dynalign.launch.resume.open_run import open_run
from tests.launch.test_preflight import _alone as _alone
from tests.launch.test_preflight import paper_model, places, run


def test_more_held_out_prompts_than_there_are_is_refused_unless_it_is_the_default(tmp_path: Path) -> None:
    (mistake,) = check(open_run(run("heldout.prompts=100000"))).mistakes
    assert (mistake.place, mistake.value) == ("heldout.prompts", 100_000)
    assert (mistake.rule, mistake.remedy.split(", or ")[1]) == (
        "builtin has 48 held-out prompts",
        "set heldout.prompts=48",
    )
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b", "split": "heldout"}\n')
    (tmp_path / "mine.yaml").write_text(
        f"model: {paper_model(tmp_path / 'model')}\nprompts: {{source: prompts.jsonl}}\n"
    )
    assert places(load_run("mine.yaml")) == []


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".jsonl"])
def test_check_reads_prompts_of_every_kind(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"p{suffix}"
    for content in (None, b"", b"no table\n"):
        if content is not None:
            source.write_bytes(content)
        (mistake,) = check(open_run(run(f"prompts.source={source}"))).mistakes
        assert mistake.place.startswith(str(source))
        assert mistake.remedy


def test_texts_that_stand_more_than_once_are_said(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n' * 3 + '{"prompt": "b", "split": "heldout"}\n')
    lines = list(check_lines(run("prompts.source=p.jsonl", "heldout.prompts=1")))
    assert lines[1] == "p.jsonl: 2 of 4 prompts repeat the text of another one; each is drawn for itself"
