from dynalign.rollout.engine.base import request_seed


def test_seeds_differ_by_run_group_and_candidate_and_repeat() -> None:
    seeds = {request_seed(run, group, index) for run in range(3) for group in range(5) for index in range(8)}
    assert len(seeds) == 120
    assert request_seed(1, 2, 3) == request_seed(1, 2, 3)
    assert all(0 <= seed < 2**31 for seed in seeds)
