"""The main job on real input: a scanned report, read by plugins that cannot share an environment."""
