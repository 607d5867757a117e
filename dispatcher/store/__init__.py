"""The store: the only room that knows SQL. `corridor` is a delivery's life, `ledger` what people see and do.

- The tables: `schema`, brought up by `migrate`, told apart by `version`. Where the databases differ: `dialect`.
- The database: `engine` opens it, `sqlite` (`torn`) or `postgresql` (`silence`); what goes one by one: `locks`;
  what wakes a worker: `bell`.
- An event comes in: `acceptance`, many rows at once by `insertion`; in a caller's own transaction: `guest`.
- A delivery's life: `corridor` by its `statements`; in order: `line`; for whom: `workers`. Told: `feed`, `minutes`.
- Looked up: `search`, for sums `through`. Counted: `glance` (pages), `loads` (`stats`), `backlog` (`/metrics`),
  `waiting` (`forecast`), `toll` (summaries).
- Done by hand: `ledger`, in bulk `replays` by `replay_steps`; `operators` (`fingerprints` of their keys), `keys`,
  `accounts`. All of it stands in the `journal`, sealed by its `notary`.
- Proved: `audit` makes a `walk` and gives `findings` by `proofs`; who is let in, by `access`.
- Deleted: `retention`. Moved: `copy` by `transfer`, counted by `tally`, with a `mark` on both, while all is `quiet`.
  What can be said of any store: `status`.
"""
