"""What is served over HTTP: whether we live and work, and the API (interface.md, HTTP API)."""

from dispatcher.web.api import Api, application, served
from dispatcher.web.scrape import metrics_route
from dispatcher.web.server import bind, serving

__all__ = ["Api", "application", "bind", "metrics_route", "served", "serving"]
