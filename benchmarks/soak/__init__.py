"""The soak: `arbiter serve` under mixed traffic and everything that goes wrong, every answer checked.

`python -m benchmarks.soak --minutes 30` starts a server on a disk of its own and callers in processes of their own,
and lets reloads, rollbacks, kills, a full disk, clock steps and bad clients happen to it, drawn from a seed. It ends
with 1 when an acknowledged write is missing, an answer is not what cel-cpp, rule by rule, says it must be, a call is
never answered, or memory grows.
"""
