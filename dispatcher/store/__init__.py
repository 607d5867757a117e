"""The store: the only room that knows SQL. `corridor` is a delivery's life, `ledger` what people see and do."""
