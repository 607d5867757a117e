"""The operators: all of them, and one with what it is set to and what was done to it."""

from dispatcher.console.desk import Page

PAGES: tuple[Page, ...] = ()
