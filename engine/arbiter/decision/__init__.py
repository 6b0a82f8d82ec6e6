"""The pure core: survivors of the index → gates → arbitration → rendering → a Decision."""
