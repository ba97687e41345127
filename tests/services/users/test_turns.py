"""Who is next: fair between owners, bounded, and free again when somebody leaves."""

from machpay_gateway.services.fair_queue import FairQueue


def test_owners_take_turns_with_their_oldest() -> None:
    turns: FairQueue[str] = FairQueue(total=10, each=5)
    for owner, item in (("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("c", "c1")):
        assert turns.push(owner, item) is None
    assert [turns.pop() for _ in range(5)] == ["a1", "b1", "c1", "a2", "a3"]
    assert len(turns) == 0


def test_an_owner_has_so_many_and_no_more() -> None:
    turns: FairQueue[str] = FairQueue(total=10, each=2)
    assert [turns.push("a", item) for item in ("1", "2", "3")] == [None, None, "3"]
    assert turns.push("b", "4") is None


def test_when_it_is_full_the_newest_of_who_has_most_makes_room() -> None:
    turns: FairQueue[str] = FairQueue(total=4, each=3)
    for owner, item in (("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1")):
        turns.push(owner, item)
    assert turns.push("c", "c1") == "a3"
    assert turns.push("d", "d1") == "a2"
    assert turns.push("e", "e1") == "e1"  # nobody has more than one
    assert len(turns) == 4
    assert [turns.pop() for _ in range(4)] == ["a1", "b1", "c1", "d1"]


def test_who_leaves_frees_the_place() -> None:
    turns: FairQueue[str] = FairQueue(total=2, each=1)
    turns.push("a", "a1")
    turns.discard("a", "a1")
    turns.discard("a", "a1")
    turns.discard("b", "b1")
    assert turns.push("a", "a2") is None
    assert turns.pop() == "a2"
