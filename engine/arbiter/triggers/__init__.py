"""Rules over time: patterns over a subject's events, what is under way of them, and when they have come about.

Law: pure. What happened, and when it was seen, are arguments, and so is the clock; no store, no threads. `cage` alone
knows durable-rules, and only what runs triggers or tests them imports it.
"""
