"""What a log of decisions and of their outcomes says of experiments, rules and people."""
