"""From Kafka into the store: a process that reads topics and writes their events, each message exactly once.

Law: how far a partition was read stands in the store alone, in the transaction of its events. Only `loop` and `aside`
import `confluent_kafka`, which is an extra. Nothing of a message's content is logged.
"""
