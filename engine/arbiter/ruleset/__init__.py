"""From rule files to typed rules, and from typed rules to the bitmap index and its residual checks."""
