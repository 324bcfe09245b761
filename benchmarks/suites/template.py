"""What `leakgauge new` starts a suite from: one of each kind of plug-in that comes with the distribution, commented."""

from __future__ import annotations

_TEXT = """\
# yaml-language-server: $schema={schema}
# Next: leakgauge validate {file}, then leakgauge run {file}
# What any plug-in below does and takes: leakgauge show attack ridge; what there is: leakgauge list
name: {name}
description: My suite on the task {task_name}.

# Images, the victim, and how the quality of its answers is measured.
task:
{task}

# The pipeline on the edge, with options that all operating points share.
defense: DEFENSE

# What is compared. The first is the undefended one, with which the others are compared.
operating_points:
  - name: undefended
  - {{name: threshold_0.90, reduction: {{name: threshold, thresholds: 0.90}}}}
  # As many tokens, merged at random: what a careful choice of tokens adds.
  - {{name: random_merge_0.90, reduction: {{name: random_merge, match: {{name: threshold, thresholds: 0.90}}}}}}

# What carries the payload; several may stand here, such as {{label: awgn_10db, name: awgn, snr_db: 10}}.
channels:
  - ideal

# Who looks, and what is granted.
threat_models:
  - name: server
    observer: server          # or eavesdropper, with a `channel` of its own
    knows: {{sizes: true, order: true, merge_map: false, channel_state: true}}
    victim: query             # none, query or white-box
    auxiliary: {{n: null}}      # images the attacker trains on; null: all there are

# Floors need no tokens: leakage is counted above them.
attacks:
  - floor_mean
  - floor_nearest
  - ridge
  # Trained too short an attack proves nothing: the report says whether its learning curve had flattened.
  - {{name: set_decoder, steps: 1500}}

# How many images are attacked; null: the whole evaluation split. Fewer make wider intervals.
evaluation_images: {images}
seeds: [0]
"""


def suite_template(questions: bool) -> str:
    """Returns the text of a new suite, to be filled in by ``format``.

    Its fields are ``schema`` and ``file`` (names of files), ``name``, ``task_name``, ``task`` (lines) and ``images``.

    Args:
        questions: Whether the task asks questions, for which another pipeline is needed.
    """
    defense = (
        "{{name: vqa_pipeline, codec: float16}}" if questions else "{{name: split_pipeline, cut: 3, codec: float16}}"
    )
    return _TEXT.replace("DEFENSE", defense)
