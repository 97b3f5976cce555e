"""Every number of a card is computed again here, from the Parquet files alone and by other code."""

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from huggingface_hub import DatasetCard

from dynalign.configs.errors import UserError
from dynalign.dataset.measures.contamination import EvaluationGrams, leaks
from dynalign.dataset.measures.diversity import compression_ratio, self_bleu, vendi_score
from dynalign.dataset.measures.near_duplicates import near_duplicates
from dynalign.dataset.measures.words import words
from dynalign.dataset.set_folder import SetFolder
from dynalign.dataset.set_writer import write_set
from dynalign.launch.set_report.card import builtin_set, write_card
from dynalign.rollout.prompts import load_prompts
from tests.worlds.made_set import DOMAINS, REGIONS, write_made_set
from tests.worlds.prompt_agents import made as pipeline
from tests.worlds.prompt_agents import mixed, plan_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made set with its card. One prompt of the evaluation set is a part of the first accepted prompt."""
    made = tmp_path_factory.mktemp("sets") / "made"
    write_made_set(made)
    first = str(rows(made, "prompts")[0]["prompt"])
    write_card(made, evaluation={"quiz": ["unrelated", first]})
    return made


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pyarrow.parquet.read_table(folder / f"{name}.parquet").to_pylist()
    return found


def card(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    return found


def test_the_hub_reads_the_front_matter(folder: Path) -> None:
    read = DatasetCard.load(folder / "README.md")
    assert read.data.pretty_name == "made"
    assert read.data.size_categories == ["n<1K"]
    assert read.data.task_categories == ["text-generation"]
    assert read.data.configs[0] == {"config_name": "default", "data_files": "prompts.parquet"}
    assert {each["data_files"] for each in read.data.configs} <= {path.name for path in folder.iterdir()}
    assert read.text.lstrip().startswith("# made")


def test_the_items_are_conserved_and_counted_by_reason(folder: Path) -> None:
    found = card(folder)
    items = rows(folder, "items")
    fates = Counter(item["fate"] for item in items)
    assert found["asked"] == len(items) == sum(fates.values())
    assert found["accepted"] == fates["accepted"] == len(rows(folder, "prompts"))
    for fate in ("rejected", "failed"):
        assert found[fate] == Counter(item["reason"] for item in items if item["fate"] == fate)
    assert found["asked"] == found["accepted"] + sum((found["rejected"] | found["failed"]).values())


def test_the_splits_and_goals_are_those_of_the_prompts(folder: Path) -> None:
    found = card(folder)
    prompts = rows(folder, "prompts")
    goals = {split: {p["goal"] for p in prompts if p["split"] == split} for split in ("train", "heldout")}
    assert (found["train"], found["heldout"]) == tuple(
        sum(p["split"] == split for p in prompts) for split in ("train", "heldout")
    )
    assert found["goals"] == len(goals["train"] | goals["heldout"])
    assert found["goals_in_both"] == len(goals["train"] & goals["heldout"]) == 0


def test_the_coverage_is_that_of_the_accepted_prompts_over_all_values(folder: Path) -> None:
    prompts = rows(folder, "prompts")
    by_axis = {axis["axis"]: axis for axis in card(folder)["sets"][0]["axes"]}
    assert by_axis.keys() == {"domain", "region"}
    for axis, values in (("domain", DOMAINS), ("region", REGIONS)):
        counts = {value: sum(p[axis] == value for p in prompts) for value in values}
        assert by_axis[axis]["counts"] == counts
        shares = [count / len(prompts) for count in counts.values()]
        assert by_axis[axis]["entropy"] == pytest.approx(-sum(p * math.log(p, 3) for p in shares if p))
        assert by_axis[axis]["smallest_share"] == pytest.approx(3 * min(shares))


def test_the_wording_is_that_of_the_texts(folder: Path) -> None:
    own, builtin = card(folder)["sets"]
    texts = [p["prompt"] for p in rows(folder, "prompts")]
    counts = sorted(len(text.split()) for text in texts)
    n = len(texts)
    assert own["texts"] == n
    assert own["distinct"] == len({tuple(words(text)) for text in texts})
    lengths = own["word_counts"]
    assert (lengths["least"], lengths["most"]) == (counts[0], counts[-1])
    assert lengths["mean"] == pytest.approx(sum(counts) / n)
    assert lengths["median"] == (counts[(n - 1) // 2] + counts[n // 2]) / 2
    assert (lengths["p5"], lengths["p95"]) == (counts[n * 5 // 100], counts[n * 95 // 100])
    varied = own["diversity"]
    assert varied["size"] == n == builtin["diversity"]["size"]  # the whole set: one sample, in another order
    split = [words(text) for text in texts]
    assert varied["vendi"]["mean"] == pytest.approx(vendi_score(split))
    assert varied["self_bleu"]["mean"] == pytest.approx(self_bleu(split))
    assert varied["compression"]["mean"] == pytest.approx(compression_ratio(texts), rel=0.05)
    assert builtin["texts"] == 272
    name = own["names"][0]
    assert name["texts"] == sum(bool(re.search(rf"\b{name['name']}\b", text)) for text in texts)
    assert name["share"] == pytest.approx(name["texts"] / n)


def test_repeats_and_leaks_are_those_of_the_texts(folder: Path) -> None:
    own = card(folder)["sets"][0]
    texts = [p["prompt"] for p in rows(folder, "prompts")]
    quiz = {"quiz": ["unrelated", texts[0]]}
    builtin = builtin_set().texts
    near = near_duplicates(texts, quiz | {"builtin": builtin})
    assert [(each["number"], each["twin"]["source"]) for each in own["near_duplicates"]] == [
        (each.number, each.twin.source) for each in near
    ]
    assert (0, "quiz") in {(each.number, each.twin.source) for each in near}
    assert [each["number"] for each in own["leaks"]] == [
        leak.number for leak in leaks(texts, EvaluationGrams(quiz))
    ]
    assert card(folder)["evaluation"] == [["quiz", 2]]
    assert len(own["nearest"]) == len(texts) == own["compared"]
    for each in own["nearest"]:
        one, other = (Counter(_shingles(texts[each[key]])) for key in ("number", "other"))
        assert each["similarity"] == pytest.approx(len(one & other) / len(one | other))


def _shingles(text: str) -> set[str]:
    found = words(text)
    return {*found, *(f"{a} {b}" for a, b in zip(found, found[1:], strict=False))}


def test_the_readme_shows_the_numbers_of_the_json(folder: Path) -> None:
    readme = (folder / "README.md").read_text(encoding="utf-8")
    found = card(folder)
    cells = {tuple(line.strip("| ").split(" | ")) for line in readme.splitlines() if line.startswith("| ")}
    assert ("asked", str(found["asked"])) in cells
    for fate in ("rejected", "failed"):
        for reason, count in found[fate].items():
            assert (f"{fate}: {reason}".replace("_", "\\_"), str(count)) in cells
    own = found["sets"][0]
    for axis in own["axes"]:
        row = next(row for row in cells if row[0] == axis["axis"])
        assert row[1:4] == (
            str(len(axis["counts"])),
            f"{axis['entropy']:.4f}",
            f"{axis['smallest_share']:.2f}",
        )
    vendi = next(row for row in cells if row[0].startswith("Vendi score"))
    assert vendi[0] == f"Vendi score of {own['diversity']['size']}"
    assert float(vendi[1].split()[0]) == pytest.approx(own["diversity"]["vendi"]["mean"], rel=0.005)
    near = next(row for row in cells if row[0] == "near-duplicates")
    assert near[1] == str(len(own["near_duplicates"]))
    assert '"model": "none"' in readme


def test_the_page_is_whole_and_no_text_becomes_markup(folder: Path) -> None:
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert "care <b>" not in page
    assert "http" not in re.sub(
        r"<script type=.application/json.*?</script>", "", page, flags=re.DOTALL
    ).replace("http-equiv", "")
    samples = re.search(r'id="samples-data">(.*?)</script>', page, re.DOTALL)
    assert samples is not None
    shown = json.loads(samples[1])
    assert len(shown) == sum(item["prompt"] != "" for item in rows(folder, "items"))
    assert {row["fields"]["fate"] for row in shown} == {"accepted", "rejected"}
    assert page.count("<svg") == page.count("</svg>") >= 4


def test_a_run_trains_on_the_folder(folder: Path) -> None:
    prompts = load_prompts(str(folder))
    assert [p.prompt for p in prompts.train] == [
        p["prompt"] for p in rows(folder, "prompts") if p["split"] == "train"
    ]
    assert prompts.heldout


def test_a_set_without_accepted_prompts_has_a_card(tmp_path: Path) -> None:
    write_made_set(tmp_path / "made", items=8)
    empty = pyarrow.parquet.read_table(tmp_path / "made" / "prompts.parquet").slice(0, 0)
    pyarrow.parquet.write_table(empty, tmp_path / "made" / "prompts.parquet")
    lines = write_card(tmp_path / "made", evaluation={})
    assert lines[0] == "Items"
    assert card(tmp_path / "made")["sets"] == []


def test_a_folder_without_a_made_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder of a made set"):
        write_card(tmp_path)
    write_made_set(tmp_path)
    (tmp_path / "items.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match="is no folder of a made set"):
        write_card(tmp_path)


def test_the_files_of_the_pipeline_have_a_card(tmp_path: Path) -> None:
    board, _, _ = pipeline(plan_of(count=24), mixed)
    write_set(SetFolder(tmp_path), board.ordered(), board.in_set(), board.plan.settings)
    (tmp_path / "set.json").write_text('{"identity": {"kind": "task"}}', encoding="utf-8")
    write_card(tmp_path, evaluation={})
    found = card(tmp_path)
    counts = board.counts()
    assert (found["asked"], found["accepted"]) == (counts.asked, counts.accepted)
    assert (found["rejected"], found["failed"]) == (dict(counts.rejected), dict(counts.failed))
    assert found["goals_in_both"] == 0
