"""Tests of rules: what authors write beside their rules, how it is run, what became of it, and what it covers.

Law: pure, above `decision` and the pure part of `profiles`, below `runtime`: a test goes through the same features,
walk and explanation as a request, with a clock of its own, and touches neither disk nor network.
"""

from arbiter.ruletests.check import failed_tests
from arbiter.ruletests.coverage import Coverage
from arbiter.ruletests.files import read_tests
from arbiter.ruletests.run import Result, Runner
from arbiter.ruletests.spec import RuleTest

__all__ = ["Coverage", "Result", "RuleTest", "Runner", "failed_tests", "read_tests"]
