"""Code that the experiments share. The scripts in `lab/` import it: Python puts a script's folder on its path."""
