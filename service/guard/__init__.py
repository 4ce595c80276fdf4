"""The gate as a middleware of somebody's own application.

app.add_middleware(Guard, runtime=start_runtime(), rules=[Rule(path="/chat")])
"""

from service.guard.guard import Guard
from service.guard.rules import Rule
from service.guard.start import start_runtime

__all__ = ["Guard", "Rule", "start_runtime"]
