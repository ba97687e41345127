"""`python -m machpay_gateway` is `machpay-gateway`."""

from machpay_gateway.cli.main import main

if __name__ == "__main__":
    main()
