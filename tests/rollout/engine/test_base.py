import ast

from dynalign.rollout.engine.base import TEMPERATURE, EngineRequest, request_seed
from tests.worlds.product import nodes, product, refuse


def test_seeds_differ_by_run_group_and_candidate_and_repeat() -> None:
    seeds = {request_seed(run, group, index) for run in range(3) for group in range(5) for index in range(8)}
    assert len(seeds) == 120
    assert request_seed(1, 2, 3) == request_seed(1, 2, 3)
    assert all(0 <= seed < 2**31 for seed in seeds)


def sets_a_temperature(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="EngineRequest"), keywords=keywords):
            return any(keyword.arg in ("temperature", None) for keyword in keywords)
    return False


def test_only_questions_to_fixed_weights_have_a_temperature_of_their_own() -> None:
    """What is trained on is sampled at temperature 1, or the importance ratio is biased."""
    assert EngineRequest((1,)).temperature == TEMPERATURE == 1.0
    assert sets_a_temperature(ast.parse("EngineRequest(ids, temperature=t)", mode="eval").body)
    refuse(
        f"{path}:{node.lineno} sets the temperature of an engine's request: leave it at 1, "
        "or ask an engine with fixed weights through rollout/engine_asker.py"
        for path, tree in product().items()
        for node in nodes(tree)
        if isinstance(node, ast.Call) and sets_a_temperature(node) and path != "rollout/engine_asker.py"
    )
