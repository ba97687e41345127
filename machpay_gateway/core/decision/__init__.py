"""One decision: who is calling, by which route, whether they may, and what a refusal says."""
