"""Train one late prompt: python train.py model=roberta-large task=sst2 prompt.layer=13."""

from lpt.cli.train import main

if __name__ == "__main__":
    main()
