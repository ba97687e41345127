"""The ends of WebSocket frames are seen, however the bytes arrive."""

import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from machpay_gateway.proxy.websocket_frames import FrameBoundaries, close_frame

_SIZES = st.sampled_from([0, 1, 2, 100, 125, 126, 127, 1000, 65_535, 65_536, 70_000])
_FRAMES = st.lists(st.tuples(_SIZES, st.booleans()), min_size=1, max_size=4)


def frames_of(described: list[tuple[int, bool]]) -> list[bytes]:
    """Return a frame for each length of a payload, and whether it is masked."""
    return [Frame(Opcode.BINARY, bytes(size)).serialize(mask=mask) for size, mask in described]


@settings(deadline=None)
@given(described=_FRAMES, sizes=st.lists(st.integers(1, 40_000), min_size=1, max_size=8))
def test_boundaries_are_those_of_the_frames(described: list[tuple[int, bool]], sizes: list[int]) -> None:
    frames = frames_of(described)
    data, ends, end = b"".join(frames), set(), 0
    for frame in frames:
        end += len(frame)
        ends.add(end)
    boundaries, at, number = FrameBoundaries(), 0, 0
    while at < len(data):
        size = sizes[number % len(sizes)]
        boundaries.skip(data[at : at + size])
        at, number = min(at + size, len(data)), number + 1
        assert boundaries.is_between_frames is (at in ends)


@settings(deadline=None)
@given(described=_FRAMES, cut=st.integers(0, 70_000))
def test_the_current_frame_ends_where_the_next_one_begins(described: list[tuple[int, bool]], cut: int) -> None:
    frames = frames_of(described)
    first, rest = frames[0], b"".join(frames[1:])
    boundaries = FrameBoundaries()
    cut = min(cut, len(first))
    boundaries.skip(first[:cut])
    if 0 < cut < len(first):
        assert boundaries.end_of_frame(first[cut:-1]) == -1 or len(first[cut:-1]) == 0
        boundaries = FrameBoundaries()
        boundaries.skip(first[:cut])
        assert boundaries.end_of_frame(first[cut:] + rest) == len(first) - cut
    else:
        assert boundaries.end_of_frame(rest) == 0
    assert boundaries.is_between_frames


def test_a_close_frame_is_one_that_clients_understand() -> None:
    expected = Frame(Opcode.CLOSE, struct.pack("!H", 1012) + b"the service restarts").serialize(mask=False)
    assert close_frame(1012, "the service restarts") == expected
