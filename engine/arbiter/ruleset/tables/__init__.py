"""Decision tables: from cells to rules, and what can be said of a table as a whole.

Law: a row becomes an ordinary `Rule`, and nothing behind the rule set treats it as anything else, but for the order of
rows within their table. `read` makes rules, `analysis` finds overlaps and gaps from rules alone.
"""
