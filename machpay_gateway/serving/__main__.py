"""The process of one worker, which the supervisor starts: `python -m machpay_gateway.serving`."""

import gc
import sys

# A start makes hardly any garbage, and looking for it takes a tenth of the start. `Worker` enables the collector again.
gc.disable()

from machpay_gateway.serving.worker import main  # noqa: E402 - the imports are most of the start

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
