"""Arbiter: a real-time decision engine. Rules, models and profiles behind one gRPC call.

Law: this file holds the version and imports nothing, so that each part can be imported without the others.
"""

from typing import Final

__version__: Final = "0.1.0"
