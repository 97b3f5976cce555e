"""`dynalign judge check` as a user calls it, on a tiny model whose engine answers by chance."""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dynalign.evaluation.attacks.corpus import FAMILIES
from dynalign.evaluation.judge_check.planted import TIERS
from dynalign.launch.cli import dynalign, run_command
from dynalign.launch.report.figures import interval
from tests.worlds.scripted_endpoint import MODEL, judging, scripted_endpoint
from tests.worlds.tiny_run import config

PROMPTS = 3
HEADS = ("comparison", "answer", "form", "quantity", "judges", "family", "member", "probe")
"""The first cells of the rows that name columns."""


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a tiny model, with the deterministic engine and three held-out prompts."""
    return config(tmp_path_factory.mktemp("judge"), heldout={"prompts": PROMPTS})


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def judge_check(*arguments: object) -> int:
    return run_command(dynalign, ["judge", "check", *map(str, arguments)])


class Cells(HTMLParser):
    """The texts of a page's table cells, chart and headings."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in ("td", "h2", "text"):
            self._inside = True
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "h2", "text"):
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts[-1] += data


def test_a_check_writes_one_card_in_three_forms_with_the_same_figures(
    run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = ["--judge", "judge.rubric=factorized", "--judge", "judge.scorer=sampled judge.samples=2"]
    assert judge_check(run_file, *others, "--out", "card") == 0
    folder = tmp_path / "card"
    assert sorted(path.name for path in folder.iterdir()) == ["judge.html", "judge.json", "judge.md"]
    content = json.loads((folder / "judge.json").read_text())
    names = ["self, expected, unified", "self, expected, factorized", "self, sampled, unified, 2 samples"]
    assert [judge["judge"] for judge in content["judges"]] == names
    assert content["facts"]["prompts"] == PROMPTS
    markdown = (folder / "judge.md").read_text()
    cells = Cells((folder / "judge.html").read_text()).texts
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in markdown.splitlines()
        if line.startswith("| ") and "---" not in line
    ]
    for row in rows:
        assert all(cell in cells for cell in row) or row[0] in HEADS
    for judge in content["judges"]:
        for pair in (judge["overall"], *judge["adjacent"]):
            if pair["auc"] is None:
                continue
            shown = f"{pair['auc']['mean']:.2f} ({pair['auc']['low']:.2f} to {pair['auc']['high']:.2f}, n "
            assert any(cell.startswith(shown) for row in rows for cell in row), shown
    printed = capsys.readouterr().out.splitlines()
    assert len([line for line in printed if line.startswith("self, ")]) == 3
    assert printed[-1].startswith("the card: ")
    assert f"({interval(None)}" not in markdown


def test_the_texts_that_were_judged_are_in_the_json(run_file: Path, tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    answers.write_text(
        "\n".join(
            json.dumps(
                {"id": name, "answer": f"First {name}. Then rest. Do not hurry.", "paraphrase": "Slowly."}
            )
            for name in ("planning-002", "planning-009", "planning-016", "teaching-006")
        )
    )
    assert judge_check(run_file, "--answers", "answers.jsonl", "heldout.prompts=48") == 0
    content = json.loads((tmp_path / "runs" / "tiny-judge" / "judge.json").read_text())
    tiers = [group for group in content["groups"] if group["kind"] == "tiers"]
    assert len(tiers) == 4
    assert all(group["names_G"] == list(TIERS) for group in tiers)
    assert tiers[0]["texts_G"][0].startswith("First ")
    variants = [group for group in content["groups"] if group["kind"] == "variants"]
    assert all(group["texts_G"][group["names_G"].index("paraphrase")] == "Slowly." for group in variants)
    assert content["facts"]["good_answers"] == "4 from answers.jsonl"
    candidates = [group for group in content["groups"] if group["kind"] == "candidates"]
    assert len(candidates) == 48


def test_attacks_are_counted_before_the_start_and_their_lift_is_in_the_card(
    run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge_check(run_file, "--attacks", "2") == 0
    first = capsys.readouterr().out.splitlines()[0]
    content = json.loads((tmp_path / "runs" / "tiny-judge" / "judge.json").read_text())
    kinds = ("attacks", "keys")
    of_attacks = sum(len(group["texts_G"]) for group in content["groups"] if group["kind"] in kinds)
    asked = re.search(r"at most ([\d,]+) scores, (\d+) of them for attacks", first)
    assert asked is not None, first
    assert int(asked[2]) == of_attacks > 2 * len(FAMILIES) * PROMPTS
    assert int(asked[1].replace(",", "")) >= content["judges"][0]["scores"]
    lift = content["judges"][0]["lift"]
    assert [each["family"] for each in lift["families"]] == list(FAMILIES)
    assert lift["overall"]["pairs"] == 2 * len(FAMILIES) * PROMPTS
    assert all(each["unread"] == 0 for each in lift["families"]), "every attack fits into the context"
    assert content["facts"]["attacks"] == "2 of each of 18 families per prompt"
    assert judge_check(run_file, "--attacks", "0") == 0
    assert "0 of them for attacks" in capsys.readouterr().out
    content = json.loads((tmp_path / "runs" / "tiny-judge" / "judge.json").read_text())
    assert (content["judges"][0]["lift"], content["facts"]["attacks"]) == (None, "none")


def test_train_is_warned_in_one_line_that_names_the_figure(
    run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def noted() -> list[str]:
        assert run_command(dynalign, ["check", str(run_file)]) == 0
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("judge.kind=self")]

    (never,) = noted()
    assert "was never checked; `dynalign judge check`" in never
    assert judge_check(run_file, "--judge", "judge.rubric=factorized") == 0
    capsys.readouterr()
    content = json.loads(Path("runs/tiny-judge/judge.json").read_text())
    (line,) = noted()
    found = re.search(r"its AUC is (\S+) \(lower end (\S+), 3 prompts\), and should be 0.75", line)
    assert found is not None, line
    auc = content["judges"][0]["overall"]["auc"]
    assert (found[1], found[2]) == (f"{auc['mean']:.2f}", f"{auc['low']:.2f}")
    assert run_command(dynalign, ["check", str(run_file), "judge.samples=2", "judge.scorer=sampled"]) == 0
    assert "was never checked" in capsys.readouterr().out, "another way of scoring is another judge"
    assert run_command(dynalign, ["check", str(run_file), "judge.noise_fraction=0.5"]) == 0
    assert "was never checked" not in capsys.readouterr().out, "it changes no score"


def test_a_judge_that_is_a_function_needs_no_digits(run_file: Path, tmp_path: Path) -> None:
    function = "dynalign.rollout.judges.reward_functions:short_question"
    assert judge_check(run_file, "judge.kind=function", f"judge.function={function}") == 0
    content = json.loads((tmp_path / "runs" / "tiny-judge" / "judge.json").read_text())
    (judge,) = content["judges"]
    assert judge["judge"] == f"function {function}"
    assert judge["unread"] == 0
    assert content["agreement"] is None


def test_judges_of_every_kind_are_checked_and_a_second_check_asks_no_endpoint_again(
    run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_endpoint(act=judging) as server:
        big = f"judge.endpoints.big.address={server.address} judge.endpoints.big.model={MODEL}"
        others = [
            "judge.kind=frozen",
            f"judge.kind=external judge.models=[big] {big}",
            f"judge.kind=ranked judge.models=[big] {big}",
            f"judge.kind=panel judge.scorer=sampled judge.rounds=0 judge.stances=[asker:big,harm:big] {big}",
        ]
        arguments = [argument for other in others for argument in ("--judge", other)]
        assert judge_check(run_file, *arguments, "--out", "card") == 0, capsys.readouterr().err
        first = json.loads((tmp_path / "card" / "judge.json").read_text())
        judged = [body for body in server.billed if len(str(body)) > 1000]  # those of the preflight are short
        assert judge_check(run_file, *arguments, "--out", "card") == 0
        again = [body for body in server.billed if len(str(body)) > 1000]
        short = f"judge.kind=external judge.models=[big] {big} judge.endpoints.big.budget_tokens=60"
        assert judge_check(run_file, "--judge", short, "--out", "card") == 2
    assert [judge["judge"] for judge in first["judges"][1:]] == [
        "frozen, expected, unified",
        "external big, expected, unified",
        "ranked big, expected, unified",
        "panel asker:big harm:big, sampled, unified, 0 rounds",
    ]
    assert [judge["unread"] for judge in first["judges"][2:]] == [0, 0, 0]
    assert len(judged) == len(again) > 0
    assert "answered, " in capsys.readouterr().err


def test_a_check_that_meets_its_budget_says_so_and_goes_on_with_a_raised_one(
    run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_endpoint(act=judging) as server:
        judge = ["judge.kind=external", "judge.models=[big]", f"judge.endpoints.big.model={MODEL}"]
        judge += [f"judge.endpoints.big.address={server.address}"]
        assert judge_check(run_file, *judge, "judge.endpoints.big.budget_tokens=12000") == 1
        assert "BudgetReached: tiny at http://" in capsys.readouterr().err
        assert server.billed_tokens <= 12_000
        assert not (tmp_path / "runs" / "tiny-judge" / "judge.json").exists()
        assert judge_check(run_file, *judge, "judge.endpoints.big.budget_tokens=4000000") == 0
        bodies = [json.dumps(body) for body in server.billed if "max_tokens" in body and body.get("logprobs")]
    assert len(bodies) - len(set(bodies)) <= 1  # only what the preflight asks is asked twice


def test_a_judge_is_examined_under_its_vetoes_and_beside_its_probes_as_it_would_score(
    run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_endpoint(act=judging) as server:
        big = [f"judge.endpoints.big.address={server.address}", f"judge.endpoints.big.model={MODEL}"]
        second = ["judge.veto=[big]", "judge.probes=[frozen]", "judge.probe_factorized=true"]
        assert judge_check(run_file, *big, *second, "--out", "card") == 0
    assert "each judge and veto is asked for at most" in capsys.readouterr().out
    content = json.loads((tmp_path / "card" / "judge.json").read_text())
    (judge,) = content["judges"]
    (seconds,) = content["seconds"]
    (members,) = content["members"]
    assert judge["judge"] == seconds["judge"] == "self, expected, unified, veto big"
    whole = [given["scores_G"] for given in content["answers"][0]["given"]]
    own = [given["scores_G"] for given in members["own"]["given"]]
    veto = [given["scores_G"] for given in members["vetoes"][0]["given"]]
    for group, *three in zip(content["groups"], whole, own, veto, strict=True):
        for text, score, mine, its in zip(group["texts_G"], *three, strict=True):
            assert score == (min(mine, its) if text.strip() else mine)
    assert whole != own
    assert seconds["vetoes"][0]["lowers"]["mean"] > 0
    assert [probe["probe"] for probe in seconds["probes"]] == ["frozen", "self by aspects"]
    assert seconds["probes"][0]["scores"] == PROMPTS * content["facts"]["group_size"]
    assert sum(group["kind"] == "candidates" for group in content["groups"]) == len(
        members["probes"][0]["given"]
    )
    text = (tmp_path / "card" / "judge.md").read_text()
    assert "### The judge and its vetoes" in text
    assert "### Probes" in text
    cells = Cells((tmp_path / "card" / "judge.html").read_text()).texts
    assert {"veto big", "before its vetoes", "self by aspects"} <= set(cells)


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (["judge.veto=[gpt]"], "judge.veto"),
        (["heldout.prompts=0"], "heldout.prompts"),
        (["heldout.prompts=1"], "heldout.prompts"),
        (["heldout.prompts=49"], "heldout.prompts"),
        (["judge.scorer=guess"], "judge.scorer"),
        (["--judge", "rollout.group_size=4"], "--judge"),
        (["--judge", ""], "--judge"),
        (["--judge", "judge.scorer='expected"], "--judge"),
        (["--judge", "judge.scorer=expected"], "--judge"),
        (["--judge", "judge.scorer=guess"], "judge.scorer"),
        (["--judge", "judge.kind=function judge.function=absent:f"], "judge.function"),
        (["--judge", "judge.values=absent"], "judge.values"),
        (["--judge", "judge.kind=external judge.models=[gpt]"], "judge.models"),
        (["--answers", "absent.jsonl"], "absent.jsonl"),
        (["--answers", "answers.csv"], "--answers"),
        (["model=absent"], "model"),
        (["--out", "file/card"], "--out"),
        (["--attacks", "-1"], "--attacks"),
    ],
)
def test_a_mistake_is_one_line_and_starts_nothing(
    run_file: Path, tmp_path: Path, arguments: list[str], place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert judge_check(run_file, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.split(" ")[0].rstrip(":") == place
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_all_mistakes_come_at_once(run_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert judge_check(run_file, "heldout.prompts=0", "model=absent", "--judge", "steps=3") == 2
    assert [line.split(" ")[0] for line in capsys.readouterr().err.splitlines()] == [
        "--judge",
        "heldout.prompts",
        "model",
    ]
