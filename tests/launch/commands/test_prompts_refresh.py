"""`dynalign prompts refresh` as a user calls it: what it shows, what it hands to the run, what is refused.

Simulated: the model that writes, and the run, whose log and experience the product's own writers make.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dynalign.configs.errors import RunFailed, UserError
from dynalign.configs.load import load_run
from dynalign.dataset.items import AXES
from dynalign.dataset.refresh_choice import GroupOutcome
from dynalign.launch.commands.prompts_refresh import prompts_refresh
from dynalign.launch.refresh_record import read_record
from dynalign.rollout import added_prompts
from dynalign.rollout.arrow_schema import encode, to_batch
from dynalign.rollout.ledger.log import LedgerLog
from dynalign.rollout.ledger.values import Commit, LineageStart, PromptChange
from dynalign.rollout.prompts import PromptOrder, load_prompts
from dynalign.run_folder import layout, requests
from tests.worlds.planted_set import set_of_cells
from tests.worlds.prompt_agents import good
from tests.worlds.prompt_server import agents_act, of_agents
from tests.worlds.scripted_endpoint import ScriptedEndpoint, scripted_endpoint
from tests.worlds.tiny_groups import candidate, group

DULL = ("food and cooking",)
"""Parts of life in which no group of the run separates."""
SEED = 5


def run_on(folder: Path, source: str, passes: int, dull: Sequence[str] = DULL) -> Path:
    """A run over `source`, 8 groups a step, that withholds the groups of dull parts of life."""
    folder.mkdir(parents=True)
    (folder / layout.CONFIG).write_text(
        f"name: r\nmodel: none\nsteps: 100\nseed: {SEED}\nprompts: {{source: {json.dumps(source)}}}\n"
    )
    train = load_prompts(source).train
    order = PromptOrder(len(train), SEED)
    log = LedgerLog(folder / layout.LEDGER_LOG)
    log.append(LineageStart(1, 0, 0), durable=False)
    for step in range(1, passes * len(train) // 8 + 1):
        ids = range(8 * (step - 1), 8 * step)
        withheld = tuple((i, "low_signal") for i in ids if train[order.at(i).index].domain in dull)
        trained = tuple(i for i in ids if (i, "low_signal") not in withheld)
        log.append(Commit(step, 1, trained, withheld), durable=False)
    log.close()
    return folder


def refresh(
    server: ScriptedEndpoint | None, runs: Path, *overrides: str, count: int | None = None, run: str = "r"
) -> tuple[int, list[str]]:
    lines: list[str] = []
    asked = [] if server is None else [f"endpoint.address={server.address}", "endpoint.model=tiny"]
    code = prompts_refresh(
        run, str(runs), count, [*asked, *overrides], None, lines.append, lambda settings: len
    )
    return code, lines


def refusal(runs: Path, *overrides: str, count: int | None = None, run: str = "r") -> str:
    with pytest.raises(UserError) as refused:
        refresh(None, runs, *overrides, count=count, run=run)
    return "\n".join(str(mistake) for mistake in refused.value.mistakes)


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedEndpoint]:
    with scripted_endpoint(act=agents_act(good)) as running:
        yield running


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(set_of_cells(tmp_path_factory.mktemp("made")))


def test_new_prompts_take_the_place_of_saturated_ones_in_cells_that_still_separate(
    tmp_path: Path, server: ScriptedEndpoint, source: str
) -> None:
    folder = run_on(tmp_path / "r", source, passes=4)
    code, lines = refresh(server, tmp_path)
    assert code == 0, lines
    assert lines[0] == (
        "run r, steps 24 to 46: 184 groups of 92 prompts of 92; 4% without signal, usefulness 0.96"
    )
    shown = "\n".join(lines)
    assert "  -0.96  food and cooking: usefulness 0.00 ± 0.00 of 4 prompts" in shown
    assert "saturated: 4 of 92 prompts (p0000" in shown
    assert "new: 4 prompts in 4 useful cells, from 12 to 336 questions" in shown
    content_hash = requests.waiting_prompts(folder)
    assert content_hash is not None
    assert lines[-1] == f"run r takes 4 prompts in the place of 4 when it goes on ({content_hash})"
    added = added_prompts.read(folder, content_hash)
    train = load_prompts(source).train
    assert {train[position].domain for position in added.dropped} == set(DULL)
    assert not {prompt.domain for prompt in added.prompts} & set(DULL)
    assert [prompt.id for prompt in added.prompts] == [f"refresh-1-p{place:06d}" for place in range(4)]
    assert added.prompts_hash == load_prompts(source).content_hash
    made = json.loads((layout.refresh_folder(folder, 1) / "set.json").read_text())
    asked = {name: made["settings"][name] for name in ("seed", "threshold", "heldout_share", "steered")}
    assert asked == {"seed": 8, "threshold": 70, "heldout_share": 0.0, "steered": True}


def test_what_the_run_has_taken_is_in_the_record_of_the_next_refresh(
    tmp_path: Path, server: ScriptedEndpoint, source: str
) -> None:
    folder = run_on(tmp_path / "r", source, passes=4)
    refresh(server, tmp_path)
    content_hash = str(requests.waiting_prompts(folder))
    assert "has not taken the prompts of the refresh before yet" in refusal(tmp_path)
    added = added_prompts.read(folder, content_hash)
    log = LedgerLog(folder / layout.LEDGER_LOG)
    log.append(PromptChange(1, 46, content_hash, 368, 4, added.dropped), durable=True)
    log.append(Commit(47, 1, tuple(range(368, 376)), ()), durable=True)
    log.close()
    requests.prompts_settled(folder)
    record = read_record(folder, load_run(str(folder / layout.CONFIG)).settings)
    assert (record.after, record.dropped) == (content_hash, set(added.dropped))
    assert record.prompts.train[92:] == added.prompts
    assert all(set(cell) >= set(AXES[:4]) for cell in record.cells)
    assert len(record.cells) == 96
    assert not {outcome.prompt for outcome in record.outcomes[-8:]} & set(added.dropped)
    assert "has no saturated prompt" in refusal(tmp_path)
    code, lines = refresh(server, tmp_path, count=2)
    assert code == 0, lines
    assert added_prompts.read(folder, str(requests.waiting_prompts(folder))).after == content_hash


def test_a_refresh_that_was_interrupted_goes_on_with_its_cells_and_pays_for_nothing_twice(
    tmp_path: Path, server: ScriptedEndpoint, source: str
) -> None:
    folder = run_on(tmp_path / "r", source, passes=4)
    refresh(server, tmp_path, count=3)
    first = str(requests.waiting_prompts(folder))
    asked = len(of_agents(server.billed))
    requests.prompts_settled(folder)
    decision = layout.refresh_decision(folder, 1)
    decision.write_text(json.dumps(json.loads(decision.read_text()) | {"handed": ""}))
    log = LedgerLog(folder / layout.LEDGER_LOG)
    log.append(Commit(47, 1, tuple(range(368, 376)), ()), durable=True)
    log.close()
    assert "--count = 5: would change refresh 1, which was begun with 3 prompts" in refusal(tmp_path, count=5)
    code, lines = refresh(server, tmp_path)
    assert (code, lines[0]) == (0, "run r goes on with its refresh 1")
    assert requests.waiting_prompts(folder) == first
    assert len(of_agents(server.billed)) == asked


def test_scores_of_the_experience_say_how_reliable_a_group_is(tmp_path: Path, source: str) -> None:
    folder = run_on(tmp_path / "r", source, passes=1, dull=())
    (folder / layout.EXPERIENCE).mkdir()
    scored = [candidate([1, 2, 3], score) for score in (1.0, 2.0, 3.0)]
    payload = encode([to_batch(group(4, [1], scored, noise_std=0.5))])
    layout.experience_file(folder / layout.EXPERIENCE, 1).write_bytes(payload)
    record = read_record(folder, load_run(str(folder / layout.CONFIG)).settings)
    order = PromptOrder(92, SEED)
    assert record.outcomes[4] == GroupOutcome(order.at(4).index, 1, 0.75)
    assert {outcome.usefulness for outcome in record.outcomes} == {0.75}  # the others as those that are known
    assert record.tokens_per_group == 9


def test_prompts_without_cells_count_as_one_and_too_long_ones_are_left_out(
    tmp_path: Path, server: ScriptedEndpoint
) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text("".join(json.dumps({"id": f"o{n}", "prompt": f"Task {n}?"}) + "\n" for n in range(40)))
    folder = run_on(tmp_path / "r", str(own), passes=4, dull=())
    limit = "prompts: {max_tokens: 1, source: "
    config = folder / layout.CONFIG
    assert "has no saturated prompt" in refusal(tmp_path)
    code, lines = refresh(server, tmp_path, count=4)
    assert code == 0
    assert lines[1].startswith("the cells of its prompts are not known")
    requests.prompts_settled(folder)
    config.write_text(config.read_text().replace("prompts: {source: ", limit))
    with pytest.raises(RunFailed, match=r"fits into prompts\.max_tokens=1"):
        refresh(server, tmp_path, count=4)


def test_bad_input_is_one_line_and_nothing_is_asked(tmp_path: Path, source: str) -> None:
    run_on(tmp_path / "short", source, passes=1)
    run_on(
        tmp_path / "dull", source, passes=4, dull=tuple({each.domain for each in load_prompts(source).train})
    )
    run_on(tmp_path / "new", source, passes=0)
    run_on(tmp_path / "r", source, passes=4)
    assert "there is no such run" in refusal(tmp_path, run="nobody")
    assert "--count = 0: must be at least 1" in refusal(tmp_path, count=0)
    assert "has trained no step yet" in refusal(tmp_path, run="new")
    assert "has no group that separates any more" in refusal(tmp_path, run="dull")
    assert "endpoint" in refusal(tmp_path, "endpoint.model=null")
    assert "threshold" in refusal(tmp_path, "threshold=1000")
    few = tmp_path / "few.jsonl"
    few.write_text("".join(json.dumps({"prompt": f"Task {n}?"}) + "\n" for n in range(16)))
    run_on(tmp_path / "few", str(few), passes=4, dull=())
    assert "has groups of 16 prompts since step 5, too few to choose by" in refusal(tmp_path, run="few")
    few.write_text("")
    assert "prompts" in refusal(tmp_path, run="few")
    assert not (tmp_path / "r" / layout.REFRESHES).exists()
