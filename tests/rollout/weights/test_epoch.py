"""The members of an epoch, by rules alone: in time, late, dead, back again."""

from dynalign.rollout.weights.epoch import GATHER_S, Epoch, Membership, Ready

A, B, C = Ready("a", 1), Ready("b", 2), Ready("c", 1)


def after(*epochs: list[Ready]) -> tuple[Membership, Epoch]:
    """The membership after these epochs, each of which everybody joined, and the last of them."""
    membership = Membership()
    for ready in epochs:
        epoch = membership.close(ready)
        membership.over(ready)
    return membership, epoch


def test_the_first_epoch_waits_a_while_for_more_than_the_first() -> None:
    membership = Membership()
    assert not membership.gathered([], 10 * GATHER_S)
    assert not membership.gathered([A], 0.9 * GATHER_S)
    assert membership.gathered([A], GATHER_S)


def test_ranks_go_by_name_and_an_engine_on_several_gpus_takes_several() -> None:
    assert Membership().close([C, B, A]) == Epoch("group-1", {"a": 1, "b": 2, "c": 4}, 5)


def test_an_epoch_closes_as_soon_as_all_of_the_last_one_are_there() -> None:
    membership, _ = after([A, B])
    assert not membership.gathered([A], 0.0)
    assert membership.gathered([A, B], 0.0)
    assert membership.gathered([A, B, C], 0.0)


def test_one_that_died_is_waited_for_once_and_then_no_more() -> None:
    membership, _ = after([A, B])
    assert not membership.gathered([A], 0.9 * GATHER_S)
    assert membership.gathered([A], GATHER_S)
    membership.close([A])
    membership.over([A])
    assert membership.gathered([A], 0.0)


def test_one_that_was_late_is_waited_for_next_time() -> None:
    """Otherwise a worker that asks a millisecond after the others would be late for ever."""
    membership, _ = after([A, B])
    membership.close([A, B])
    membership.over([A, B, C])
    assert not membership.gathered([A, B], 0.0)
    assert membership.gathered([A, B, C], 0.0)


def test_the_same_members_keep_their_group_and_others_get_a_new_one() -> None:
    membership, first = after([A, B])
    assert membership.close([B, A]).group == first.group
    smaller = membership.close([A]).group
    assert smaller != first.group
    again = membership.close([A, B]).group
    assert again not in (first.group, smaller), "a member that comes back has lost its end of the old group"


def test_a_replacement_under_the_same_name_on_more_gpus_makes_another_group() -> None:
    membership, first = after([A])
    assert membership.close([Ready("a", 2)]).group != first.group


def test_a_broken_group_is_never_used_again() -> None:
    membership, first = after([A, B])
    membership.broken()
    assert membership.close([A, B]).group != first.group
