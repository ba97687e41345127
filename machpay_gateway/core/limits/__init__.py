"""Rates, and admission to them."""
