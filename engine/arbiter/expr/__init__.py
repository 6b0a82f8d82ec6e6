"""CEL expressions: parsed and checked by cel-cpp, then turned into our small tree and compiled into Python
functions.
"""
