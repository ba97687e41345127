"""Commands are encoded here for speed; hiredis is the reference."""

import hiredis
from hypothesis import given
from hypothesis import strategies as st

from machpay_gateway.core.limits.admission import AdmissionRequest
from machpay_gateway.core.limits.plan import tier_plan
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.limiters.redis.resp import Argument, encode_bulk, encode_command
from machpay_gateway.limiters.redis.scripts import Script
from machpay_gateway.limiters.redis.steps import ANY_MOMENT, encode_step, pack_step

COUNTS = st.integers(0, 2)
ARGUMENTS = st.one_of(st.binary(max_size=40), st.text(st.characters(exclude_categories=["Cs"])), st.integers())


@given(st.lists(ARGUMENTS, min_size=1, max_size=20))
def test_a_command_is_encoded_as_by_hiredis(arguments: list[Argument]) -> None:
    assert encode_command(*arguments) == hiredis.pack_command(tuple(arguments))  # type: ignore[arg-type]  # of any mixture


REQUESTS = st.builds(
    AdmissionRequest,
    st.just("key_1"),
    st.integers(1, 2),
    st.sampled_from([tier_plan(Tier("10/minute", 4)), tier_plan(Tier("9/hour", 4))]),
    COUNTS,
)


@given(st.lists(st.tuples(REQUESTS, COUNTS, COUNTS), min_size=1))
def test_a_step_is_encoded_again_when_any_part_of_it_has_changed(
    steps: list[tuple[AdmissionRequest, int, int]],
) -> None:
    for request, wanted, held in steps:
        (part,) = request.plan.parts
        (rate,) = part.limits.rates
        packed = pack_step(request.plan, (request.version, 7, request.cost, wanted), [held])
        assert encode_step(request.plan, request.version, 7, request.cost, wanted, (held,), ANY_MOMENT) == encode_bulk(
            packed
        )
        fields = {1: 1, 6: request.version, 11: 7, 16: request.cost, 20: wanted}  # by where they end
        fields |= {21: 1, 22: 0, 23: 1, 27: 5, 28: 1, 32: held}
        fields |= {38: rate.limit, 43: rate.window_seconds * 1000, 49: 0}
        begin = 0
        for end, number in fields.items():
            assert int.from_bytes(packed[begin:end], "little") == number
            begin = end
        assert len(packed) == begin


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=20), st.lists(ARGUMENTS, max_size=20))
def test_a_script_call_from_encoded_parts_is_the_same_command(keys: list[bytes], arguments: list[Argument]) -> None:
    script = Script("return #KEYS")
    encoded_keys, encoded_arguments = list(map(encode_bulk, keys)), list(map(encode_bulk, arguments))
    written = encoded_keys, len(keys), encoded_arguments, len(arguments)

    assert script.encode(*written) == encode_command(*script.evalsha(keys, arguments))
    assert script.encode(*written, with_source=True) == encode_command(*script.eval(keys, arguments))
