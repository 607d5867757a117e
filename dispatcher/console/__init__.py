"""The console: the wallet-flow log and all that people do with it, as pages in Chinese and English."""

from dispatcher.console.desk import Desk
from dispatcher.console.routes import routes

__all__ = ["Desk", "routes"]
