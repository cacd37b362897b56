"""The main job on real data: ATT&CK procedure texts to tactics."""
