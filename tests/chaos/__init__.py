"""Everything that a batch stands on is killed and stopped while it runs, by a schedule that a seed decides.

``schedule`` decides (pure), ``stage`` is what there is and how it is hit, ``ledger`` compares what was stored with what
was asked afterwards, ``run`` plays one schedule and says what came of it.
"""
