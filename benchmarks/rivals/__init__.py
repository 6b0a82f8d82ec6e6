"""What matching is compared with, each in its fastest safe use. Each takes the same rules and gives the best rule's id,
or an empty text where no rule holds.
"""
