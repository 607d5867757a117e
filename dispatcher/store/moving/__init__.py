"""`dispatcher db copy`: the order of it is `copy`, the rows go by `transfer`, and are counted on both sides by `tally`.

A `mark` stands on both meanwhile, and nobody works on either: all is `quiet`.
"""
