"""What every authored YAML file has in common: from bytes to nodes with exact places, and mistakes shown at them.

Law: knows nothing of what the files are about. Rule files and manifests of models are read through it, so that both are
bounded alike, mean the same by the same YAML, and speak of mistakes in one voice.
"""
