"""The package's public names, which are imported when they are used."""

import subprocess
import sys

_CODE = """
import sys
import machpay_gateway as package

assert set(package.__all__) <= set(dir(package))
assert "machpay_gateway.core" not in sys.modules
for name in package.__all__:
    assert getattr(package, name).__module__.startswith("machpay_gateway.")
assert "machpay_gateway.middleware" in sys.modules
assert not hasattr(package, "absent")
"""


def test_all_names_are_listed_before_any_is_imported_and_each_is_there() -> None:
    subprocess.run([sys.executable, "-c", _CODE], check=True)
