"""From a table, or the log itself, to a model folder that passes the gate.

Law: what is done before a model is served, and nothing of what serves it: no server, no worker and no runtime imports
this, since it brings scikit-learn. It is imported when a command asks for it.
"""
