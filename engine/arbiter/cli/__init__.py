"""The command line: one file per command, and nothing imported before a command needs it.

Law: reads arguments, calls the parts below, prints. No rule of the engine lives here.
"""

from arbiter.cli.app import main

__all__ = ["main"]
