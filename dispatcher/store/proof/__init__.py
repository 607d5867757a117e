"""`dispatcher audit`: `audit` makes a `walk` over all there is and gives `findings`, by `proofs`.

Who is let in is proved by `access`.
"""
