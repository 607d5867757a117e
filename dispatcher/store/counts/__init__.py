"""What is counted of the store, each for one who looks; none reads more as the store grows.

Pages: `glance`. `dispatcher stats`: `loads`. `/metrics`: `backlog`. `dispatcher forecast`: `waiting`. Summaries:
`toll`. Sums over everything that a search finds, step by step: `through`.
"""
