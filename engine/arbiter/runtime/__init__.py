"""The imperative shell: loads snapshots, watches files, supervises workers, and holds the one mutable reference."""
