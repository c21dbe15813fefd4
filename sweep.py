"""Run a sweep and report on it: python sweep.py sweep=layers task=sst2."""

from lpt.cli.sweep import main

if __name__ == "__main__":
    main()
