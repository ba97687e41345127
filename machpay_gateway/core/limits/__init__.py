"""Rate and concurrency limits, and admission to them."""
