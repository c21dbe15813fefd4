"""Templates, labels and label words of the tasks are those of the reference implementation."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from tests.support.configs import CONF

TEXT = "{text} . It was <mask> ."
CAUSAL = "{text} It was {word} ."
PAIR = "{s1} ? <mask> , {s2}"
PAIR_CAUSAL = "{s1}{s2} They are {word} ."
# Masked and causal template, labels, label words; the reference has no causal one for mnli and qqp.
TASKS: dict[str, tuple[str, str | None, list[str], list[str]]] = {
    "sst2": (TEXT, CAUSAL, ["0", "1"], ["terrible", "great"]),
    "mr": (TEXT, CAUSAL, ["0", "1"], ["terrible", "great"]),
    "mpqa": (TEXT, CAUSAL, ["0", "1"], ["terrible", "great"]),
    "subj": (TEXT, CAUSAL, ["0", "1"], ["subjective", "objective"]),
    "trec": (
        "<mask> : {text}",
        CAUSAL,
        ["0", "1", "2", "3", "4", "5"],
        ["Description", "Entity", "Expression", "Human", "Location", "Number"],
    ),
    "mrpc": (PAIR, PAIR_CAUSAL, ["0", "1"], ["No", "Yes"]),
    "qnli": (PAIR, PAIR_CAUSAL, ["entailment", "not_entailment"], ["Yes", "No"]),
    "rte": (PAIR, PAIR_CAUSAL, ["entailment", "not_entailment"], ["Yes", "No"]),
    "mnli": (
        "{premise} ? <mask> , {hypothesis}",
        None,
        ["contradiction", "entailment", "neutral"],
        ["No", "Yes", "Maybe"],
    ),
    "qqp": ("{q1} <mask> , {q2}", None, ["0", "1"], ["No", "Yes"]),
}


@pytest.mark.parametrize("task", TASKS)
def test_task_is_that_of_the_reference(task: str) -> None:
    masked, causal, labels, label_words = TASKS[task]
    config = OmegaConf.load(CONF / "task" / f"{task}.yaml")
    assert config.templates.get("masked") == masked
    assert causal is None or config.templates.get("causal") == causal
    assert list(config.labels) == labels
    assert list(config.label_words) == label_words
