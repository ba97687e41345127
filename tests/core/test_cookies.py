"""Our cookies are told from others, in every form that a browser or a server takes for one of ours."""

import pytest

from machpay_gateway.core.network.cookies import sets_own_cookie, split_own_cookies


@pytest.mark.parametrize(
    "value, others",
    [
        (b"a=1; __Host-machpay-session=x; b=2", b"a=1; b=2"),
        (b"__Host-machpay-session=x; a=1", b"a=1"),
        (b"a=1; machpay-form=x", b"a=1"),
        (b"a=1 ;machpay-session=x;  b=2", b"a=1 ;  b=2"),  # the others stay as they are
        (b"machpay-session=x", b""),
        (b" ; __Host-machpay-session=x ; machpay-form=y;", b""),
        (b"a=1; __HOST-MachPay-Session=x", b"a=1"),
        (b"a=1; __Secure-machpay-new=x", b"a=1"),
        (b"a=1; machpay-session", b"a=1"),  # nameless: browsers send it so
        (b"a=1; =machpay-session=x", b"a=1"),
        (b"a=1; \xa0__Host-machpay-session=x", b"a=1"),  # blanks that servers strip and browsers do not
        (b"a=1; \xe2\x80\x80__Host-machpay-session=x", b"a=1"),
        (b'a=1; "machpay-session"=x', b"a=1"),
        (b"machpay-session=1; machpay-session=2", b""),
    ],
)
def test_own_cookies_are_removed_and_others_stay(value: bytes, others: bytes) -> None:
    divided = split_own_cookies(value)
    assert divided is not None
    assert divided[0] == others
    assert b"machpay-" in divided[1].lower()
    assert b"a=1" not in divided[1]


@pytest.mark.parametrize(
    "value", [b"", b"a=1; b=2", b"amachpay-session=x", b"a=machpay-session", b"machpay=1", b"x-machpay-y=1"]
)
def test_other_cookies_are_unchanged(value: bytes) -> None:
    assert split_own_cookies(value) is None


@pytest.mark.parametrize(
    "value, is_ours",
    [
        (b"machpay-session=x; Path=/", True),
        (b"__Host-machpay-session=x; Path=/; Secure", True),
        (b"__host-MACHPAY-session=x", True),  # RFC 6265bis §5.7: prefixes are compared without regard to case
        (b"__Secure-machpay-session=x", True),
        (b"  \t machpay-session=x", True),
        (b"=machpay-session=x", True),
        (b" = machpay-session=x", True),
        (b"machpay-session", True),
        (b"\xc2\xa0__Host-machpay-session=x", True),
        (b"session=x", False),
        (b"session=machpay-session", False),
        (b"a=1; machpay-session=x", False),  # an attribute that no browser knows
        (b"", False),
    ],
)
def test_a_cookie_stored_under_an_own_name_is_recognized(value: bytes, *, is_ours: bool) -> None:
    assert sets_own_cookie(value) is is_ours
