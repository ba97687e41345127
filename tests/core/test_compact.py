import base64
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machpay_gateway.core.jose.compact import MAX_DEPTH, MAX_TOKEN_BYTES, CompactToken, media_type, parse_compact

HEADER = '{"alg":"RS256"}'
CLAIMS = '{"sub":"a"}'


def b64(raw: bytes | str) -> bytes:
    return base64.urlsafe_b64encode(raw.encode() if isinstance(raw, str) else raw).rstrip(b"=")


def compact(header: bytes | str = HEADER, claims: bytes | str = CLAIMS, signature: bytes = b"signature") -> bytes:
    return b".".join([b64(header), b64(claims), b64(signature)])


def nested(arrays: int) -> str:
    return '{"x":' + "[" * arrays + "1" + "]" * arrays + "}"


def refusal(result: object) -> str:
    """Return the reason of a refusal; a parsed result, whose repr may contain the same words, is a failure."""
    assert isinstance(result, str), result
    return result


def test_a_well_formed_token_is_parsed() -> None:
    token = compact('{"alg":"ES256","kid":"k1","typ":"application/AT+JWT"}', '{"sub":"a","n":[1,2.5,{"x":null}]}')
    parsed = parse_compact(token)
    assert isinstance(parsed, CompactToken)
    assert (parsed.algorithm, parsed.kid, parsed.type) == ("ES256", "k1", "at+jwt")
    assert parsed.claims == {"sub": "a", "n": [1, 2.5, {"x": None}]}
    assert parsed.signing_input + b"." + b64(parsed.signature) == token


def test_the_repr_of_a_token_has_no_claims_and_no_signature() -> None:
    parsed = parse_compact(compact(claims='{"sub":"somebody"}'))
    assert "somebody" not in repr(parsed)
    assert "signature" not in repr(parsed)


@pytest.mark.parametrize(
    "token, reason",
    [
        (b"", "three parts"),
        (b"..", "three parts"),
        (b"e30.e30", "three parts"),
        (compact() + b".", "three parts"),  # a fourth, empty part
        (compact() + b".e30.e30", "three parts"),  # five: an encrypted token
        (compact(signature=b""), "three parts"),  # the signature is cut off
        (b"." + compact(), "three parts"),
        (compact(claims=b""), "three parts"),  # detached content
        (b"." * MAX_TOKEN_BYTES, "three parts"),
        (compact(claims='{"pad":"%s"}' % ("x" * 6700)), "over 8192 bytes"),
    ],
)
def test_a_token_has_three_nonempty_parts_of_bounded_size(token: bytes, reason: str) -> None:
    assert reason in refusal(parse_compact(token))


@pytest.mark.parametrize(
    "part, why",
    [
        (b64(CLAIMS) + b"=", "padding"),
        (b64(CLAIMS) + b"==", "padding"),
        (b64(CLAIMS)[:-1] + b"1", "spare bits that are not zero"),
        (b" " + b64(CLAIMS), "leading space"),
        (b64(CLAIMS) + b"\n", "trailing newline"),
        (b64(CLAIMS)[:4] + b"\r\n" + b64(CLAIMS)[4:], "line break within"),
        (b64(CLAIMS)[:4] + b"!" + b64(CLAIMS)[4:], "foreign character, which lenient decoders drop"),
        (b64(CLAIMS)[:4] + b"\x00" + b64(CLAIMS)[4:], "NUL"),
        (base64.b64encode(b'{"sub":"\xc3\xbf\xc3\xbf\xc3\xbf\xc3\xbe>>>???"}').rstrip(b"="), "the other alphabet"),
        (b64(CLAIMS) + b"AA", "a length that no bytes have"),
        ("é".encode(), "not ASCII"),
    ],
)
def test_a_part_is_canonical_base64url_or_refused(part: bytes, why: str) -> None:
    for token in (b".".join([part, b64(CLAIMS), b"c2ln"]), b".".join([b64(HEADER), part, b"c2ln"])):
        assert "base64url" in refusal(parse_compact(token)), why


def test_spare_bits_of_a_signature_are_zero() -> None:
    good = compact(signature=b"1234")
    assert isinstance(parse_compact(good), CompactToken)
    last = {chr(code).encode() for code in range(33, 127)} - {good[-1:]}
    accepted = [end for end in last if isinstance(parse_compact(good[:-1] + end), CompactToken)]
    assert sorted(accepted) == [b"Q", b"g", b"w"]  # the three other values of the two bits that count


@pytest.mark.parametrize(
    "text, reason",
    [
        ('{"sub":"a","sub":"b"}', "duplicate"),
        ('{"sub":"a","s\\u0075b":"b"}', "duplicate"),  # the same name, written otherwise
        ('{"x":{"y":[{"z":1,"z":1}]}}', "duplicate"),  # at any depth, and with equal values
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        ('"a"', "not a JSON object"),
        ("", "three parts"),
        ("{", "not JSON"),
        ('{"sub":"a"} x', "not JSON"),
        ('{"sub":"a"}{}', "not JSON"),
        ("{'sub':'a'}", "not JSON"),
        ('{"sub":"a",}', "not JSON"),
        ('{"sub":"a\n"}', "not JSON"),  # control characters are escaped in JSON
        (b'\xef\xbb\xbf{"sub":"a"}', "not JSON"),  # RFC 8259 §8.1: no byte order mark
        ('{"sub":"a"}'.encode("utf-16"), "not UTF-8"),
        (b'{"sub":"\xff"}', "not UTF-8"),
        (b'{"sub":"\xc0\xaf"}', "not UTF-8"),  # overlong
        (b'{"sub":"\xed\xa0\x80"}', "not UTF-8"),  # a surrogate in UTF-8
        ('{"sub":"\\ud800"}', "not JSON"),  # a lone surrogate has no UTF-8 form
        ('{"\\udfff":1}', "not JSON"),
        ('{"exp":NaN}', "NaN"),
        ('{"exp":Infinity}', "NaN"),
        ('{"exp":-Infinity}', "NaN"),
        ('{"exp":1e400}', "absurd"),
        ('{"exp":-1e999999999}', "absurd"),
        ('{"exp":%s}' % ("9" * 4000), "absurd"),
        ('{"exp":0.%s}' % ("1" * 4000), "absurd"),
        ('{"exp":123456789012345678901}', "absurd"),  # 21 digits
        ('{"exp":01}', "not JSON"),
        (nested(MAX_DEPTH), "nested"),
        ('{"x":' * 700 + "1" + "}" * 700, "nested"),
        ("[" * 4000, "nested"),
    ],
)
def test_ambiguous_json_is_refused(text: bytes | str, reason: str) -> None:
    assert reason in refusal(parse_compact(compact(claims=text)))
    assert reason in refusal(parse_compact(compact(header=text)))


@pytest.mark.parametrize(
    "claims",
    [
        nested(MAX_DEPTH - 1),
        '{"x":"%s"}' % ("[" * 500),  # brackets within a string nest nothing
        '{"x":"\\"[[[[[[[[[[[[[","y":"\\\\"}',  # an escaped quote ends no string
        '{"x":"\\ud83d\\ude00"}',  # a pair of surrogates is a character
        '{"id":18446744073709551615}',  # 64 bits
        ' {"sub" : "a"} ',
        "{}",
    ],
)
def test_unusual_unambiguous_json_is_accepted(claims: str) -> None:
    parsed = parse_compact(compact(claims=claims))
    assert isinstance(parsed, CompactToken)
    assert parsed.claims == json.loads(claims)


@pytest.mark.parametrize(
    "header, reason",
    [
        ("{}", "alg"),
        ('{"alg":null}', "alg"),
        ('{"alg":["RS256"]}', "alg"),
        ('{"alg":"RS256","crit":[]}', "crit"),
        ('{"alg":"RS256","crit":["exp"],"exp":1}', "crit"),
        ('{"alg":"RS256","crit":["b64"],"b64":true}', "crit"),
        ('{"alg":"RS256","crit":null}', "crit"),
        ('{"alg":"RS256","b64":false}', "b64"),
        ('{"alg":"RS256","b64":true}', "b64"),
        ('{"alg":"RS256","zip":"DEF"}', "zip"),
        ('{"alg":"RS256","kid":1}', "kid"),
        ('{"alg":"RS256","kid":null}', "kid"),
        ('{"alg":"RS256","kid":"%s"}' % ("k" * 257), "kid"),
        ('{"alg":"RS256","typ":1}', "typ"),
        ('{"alg":"RS256","typ":null}', "typ"),
    ],
)
def test_a_header_with_extensions_or_wrong_types_is_refused(header: str, reason: str) -> None:
    assert reason in refusal(parse_compact(compact(header)))


def test_unused_header_members_are_ignored() -> None:
    header = {"alg": "RS256", "x5c": ["MIIB"], "jku": "http://evil.example", "custom": {"a": [1]}, "cty": "x"}
    assert isinstance(parse_compact(compact(json.dumps(header))), CompactToken)


@pytest.mark.parametrize(
    "typ, compared",
    [
        ("JWT", "jwt"),
        ("at+jwt", "at+jwt"),
        ("Application/AT+JWT", "at+jwt"),
        ("application/a/b", "application/a/b"),  # RFC 7515 §4.1.9: only where no other slash is
        ("text/at+jwt", "text/at+jwt"),
        ("application", "application"),
    ],
)
def test_types_are_compared_as_media_types(typ: str, compared: str) -> None:
    assert media_type(typ) == compared


@pytest.mark.parametrize(
    "token",
    [
        compact(claims="[" * 6000),
        compact(claims='"' * 6000),
        compact(claims='{"' + '\\"' * 2900),
        compact(claims='{"a":"\\' * 900),
        compact(claims='{"x":%s}' % ("9" * 6000)),
        compact(claims="{" + ",".join(f'"{n}":{n}' for n in range(600)) + "}"),
        compact(claims='{"x":"%s"}' % ("\\ud800" * 950)),
        compact(header="{" + " " * 6000),
        b"." * MAX_TOKEN_BYTES,
        b"a" * 16_000,
    ],
    ids=range(10),
)
def test_a_hostile_token_costs_little_time(token: bytes) -> None:
    assert best_seconds(token) < 0.005


def best_seconds(token: bytes) -> float:
    times = []
    for _ in range(5):  # the best of five: the machine has other work
        start = time.perf_counter()
        parse_compact(token)
        times.append(time.perf_counter() - start)
    return min(times)


@given(st.binary(max_size=400) | st.tuples(*[st.binary(max_size=100)] * 3).map(lambda parts: compact(*parts)))
def test_no_bytes_raise_anything(token: bytes) -> None:
    assert isinstance(parse_compact(token), CompactToken | str)


@given(st.recursive(st.none() | st.booleans() | st.text() | st.integers(-(2**53), 2**53), st.lists, max_leaves=5))
def test_every_valid_json_value_is_parsed(value: object) -> None:
    text = json.dumps({"x": value})
    parsed = parse_compact(compact(claims=text))
    if isinstance(parsed, CompactToken):
        assert parsed.claims == json.loads(text)
    else:
        assert "nested" in parsed or "not JSON" in parsed
