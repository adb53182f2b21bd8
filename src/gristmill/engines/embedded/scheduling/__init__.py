"""What is computed next: sequences, the steps planned of them, and the loop that has them computed.

``engine_loop`` takes prepared requests and emits frames, ``scheduler`` plans (``step_plan``), ``step_pace`` and
``step_abort`` keep interactive requests from waiting.
"""
