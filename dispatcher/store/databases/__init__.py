"""Where the databases differ, and what each is like: the rest of the store asks `dialect` and knows neither.

`sqlite` (a file that broke off is `torn`), `postgresql` (one that keeps a connection and says nothing: `silence`); what
goes one by one: `locks`; what wakes a worker: `bell`.
"""
