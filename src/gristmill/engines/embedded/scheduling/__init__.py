"""What is computed next: sequences, the steps planned of them, and the loop that has them computed.

``engine_loop`` has steps computed, which the ``scheduler`` plans (``step_plan``); ``requests_in_flight`` takes prepared
requests up and emits frames of what steps complete; ``split_loop`` has two loops take turns. ``step_pace`` and
``step_abort`` keep interactive requests from waiting; ``step_times`` and ``wave`` measure how much is best
computed at a time.
"""
