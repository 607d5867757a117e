"""The store: the only room that knows SQL. `corridor` is a delivery's life, `ledger` what people see and do.

- The tables: `schema`, brought up by `migrate`, told apart by `version`. The database: `engine` opens it; how the two
  kinds differ: `databases`.
- An event comes in: `acceptance`, many rows at once by `insertion`; in a caller's own transaction: `guest`.
- A delivery's life: `corridor` by its `statements`; in order: `line`; for whom: `workers`. Told: `feed`, `minutes`.
- Looked up: `search`. Counted: `counts`.
- Done by hand: `ledger`, in bulk `replays` by `replay_steps`; `operators` (`fingerprints` of their keys), `keys`,
  `accounts`. All of it stands in the `journal`, sealed by its `notary`, and is proved by `proof`.
- Deleted: `retention`. Moved to another database: `moving`. What can be said of any store: `status`.
"""
